//! What each path answers.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use super::{Pages, Site};

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_FULL: &str = "application/openmetrics-text;charset=utf-8;version=1.0.0";

const LOGGING_HELP: &str = "\
POST /logging                          show the log filter
POST /logging?level=<clauses>          append clauses to it
POST /logging?reset                    go back to the filter at start
POST /logging?reset&level=<clauses>    go back, then append

<clauses> is a comma list of off, error, warn, info, debug, trace (for everything) and
<target>=<level> or <target>:<level>, for instance info,access=debug
";

const INDEX: &str = "\
<!DOCTYPE html>
<html><head><title>adit</title></head><body><h1>adit</h1><ul>
<li><a href=\"/config_dump\">/config_dump</a>: what the proxy knows and serves</li>
<li>/logging (POST): show or change the log filter</li>
<li>/quitquitquit (POST): stop the proxy</li>
<li>/debug/pprof/profile, /debug/pprof/heap: not built in</li>
</ul></body></html>
";

const NO_PROFILER: &str = "profiling is not built into this proxy; use perf on the node\n";

type Answer = Response<Full<Bytes>>;

/// The answer to one request; its body is not read.
pub(super) async fn respond<B>(site: Site, pages: &Arc<Pages>, request: &Request<B>) -> Answer {
    let path = request.uri().path();
    match (site, path) {
        (Site::Admin, "/") => answer(StatusCode::OK, HTML, INDEX),
        (Site::Admin, "/config_dump") => config_dump(pages).await,
        (Site::Admin, "/logging") => logging(pages, request),
        (Site::Admin, "/quitquitquit") => quit(pages, request),
        (
            Site::Admin,
            "/debug/pprof/profile" | "/debug/pprof/heap" | "/debug/pprof/heap/profiling",
        ) => answer(StatusCode::NOT_IMPLEMENTED, TEXT, NO_PROFILER),
        (Site::Stats, "/metrics" | "/stats/prometheus") => metrics(pages, request).await,
        (Site::Readiness, "/healthz/ready") => ready(pages, request),
        _ => empty(StatusCode::NOT_FOUND),
    }
}

async fn config_dump(pages: &Arc<Pages>) -> Answer {
    let pages = Arc::clone(pages);
    match tokio::task::spawn_blocking(move || (pages.dump)()).await {
        Ok(body) => answer(StatusCode::OK, JSON, body),
        Err(error) => failure(&error),
    }
}

async fn metrics<B>(pages: &Arc<Pages>, request: &Request<B>) -> Answer {
    let listed = request
        .headers()
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case(OPEN_METRICS));
    let kind = if listed { OPEN_METRICS_FULL } else { TEXT };
    let metrics = Arc::clone(&pages.metrics);
    match tokio::task::spawn_blocking(move || metrics.render()).await {
        Ok(Ok(body)) => answer(StatusCode::OK, kind, body),
        Ok(Err(error)) => failure(&error),
        Err(error) => failure(&error),
    }
}

fn ready<B>(pages: &Pages, request: &Request<B>) -> Answer {
    if request.method() != Method::GET {
        return only(&Method::GET, "");
    }
    let pending = pages.readiness.pending();
    if pending.is_empty() {
        return answer(StatusCode::OK, TEXT, "ready\n");
    }
    let names = pending.into_iter().collect::<Vec<_>>().join(", ");
    answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("not ready, pending: {names}\n"))
}

fn quit<B>(pages: &Pages, request: &Request<B>) -> Answer {
    if request.method() != Method::POST {
        return only(&Method::POST, "POST stops the proxy\n");
    }
    tracing::info!("asked to stop by the admin server");
    pages.quit.notify_one();
    answer(StatusCode::OK, TEXT, "shutdown now\n")
}

fn logging<B>(pages: &Pages, request: &Request<B>) -> Answer {
    if request.method() != Method::POST {
        return only(&Method::POST, LOGGING_HELP);
    }
    let refuse =
        |why: &str| answer(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n{LOGGING_HELP}"));
    let (mut reset, mut level) = (false, None);
    let query = request.uri().query().unwrap_or_default();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (name, percent_decoded(value)) {
            ("level", Some(value)) => level = Some(value),
            ("reset", Some(_)) => reset = true,
            _ => return refuse("unknown or unreadable parameter"),
        }
    }
    let changed = match (reset, &level) {
        (false, None) => Ok(pages.log.directives()),
        _ => pages.log.change(reset, level.as_deref().unwrap_or_default()),
    };
    match changed {
        Ok(now) => answer(StatusCode::OK, TEXT, format!("current log level is {now}\n")),
        Err(error) => refuse(&error.to_string()),
    }
}

/// The text behind `%41` and `+`; `None` if it is not UTF-8 or cut off.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// The answer to a wrong method.
fn only(method: &Method, help: &'static str) -> Answer {
    let mut answer = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, help);
    if let Ok(value) = HeaderValue::from_str(method.as_str()) {
        answer.headers_mut().insert(ALLOW, value);
    }
    answer
}

fn failure(error: &dyn std::error::Error) -> Answer {
    answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_percent_decoded_or_refused() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(percent_decoded(text).as_deref(), expected, "{text}");
        };
        check("", Some(""));
        check("access%3Ddebug%2Cinfo", Some("access=debug,info"));
        check("access%3adebug", Some("access:debug"));
        check("a+b", Some("a b"));
        check("%C3%A4", Some("ä"));
        check("%C3", None);
        check("%4", None);
        check("%", None);
        check("%zz", None);
        check("%+1", None);
    }
}
