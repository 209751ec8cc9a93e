//! The status page: what is served, and what each proxy has acknowledged.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use tokio::sync::watch;

use super::catalogue::Catalogue;
use super::proxies::{Proxies, Proxy};
use crate::wire::xds::ResourceType;

/// Where the manifests stand, for people.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Loaded {
    /// The state that is served.
    pub(super) generation: u64,
    /// Why the files as they are now cannot be used, if they cannot.
    pub(super) error: Option<String>,
    /// What is not served, and what happens instead.
    pub(super) notes: Vec<String>,
}

/// What the page is made of.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(super) loaded: watch::Receiver<Loaded>,
    pub(super) proxies: Proxies,
}

#[derive(Serialize)]
struct Page<'a> {
    generation: u64,
    addresses: usize,
    policies: usize,
    error: Option<&'a str>,
    not_served: &'a [String],
    proxies: Vec<Proxy>,
}

impl Status {
    /// The answer to a request that is not gRPC.
    pub(super) fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let loaded = self.loaded.borrow();
        let catalogue = Arc::clone(&self.catalogue.borrow());
        let page = Page {
            generation: loaded.generation,
            addresses: catalogue.entries(ResourceType::Address).len(),
            policies: catalogue.entries(ResourceType::Authorization).len(),
            error: loaded.error.as_deref(),
            not_served: &loaded.notes,
            proxies: self.proxies.list(),
        };
        let (kind, body) = match path {
            "/" => ("text/html; charset=utf-8", page.html()),
            "/status.json" => {
                ("application/json", serde_json::to_string_pretty(&page).unwrap_or_default())
            }
            _ => return plain(StatusCode::NOT_FOUND, "try / or /status.json\n"),
        };
        if method != Method::GET && method != Method::HEAD {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let mut answer = plain(StatusCode::OK, body);
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        answer
    }
}

impl Page<'_> {
    fn html(&self) -> String {
        let mut html = String::from(
            "<!DOCTYPE html>\n<html><head><title>adit control</title></head><body>\n\
             <h1>adit control</h1>\n",
        );
        let Self { generation, addresses, policies, .. } = self;
        // Writing to a text cannot fail.
        let _ = writeln!(
            html,
            "<p>Generation {generation}: {addresses} addresses, {policies} policies.</p>"
        );
        if let Some(error) = self.error {
            let _ = writeln!(
                html,
                "<h2>The files as they are now cannot be used</h2>\n<pre>{}</pre>",
                escape(error)
            );
        }
        html.push_str("<h2>Proxies</h2>\n<table border=\"1\"><tr><th>node</th><th>from</th>");
        html.push_str("<th>token of</th><th>kind</th><th>resources</th><th>acknowledged</th>");
        html.push_str("<th>unanswered</th><th>refused</th></tr>\n");
        for proxy in &self.proxies {
            proxy_rows(&mut html, proxy);
        }
        html.push_str("</table>\n<h2>Not served</h2>\n<ul>\n");
        for note in self.not_served {
            let _ = writeln!(html, "<li>{}</li>", escape(note));
        }
        html.push_str("</ul>\n<p><a href=\"/status.json\">JSON</a></p>\n</body></html>\n");
        html
    }
}

/// A row for each kind of resource that a proxy has asked for.
fn proxy_rows(html: &mut String, proxy: &Proxy) {
    let node = proxy.node.as_ref().map_or("", |node| &node.id);
    let token = proxy.token_of.as_deref().unwrap_or("none: plain text");
    for of in &proxy.resources {
        let unanswered = of.unanswered.map(|g| g.to_string()).unwrap_or_default();
        let nack = of.last_nack.as_deref().unwrap_or_default();
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{} {}</td></tr>",
            escape(node),
            proxy.address,
            escape(token),
            of.kind,
            of.resources,
            of.acknowledged,
            unanswered,
            of.nacks,
            escape(nack),
        );
    }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

/// Names and reasons come from files and from peers.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
