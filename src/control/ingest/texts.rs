//! Texts that many resources of a response share, stored once.

use std::sync::Arc;

use foldhash::HashSet;

/// The texts of one response.
#[derive(Debug, Default)]
pub(in crate::control) struct Texts(HashSet<Arc<str>>);

impl Texts {
    /// The one copy of `text`.
    pub(super) fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.0.insert(Arc::clone(&text));
        text
    }
}
