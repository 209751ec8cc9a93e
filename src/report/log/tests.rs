use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::{debug, error, info, info_span, trace, warn};

use super::*;

/// Long enough for any machine; a test that waits for it has failed.
const AGES: Duration = Duration::from_secs(30);

/// A sink that keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).expect("the log is UTF-8")
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config(filter: &str, json: bool) -> LogConfig {
    LogConfig { filter: filter.to_owned(), json, policy_decisions_at_info: false }
}

/// What `body` logs through a pipeline of its own.
pub(in crate::report) fn capture(filter: &str, json: bool, body: impl FnOnce(&Log)) -> String {
    let kept = Kept::default();
    let (subscriber, log) =
        pipeline(&config(filter, json), Clock::system(), Box::new(kept.clone())).unwrap();
    tracing::subscriber::with_default(subscriber, || body(&log));
    assert!(log.flush(AGES), "the writer is stuck");
    kept.text()
}

/// The lines of a plain log without their times, whose shape is checked.
pub(in crate::report) fn untimed(text: &str) -> Vec<String> {
    assert!(text.is_empty() || text.ends_with('\n'));
    let untime = |line: &str| {
        let (time, rest) = line.split_once('\t').expect("a line has a time");
        let shape: String =
            time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert_eq!(shape, "9999-99-99T99:99:99.999999Z");
        rest.to_owned()
    };
    text.lines().map(untime).collect()
}

fn check_plain(expected: &str, body: impl FnOnce()) {
    assert_eq!(untimed(&capture("trace", false, |_| body())), [expected]);
}

/// A JSON line, whose time is replaced; it must be one that a parser takes.
fn check_json(expected: &str, body: impl FnOnce()) {
    let text = capture("trace", true, |_| body());
    assert_eq!(text.lines().count(), 1, "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).expect("a line is JSON");
    let time = value["time"].as_str().unwrap().to_owned();
    assert_eq!(text.trim_end().replace(&time, "T"), expected);
}

#[test]
fn plain_lines_have_tabs_between_their_parts() {
    let addr: std::net::SocketAddr = "[2001:db8::1]:80".parse().unwrap();
    check_plain("info\tx\thello", || info!(target: "x", "hello"));
    check_plain("error\tx\thello\tn=1 ok=true", || error!(target: "x", n = 1, ok = true, "hello"));
    check_plain("warn\tx\t\tn=-1", || warn!(target: "x", n = -1));
    check_plain("debug\treport::log::tests\tm", || debug!("m"));
    check_plain("trace\tx::y\tm 7", || trace!(target: "adit::x::y", "m {}", 7));
    check_plain("info\tx\tm\ta=[2001:db8::1]:80 s=\"t\" f=1.5", || {
        info!(target: "x", a = %addr, s = "t", f = 1.5, "m");
    });
    check_plain("info\tx\tm\tnone.left.out=1", || {
        info!(target: "x", gone = None::<&str>, none.left.out = 1, "m");
    });
    check_plain("info\tx:outer{id=7}:inner\tm\tk=1", || {
        let _outer = info_span!(target: "x", "outer", id = 7).entered();
        let _inner = info_span!(target: "x", "inner").entered();
        info!(target: "x", k = 1, "m");
    });
}

#[test]
fn plain_lines_cannot_be_forged() {
    let hostile = "a\"b\\c\nd\te\r\u{1b}[2J\u{85}\u{202e}ü";
    let escaped = r#""a\"b\\c\nd\te\r\u{1b}[2J\u{85}\u{202e}ü""#;
    check_plain(&format!("info\tx\tm\ts={escaped}"), || info!(target: "x", s = hostile, "m"));
    check_plain(&format!("info\tx\tm\ts={escaped}"), || info!(target: "x", s = %hostile, "m"));
    // Nothing but visible ASCII.
    for (text, escaped) in [(r#"a"b"#, r#""a\"b""#), (r"a \b", r#""a \\b""#)] {
        check_plain(&format!("info\tx\tm\ts={escaped}"), || info!(target: "x", s = text, "m"));
        check_plain(&format!("info\tx\tm\ts={escaped}"), || info!(target: "x", s = %text, "m"));
    }
    check_plain("info\tx\tone\\ntwo\\t\\u{1b}", || {
        info!(target: "x", "{}", "one\ntwo\t\u{1b}");
    });
    check_plain(
        "info\tx\tm\ts=\"a k=v\" e=\"\"",
        || info!(target: "x", s = %"a k=v", e = %"", "m"),
    );
}

#[test]
fn json_lines_are_objects_with_the_message_before_the_fields() {
    let head = r#"{"level":"info","time":"T","scope":"x""#;
    check_json(&format!(r#"{head},"message":"m"}}"#), || info!(target: "x", "m"));
    check_json(&format!(r#"{head},"message":"m","c":true,"a.b":1,"d":"e"}}"#), || {
        info!(target: "x", c = true, a.b = 1, d = "e", "m");
    });
    check_json(&format!(r#"{head},"n":-1.5,"i":"inf"}}"#), || {
        info!(target: "x", n = -1.5, i = f64::INFINITY);
    });
    check_json(&format!(r#"{head},"message":"a\"b\\\n\t\r\u001b\u0085\u2028ü"}}"#), || {
        info!(target: "x", "{}", "a\"b\\\n\t\r\u{1b}\u{85}\u{2028}ü");
    });
    check_json(&format!(r#"{head},"s":"a\"b\\\n\u0000","t":"\u202e"}}"#), || {
        info!(target: "x", s = "a\"b\\\n\0", t = %"\u{202e}");
    });
    check_json(&format!(r#"{head},"message":"m","outer":{{"id":7}}}}"#), || {
        let _outer = info_span!(target: "x", "outer", id = 7).entered();
        info!(target: "x", "m");
    });
    check_json(r#"{"level":"warn","time":"T","scope":"adit::report::log::tests","a":1}"#, || {
        warn!(a = 1);
    });
}

#[test]
fn a_value_has_a_longest_length() {
    let long = "ü".repeat(10_000);
    for json in [false, true] {
        let text = capture("info", json, |_| info!(a = %long, b = long.as_str(), "{long}"));
        assert!(text.len() < 3 * 2_048 + 256, "{} bytes", text.len());
        assert_eq!(text.matches('…').count(), 3);
    }
}

#[test]
fn the_filter_can_be_appended_to_and_reset() {
    let text = capture("warn,quiet=off", false, |log| {
        let events = |mark: &str| {
            info!(target: "loud", "{mark}");
            debug!(target: "quiet", "{mark}");
        };
        let change = |reset, clauses| log.change(reset, clauses).map(|now| now.to_string());
        events("at start");
        assert_eq!(change(false, "quiet:debug").unwrap(), "warn,quiet=debug");
        events("appended");
        assert!(change(true, "loud=shout").is_err());
        assert_eq!(log.directives().to_string(), "warn,quiet=debug");
        events("unchanged by an error");
        assert_eq!(change(true, "info").unwrap(), "info,quiet=off");
        events("reset and appended");
        assert_eq!(change(true, " ").unwrap(), "warn,quiet=off");
        events("reset");
    });
    let expected = [
        "debug\tquiet\tappended",
        "debug\tquiet\tunchanged by an error",
        "info\tloud\treset and appended",
    ];
    assert_eq!(untimed(&text), expected);
    assert!(matches!(
        pipeline(&config("loudly", false), Clock::system(), Box::new(io::sink())),
        Err(LogError::Filter(_))
    ));
}

#[test]
fn a_blocked_pipe_tells_what_it_cost() {
    let (mut reader, writer) = io::pipe().unwrap();
    let queue = Queue::start(Box::new(writer), Style::Plain, Clock::system()).unwrap();
    let pushed = 15_000;
    for i in 0..pushed {
        queue.push(&format!("{i:099}\n"));
    }
    let lost = queue.dropped();
    assert!(lost > 0 && !queue.flush(Duration::from_millis(1)));
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    assert!(queue.flush(AGES));
    queue.push("the last\n");
    assert!(queue.flush(AGES));
    assert_eq!(queue.dropped(), lost);
    drop(queue);
    let text = read.join().unwrap().unwrap();
    // One or more, as the writer found room before all was lost.
    let notice = "\twarn\treport::log::writer\tlog lines were dropped\tlines=";
    let told: Vec<u64> =
        text.lines().filter_map(|l| l.split_once(notice)?.1.parse().ok()).collect();
    assert_eq!(told.iter().sum::<u64>(), lost);
    assert_eq!(text.lines().count() as u64, pushed - lost + 1 + told.len() as u64);
    assert!(text.ends_with("\nthe last\n"));
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let queue = Queue::start(Box::new(full), Style::Plain, Clock::system()).unwrap();
    for _ in 0..1_000 {
        queue.push("a line\n");
    }
    assert!(queue.flush(AGES));
    assert_eq!(queue.dropped(), 1_000);
}

#[test]
fn the_bytes_in_the_queue_are_bounded_too() {
    let (reader, writer) = io::pipe().unwrap();
    let queue = Queue::start(Box::new(writer), Style::Plain, Clock::system()).unwrap();
    let line = "x".repeat(1024 * 1024);
    for _ in 0..20 {
        queue.push(&line);
    }
    assert!(queue.dropped() >= 3, "{}", queue.dropped());
    drop(reader);
}

/// Takes half of the first batch, then fails, then would block once, then works.
#[derive(Clone, Default)]
struct Moody {
    kept: Kept,
    calls: Arc<AtomicUsize>,
}

impl Write for Moody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.calls.fetch_add(1, Ordering::Relaxed) {
            0 => self.kept.write(&bytes[..3]),
            1 => Err(io::ErrorKind::StorageFull.into()),
            2 => Err(io::ErrorKind::WouldBlock.into()),
            3 => Err(io::ErrorKind::Interrupted.into()),
            _ => self.kept.write(&bytes[..bytes.len().div_ceil(2)]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_that_was_cut_short_does_not_swallow_the_next() {
    let moody = Moody::default();
    let queue = Queue::start(Box::new(moody.clone()), Style::Plain, Clock::system()).unwrap();
    queue.push("cut short\n");
    assert!(queue.flush(AGES));
    assert_eq!(queue.dropped(), 1);
    queue.push("whole\n");
    assert!(queue.flush(AGES));
    let text = moody.kept.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines[0], lines[2], lines.len()), ("cut", "whole", 3));
    assert!(lines[1].ends_with("\tlog lines were dropped\tlines=1"));
    assert_eq!(queue.dropped(), 1);
}
