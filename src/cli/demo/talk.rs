//! What the steps say to applications, and what they make of answers and log lines.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;

use serde_json::Value;

use super::mesh::{Mesh, SERVER_NODE};
use super::step::PATIENCE;
use crate::cli::lab::ask;

/// A line of a server, without its end.
pub(super) fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    const LINE_BYTES_MAX: usize = 128;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    let mut byte = [0; 1];
    while line.len() < LINE_BYTES_MAX {
        stream.read_exact(&mut byte)?;
        if byte == [b'\n'] {
            break;
        }
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// What a server says unasked.
pub(super) fn try_line(stream: io::Result<TcpStream>) -> io::Result<String> {
    read_line(&mut stream?)
}

/// What an echo says.
pub(super) fn say(stream: io::Result<TcpStream>) -> io::Result<String> {
    ask(&mut stream?, "healthy?\n", PATIENCE)
}

/// An answer in words.
pub(super) fn describe(answer: &io::Result<String>) -> String {
    match answer {
        Ok(text) => format!("answered {:?}", text.trim_end()),
        Err(error) => explain(error),
    }
}

/// What an error means to somebody who watches a connection.
pub(super) fn explain(error: &io::Error) -> String {
    match (error.kind(), error.get_ref()) {
        // It has words of its own.
        (_, Some(_)) => error.to_string(),
        (ErrorKind::UnexpectedEof, None) => "connection closed".into(),
        (ErrorKind::ConnectionReset | ErrorKind::BrokenPipe, None) => "connection reset".into(),
        (ErrorKind::ConnectionRefused, None) => "connection refused".into(),
        (ErrorKind::WouldBlock | ErrorKind::TimedOut, None) => "no answer in time".into(),
        (_, None) => error.to_string(),
    }
}

/// The value of a field of a log line, without its quotes (spec operations 8).
pub(super) fn field(line: &str, name: &str) -> Option<String> {
    let start = format!("{name}=");
    let (at, _) = line.match_indices(&start).find(|(at, _)| line[..*at].ends_with([' ', '\t']))?;
    let rest = &line[at + start.len()..];
    let value = match rest.strip_prefix('"') {
        // Quotes inside are escaped.
        Some(quoted) => {
            let end = quoted
                .match_indices('"')
                .find(|(at, _)| !quoted[..*at].ends_with('\\'))
                .map(|(at, _)| at)?;
            quoted[..end].replace("\\\"", "\"")
        }
        None => rest.split(' ').next()?.to_owned(),
    };
    Some(value)
}

/// Whether something held, in a word.
pub(super) fn yes(held: bool) -> &'static str {
    if held { "yes" } else { "NO" }
}

/// The ALLOW policies that payments names, as its proxy has them (spec operations 6).
pub(super) fn allow_policies(mesh: &Mesh) -> io::Result<Vec<String>> {
    let dump = mesh.proxy(SERVER_NODE)?.config_dump()?;
    let list = |key: &str| dump[key].as_array().map_or(&[][..], Vec::as_slice);
    let names = |workload: &Value| workload["authorizationPolicies"].as_array().cloned();
    let named = list("workloads")
        .iter()
        .filter(|workload| workload["name"] == "payments")
        .find_map(names)
        .unwrap_or_default();
    let allows = list("policies").iter().filter(|policy| policy["action"] == "Allow");
    Ok(allows
        .filter_map(|policy| {
            Some(format!("{}/{}", policy["namespace"].as_str()?, policy["name"].as_str()?))
        })
        .filter(|name| named.iter().any(|known| known == name.as_str()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_found_in_log_lines() {
        let line = "t\tinfo\taccess\tconnection complete\tsrc.addr=10.0.0.1:5 \
                    src.identity=\"spiffe://a/b\" error=\"no \\\"x\\\" here\" duration=\"1ms\"";
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(field(line, name).as_deref(), expected, "{name}");
        };
        check("src.addr", Some("10.0.0.1:5"));
        check("src.identity", Some("spiffe://a/b"));
        check("error", Some("no \"x\" here"));
        check("duration", Some("1ms"));
        check("addr", None);
        check("dst.addr", None);
    }
}
