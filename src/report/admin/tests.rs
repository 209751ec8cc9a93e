use std::io::Write;
use std::sync::mpsc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::config::LogConfig;
use crate::report::log;
use crate::sys::clock::Clock;

/// A server on ports of its own.
struct World {
    admin: SocketAddr,
    stats: SocketAddr,
    readiness: SocketAddr,
    parts: Readiness,
    quit: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinSet<()>,
    /// The log lives as long as its subscriber.
    _log: DefaultGuard,
}

/// A sink for a log that nobody reads.
fn sink() -> Box<dyn Write + Send> {
    Box::new(io::sink())
}

fn world(dump: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> World {
    let any = "[::]:0".parse().unwrap();
    let config = ServersConfig { admin_port: 0, stats: any, readiness: any };
    let sockets = Sockets::bind(&config).unwrap();
    let loopback = |addr: SocketAddr| SocketAddr::from((Ipv4Addr::LOCALHOST, addr.port()));
    let (stats, readiness) = (sockets.stats_addr().unwrap(), sockets.readiness_addr().unwrap());
    let admin = sockets.admin_addrs()[0];
    let log_config =
        LogConfig { filter: "info".to_owned(), json: false, policy_decisions_at_info: false };
    let (subscriber, log) = log::pipeline(&log_config, Clock::system(), sink()).unwrap();
    let parts = Readiness::new();
    let quit = Arc::new(Notify::new());
    let pages = Pages {
        readiness: parts.clone(),
        metrics: Arc::new(Metrics::new("1.30.0")),
        log,
        dump: Box::new(dump),
        quit: Arc::clone(&quit),
    };
    let (stop, stopped) = oneshot::channel();
    let mut server = JoinSet::new();
    server.spawn(serve(sockets, pages, async { drop(stopped.await) }));
    World {
        admin,
        stats: loopback(stats),
        readiness: loopback(readiness),
        parts,
        quit,
        stop: Some(stop),
        server,
        _log: tracing::subscriber::set_default(subscriber),
    }
}

/// The whole answer to what a client writes, until the server closes.
async fn ask(addr: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    read_all(stream).await
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset ends the answer too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// Status, content type and body of the answer to one request.
async fn fetch(addr: SocketAddr, request: &str, headers: &str) -> (u16, String, String) {
    let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    let answer = ask(addr, &head).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    (status, kind.unwrap_or("-").to_owned(), body.to_owned())
}

async fn check(addr: SocketAddr, request: &str, status: u16, kind: &str, body: &str) {
    let (got_status, got_kind, got_body) = fetch(addr, request, "").await;
    assert_eq!((got_status, got_kind.as_str()), (status, kind), "{request}: {got_body}");
    assert!(got_body == body || body == "*", "{request}: {got_body}");
}

const TEXT: &str = "text/plain; charset=utf-8";

#[tokio::test]
async fn each_server_answers_its_own_paths() {
    let world = world(|| b"{\"a\": 1}\n".to_vec());
    let World { admin, stats, readiness, .. } = world;
    check(admin, "GET /", 200, "text/html; charset=utf-8", "*").await;
    check(admin, "GET /config_dump", 200, "application/json", "{\"a\": 1}\n").await;
    check(admin, "POST /config_dump?x", 200, "application/json", "{\"a\": 1}\n").await;
    check(admin, "GET /debug/pprof/profile", 501, TEXT, "*").await;
    check(admin, "GET /debug/pprof/heap", 501, TEXT, "*").await;
    check(admin, "POST /debug/pprof/heap/profiling?activate=true", 501, TEXT, "*").await;
    check(admin, "GET /metrics", 404, "-", "").await;
    check(admin, "GET /healthz/ready", 404, "-", "").await;
    check(stats, "GET /config_dump", 404, "-", "").await;
    check(stats, "POST /quitquitquit", 404, "-", "").await;
    check(readiness, "GET /", 404, "-", "").await;
    check(readiness, "POST /quitquitquit", 404, "-", "").await;
    check(readiness, "GET /healthz/ready", 200, TEXT, "ready\n").await;
    check(readiness, "POST /healthz/ready", 405, TEXT, "").await;
}

#[tokio::test]
async fn readiness_names_what_is_pending() {
    let world = world(Vec::new);
    let ready = "GET /healthz/ready";
    let proxy = world.parts.task("proxy");
    let state = world.parts.task("state manager");
    let both = "not ready, pending: proxy, state manager\n";
    check(world.readiness, ready, 500, TEXT, both).await;
    proxy.ready();
    check(world.readiness, ready, 500, TEXT, "not ready, pending: state manager\n").await;
    state.ready();
    check(world.readiness, ready, 200, TEXT, "ready\n").await;
}

#[tokio::test]
async fn metrics_are_named_as_the_client_accepts_them() {
    let world = world(Vec::new);
    let full = "application/openmetrics-text;charset=utf-8;version=1.0.0";
    let cases = [
        ("", TEXT),
        ("accept: text/plain\r\n", TEXT),
        ("accept: */*\r\n", TEXT),
        ("accept: application/openmetrics-text\r\n", full),
        ("accept: text/plain;q=0.1, Application/OpenMetrics-Text;version=1.0.0;q=0.8\r\n", full),
        ("accept: a/b\r\naccept: application/openmetrics-text\r\n", full),
        ("accept: application/openmetrics-textual\r\n", TEXT),
    ];
    for (headers, expected) in cases {
        for path in ["/metrics", "/stats/prometheus"] {
            let (status, kind, body) = fetch(world.stats, &format!("GET {path}"), headers).await;
            assert_eq!((status, kind.as_str()), (200, expected), "{headers}");
            assert!(body.contains("\nistio_build{") && body.ends_with("\n# EOF\n"), "{body}");
        }
    }
}

#[tokio::test]
async fn the_log_filter_is_shown_changed_and_reset() {
    let world = world(Vec::new);
    let post = async |query: &str| {
        let (status, _, body) = fetch(world.admin, &format!("POST /logging{query}"), "").await;
        (status, body.lines().next().unwrap_or_default().to_owned())
    };
    let now = |level: &str| (200, format!("current log level is {level}"));
    assert_eq!(post("").await, now("info"));
    assert_eq!(post("?level=access%3Adebug,warn").await, now("warn,access=debug"));
    assert_eq!(post("?level=access=off").await, now("warn,access=off"));
    assert_eq!(post("?level=loud").await.0, 400);
    assert_eq!(post("?level=%FF").await.0, 400);
    assert_eq!(post("?lever=info").await.0, 400);
    assert_eq!(post("").await, now("warn,access=off"));
    assert_eq!(post("?level=debug&reset").await, now("debug"));
    assert_eq!(post("?reset=&level=").await, now("info"));
    let (status, _, body) = fetch(world.admin, "GET /logging", "").await;
    assert!(status == 405 && body.contains("POST /logging?level="), "{status} {body}");
    let (_, _, body) = fetch(world.admin, "POST /logging?level=loud", "").await;
    assert!(body.contains("\"loud\"") && body.contains("POST /logging?level="), "{body}");
}

#[tokio::test]
async fn quitting_takes_a_post() {
    let world = world(Vec::new);
    check(world.admin, "GET /quitquitquit", 405, TEXT, "*").await;
    let quit = world.quit.notified();
    tokio::pin!(quit);
    assert!(futures_util::poll!(quit.as_mut()).is_pending());
    check(world.admin, "POST /quitquitquit", 200, TEXT, "shutdown now\n").await;
    quit.await;
}

#[tokio::test]
async fn a_panic_in_the_dump_is_an_answer() {
    let world = world(|| std::panic::resume_unwind(Box::new("a test")));
    check(world.admin, "GET /config_dump", 500, TEXT, "*").await;
    check(world.admin, "GET /", 200, "text/html; charset=utf-8", "*").await;
}

#[tokio::test]
async fn heads_are_bounded_in_size() {
    let world = world(Vec::new);
    let large = "x".repeat(9_000);
    let (status, ..) = fetch(world.readiness, "GET /", &format!("y: {large}\r\n")).await;
    assert_eq!(status, 431);
}

#[tokio::test(start_paused = true)]
async fn heads_are_bounded_in_time() {
    let world = world(Vec::new);
    let clock = Clock::system();
    for half in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let before = clock.monotonic();
        let answer = ask(world.readiness, half).await;
        let waited = clock.monotonic() - before;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        let limits = Duration::from_millis(1_990)..Duration::from_millis(2_100);
        assert!(limits.contains(&waited), "{half:?} was open for {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_bounded_in_age() {
    let world = world(Vec::new);
    let clock = Clock::system();
    let born = clock.monotonic();
    let mut stream = TcpStream::connect(world.readiness).await.unwrap();
    let mut answers = 0;
    loop {
        let _ = stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = [0; 512];
        match stream.read(&mut answer).await {
            Ok(length) if length > 0 => answers += 1,
            _ => break,
        }
        assert!(answers < 1_000, "the connection stays open");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let age = (clock.monotonic() - born).as_secs();
    assert!(answers > 50 && (58..=62).contains(&age), "{answers} answers in {age} s");
}

#[tokio::test(start_paused = true)]
async fn the_oldest_connection_gives_way() {
    let world = world(Vec::new);
    let mut open = Vec::new();
    for _ in 0..9 {
        let mut stream = TcpStream::connect(world.stats).await.unwrap();
        stream.write_all(b"GET /x HTTP/1.1\r\n").await.unwrap();
        open.push(stream);
    }
    let rest = b"host: x\r\nconnection: close\r\n\r\n";
    let mut answers = Vec::new();
    for mut stream in open.into_iter().rev() {
        let _ = stream.write_all(rest).await;
        answers.push(read_all(stream).await.starts_with("HTTP/1.1 404"));
    }
    assert_eq!(answers, [true, true, true, true, true, true, true, true, false]);
}

#[tokio::test]
async fn on_stop_listeners_close_and_open_requests_finish() {
    let (began, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let mut world = world(move || {
        began.send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
        b"done\n".to_vec()
    });
    let admin = world.admin;
    let mut clients = JoinSet::new();
    clients.spawn(async move { fetch(admin, "GET /config_dump", "").await });
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
    drop(world.stop.take());
    let mut tries = 0;
    while TcpStream::connect(admin).await.is_ok() {
        tries += 1;
        assert!(tries < 1_000, "the listener stays open");
        tokio::task::yield_now().await;
    }
    go_on.send(()).unwrap();
    let (status, _, body) = clients.join_next().await.unwrap().unwrap();
    assert_eq!((status, body.as_str()), (200, "done\n"));
    world.server.join_next().await.unwrap().unwrap();
}
