//! Header fields between the engine and the rest of the data path.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};

use crate::hbone::http2::Fields;

/// What is sent; what is no text is left out.
pub(super) fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
}

/// What arrived, pseudo-fields left out.
pub(super) fn map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields.iter() {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_lowercase(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

/// The head of a request. An authority that is none is left out, and refused by who needs it.
pub(super) fn request(fields: &Fields) -> Request<()> {
    let mut request = Request::new(());
    let method = fields.get(b":method").and_then(|method| Method::from_bytes(method).ok());
    *request.method_mut() = method.unwrap_or(Method::CONNECT);
    let authority = fields
        .get(b":authority")
        .and_then(|authority| Uri::builder().authority(authority).build().ok());
    *request.uri_mut() = authority.unwrap_or_default();
    *request.headers_mut() = map(fields);
    request
}

/// The size of a list, as RFC 9113 6.5.2 counts it.
pub(super) fn size(fields: &Fields) -> usize {
    /// What is added for each field.
    const OVERHEAD: usize = 32;
    fields.iter().map(|(name, value)| name.len() + value.len() + OVERHEAD).sum()
}
