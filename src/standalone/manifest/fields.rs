//! Reading one mapping field by field: what was not asked for is told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde_saphyr::Spanned;

use super::node::Node;

/// Labels, annotations and selectors.
pub(crate) type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// As it was named on the command line, or found in the folder that was.
    pub(crate) file: Arc<str>,
    /// From 1; 0 where not known.
    pub(crate) line: u64,
}

/// A remark about an object, or what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Where.
    pub(crate) at: At,
    /// Kind, namespace and name.
    pub(crate) object: String,
    /// The field; empty for the object as a whole.
    pub(crate) field: String,
    /// What happens instead, or the reason.
    pub(crate) text: String,
}

/// Notes up to a limit, and how many more there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// In the order in which they were found.
    pub(crate) list: Vec<Note>,
    /// Beyond the limit.
    pub(crate) more: usize,
}

/// Notes that are kept.
const NOTES_MAX: usize = 2_000;

/// What is found while one object is read.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) file: Arc<str>,
    object: RefCell<String>,
    notes: RefCell<Notes>,
    problems: RefCell<Notes>,
}

/// One mapping, and which of its fields were asked for.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) path: String,
    pub(super) line: u64,
    entries: &'a [(String, Spanned<Node>)],
    taken: Vec<Cell<bool>>,
    pub(super) report: &'a Report,
}

/// One item of a list.
#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    pub(super) path: String,
    node: &'a Spanned<Node>,
    report: &'a Report,
}

/// What is told of fields that istiod does not look at either.
pub(super) const NOTHING_OF_A_MESH: &str = "not served: it means nothing to a node proxy";

/// What becomes of fields nobody asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unread {
    /// They are no business of a mesh, and there may be many.
    Ignore,
    /// Each is told, with what happens instead.
    Tell(&'static str),
    /// Each is an error: it may have been meant to deny.
    Refuse(&'static str),
}

impl Notes {
    /// Keeps a note, or counts it.
    pub(crate) fn push(&mut self, note: Note) {
        if self.list.len() < NOTES_MAX {
            self.list.push(note);
        } else {
            self.more += 1;
        }
    }

    /// Adds those of `other`.
    pub(crate) fn extend(&mut self, other: Self) {
        self.more += other.more;
        for note in other.list {
            self.push(note);
        }
    }

    /// One line for each, and one for those that were not kept.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.list.iter().map(ToString::to_string).collect();
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        lines
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl Report {
    /// Nothing found yet in `file`.
    pub(super) fn new(file: Arc<str>) -> Self {
        Self {
            file,
            object: RefCell::default(),
            notes: RefCell::default(),
            problems: RefCell::default(),
        }
    }

    /// What is found from here on is about `object`.
    pub(super) fn about(&self, object: String) {
        self.object.replace(object);
    }

    pub(super) fn note(&self, line: u64, field: &str, text: impl Into<String>) {
        self.notes.borrow_mut().push(self.entry(line, field, text.into()));
    }

    pub(super) fn problem(&self, line: u64, field: &str, text: impl Into<String>) {
        self.problems.borrow_mut().push(self.entry(line, field, text.into()));
    }

    /// The notes, and the problems.
    pub(super) fn into_parts(self) -> (Notes, Notes) {
        (self.notes.into_inner(), self.problems.into_inner())
    }

    fn entry(&self, line: u64, field: &str, text: String) -> Note {
        let at = At { file: Arc::clone(&self.file), line };
        Note { at, object: self.object.borrow().clone(), field: field.to_owned(), text }
    }
}

impl<'a> Fields<'a> {
    /// The fields of a node, if it is a mapping. `null` is a mapping without fields.
    pub(super) fn of(node: &'a Spanned<Node>, path: &str, report: &'a Report) -> Option<Self> {
        let entries: &[_] = match &node.value {
            Node::Map(entries) => entries,
            Node::Null => &[],
            other => {
                let reason = format!("a mapping is expected, not {}", other.what());
                report.problem(node.referenced.line(), path, reason);
                return None;
            }
        };
        Some(Self {
            path: path.to_owned(),
            line: node.referenced.line(),
            entries,
            taken: vec![Cell::new(false); entries.len()],
            report,
        })
    }

    /// The value of a field; `null` is as good as absent.
    fn take(&self, name: &str) -> Option<&'a Spanned<Node>> {
        let at = self.entries.iter().position(|(key, _)| key == name)?;
        self.taken[at].set(true);
        let node = &self.entries[at].1;
        (node.value != Node::Null).then_some(node)
    }

    /// Whether the field is there, whatever it holds, `null` included.
    pub(super) fn has(&self, name: &str) -> bool {
        let at = self.entries.iter().position(|(key, _)| key == name);
        at.inspect(|&at| self.taken[at].set(true)).is_some()
    }

    /// The line of a field; that of the mapping if it is not there.
    pub(super) fn line_of(&self, name: &str) -> u64 {
        let entry = self.entries.iter().find(|(key, _)| key == name);
        entry.map_or(self.line, |(_, node)| node.referenced.line())
    }

    /// The field as a text.
    pub(super) fn text(&self, name: &str) -> Option<Arc<str>> {
        let node = self.take(name)?;
        Item { path: self.join(name), node, report: self.report }.text()
    }

    /// The field as something that is written as text or number.
    pub(super) fn parse<T: FromStr>(&self, name: &str, what: &str) -> Option<T> {
        let node = self.take(name)?;
        Item { path: self.join(name), node, report: self.report }.parse(what)
    }

    /// The field as true or false; absent is false.
    pub(super) fn flag(&self, name: &str) -> bool {
        match self.take(name).map(|node| (&node.value, node.referenced.line())) {
            None => false,
            Some((Node::Bool(value), _)) => *value,
            Some((other, line)) => {
                let reason = format!("true or false is expected, not {}", other.what());
                self.report.problem(line, &self.join(name), reason);
                false
            }
        }
    }

    /// The field as a mapping.
    pub(super) fn map(&self, name: &str) -> Option<Self> {
        Fields::of(self.take(name)?, &self.join(name), self.report)
    }

    /// The field as a list; absent is empty.
    pub(super) fn list(&self, name: &str) -> Vec<Item<'a>> {
        let Some(node) = self.take(name) else { return Vec::new() };
        let path = self.join(name);
        let Node::List(items) = &node.value else {
            let reason = format!("a list is expected, not {}", node.value.what());
            self.report.problem(node.referenced.line(), &path, reason);
            return Vec::new();
        };
        let items = items.iter().enumerate();
        let item = |(at, node)| Item { path: format!("{path}[{at}]"), node, report: self.report };
        items.map(item).collect()
    }

    /// The field as a list of texts; absent is empty.
    pub(super) fn texts(&self, name: &str) -> Vec<Arc<str>> {
        self.list(name).into_iter().filter_map(|item| item.text()).collect()
    }

    /// The field as a mapping of texts; absent is empty.
    pub(super) fn labels(&self, name: &str) -> Labels {
        let Some(map) = self.map(name) else { return Labels::new() };
        let texts = map.entries.iter().filter_map(|(key, node)| {
            let item = Item { path: map.join(key), node, report: self.report };
            Some((Arc::from(key.as_str()), item.text()?))
        });
        texts.collect()
    }

    /// The names of all fields, and the fields of each.
    pub(super) fn maps(&self) -> Vec<(&'a str, Self)> {
        let of = |(key, node): &'a (String, Spanned<Node>)| {
            Some((key.as_str(), Fields::of(node, &self.join(key), self.report)?))
        };
        self.taken.iter().for_each(|taken| taken.set(true));
        self.entries.iter().filter_map(of).collect()
    }

    /// The names of all fields.
    pub(super) fn names(&self) -> Vec<&'a str> {
        self.entries.iter().map(|(key, _)| key.as_str()).collect()
    }

    /// Fields that are no business of a mesh.
    pub(super) fn skip(&self, names: &[&str]) {
        for name in names {
            self.has(name);
        }
    }

    /// A remark about a field of this mapping.
    pub(super) fn note(&self, name: &str, text: impl Into<String>) {
        self.report.note(self.line_of(name), &self.join(name), text);
    }

    /// Something wrong with a field of this mapping.
    pub(super) fn problem(&self, name: &str, text: impl Into<String>) {
        self.report.problem(self.line_of(name), &self.join(name), text);
    }

    /// Says what becomes of every field that nobody asked for.
    pub(super) fn finish(&self, unread: Unread) {
        let untaken = self.entries.iter().zip(&self.taken).filter(|(_, taken)| !taken.get());
        for ((key, _), _) in untaken {
            match unread {
                Unread::Ignore => {}
                Unread::Tell(text) => self.note(key, text),
                Unread::Refuse(text) => self.problem(key, text),
            }
        }
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

impl<'a> Item<'a> {
    /// The item as a mapping.
    pub(super) fn map(&self) -> Option<Fields<'a>> {
        Fields::of(self.node, &self.path, self.report)
    }

    /// The item as a document of its own.
    pub(super) fn node(&self) -> &'a Spanned<Node> {
        self.node
    }

    /// The item as a text.
    pub(super) fn text(&self) -> Option<Arc<str>> {
        match &self.node.value {
            Node::Text(text) => Some(text.as_str().into()),
            other => {
                let hint = if matches!(other, Node::Null | Node::List(_) | Node::Map(_)) {
                    ""
                } else {
                    "; put it in quotes"
                };
                self.problem(format!("a text is expected, not {}{hint}", other.what()));
                None
            }
        }
    }

    /// The item as something that is written as text or number.
    pub(super) fn parse<T: FromStr>(&self, what: &str) -> Option<T> {
        let text = match &self.node.value {
            Node::Text(text) | Node::Number(text) => text,
            other => {
                self.problem(format!("{what} is expected, not {}", other.what()));
                return None;
            }
        };
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.problem(format!("{what} is expected, not {text:?}"));
        }
        parsed
    }

    fn problem(&self, reason: String) {
        self.report.problem(self.node.referenced.line(), &self.path, reason);
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.at)?;
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        write!(f, ": {}", self.text)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        Ok(())
    }
}
