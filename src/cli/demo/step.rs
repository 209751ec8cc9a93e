//! What each step of the demo shows.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::time::Duration;

use super::super::lab::capture::{Capture, Captured, Stream};
use super::super::lab::{HBONE_PORT, ask, measure_upload};
use super::mesh::identity;
use super::mesh::{API_PORT, CLIENT_NODE, CLIENTS_POLICY, HEALTH_PORT, Mesh, Rules, SERVER_NODE};
use super::talk::{allow_policies, describe, explain, field, read_line, say, try_line, yes};
use crate::sys::clock::Clock;

/// For anything that should happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Tried again after this, until [`PATIENCE`] is over.
const GLANCE: Duration = Duration::from_millis(10);
/// What the client says: found on the wire if it is in the clear anywhere.
const SECRET: &str = "card 4929-1203-7785-0016, cvv 412, exp 11/29\n";
/// Below this share of no proxy at all the demo fails.
const RATIO_MIN: f64 = 0.1;
/// One measurement takes about so long, after a first one to learn how fast it goes.
const MEASURED_SECONDS: f64 = 0.7;
const LEARNING_BYTES: u64 = 16 << 20;
const MEASURED_BYTES_MAX: f64 = 4e9;
/// Measurements of each kind; the best one counts, as it was disturbed least.
const ROUNDS: usize = 3;

/// The outcome of one step.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Step {
    /// What it is about, in a few words.
    pub(super) title: &'static str,
    /// What should be seen.
    pub(super) expected: String,
    /// What was seen.
    pub(super) seen: Vec<String>,
    /// Whether that is what should be seen.
    pub(super) ok: bool,
    /// How long it took.
    pub(super) milliseconds: u128,
    /// What was measured; names end in their units.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) figures: BTreeMap<&'static str, f64>,
}

/// A step: its title, and how it comes about.
pub(super) type Plan = (&'static str, fn(&mut Stage<'_>) -> io::Result<Finding>);

/// What a step found: what was expected, what was seen, whether that agrees.
#[derive(Debug)]
pub(super) struct Finding {
    expected: String,
    seen: Vec<String>,
    ok: bool,
    figures: BTreeMap<&'static str, f64>,
}

/// What steps work with and hand on to each other.
pub(super) struct Stage<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) clock: Clock,
    captured: Option<Captured>,
    rules: Rules,
}

/// All steps, in order.
pub(super) const STEPS: &[Plan] = &[
    ("An allowed client reaches the server", allowed),
    ("The wire between the nodes carries TLS only", wire),
    ("An intruder is denied by its identity", intruder),
    ("STRICT refuses plaintext", strict),
    ("PERMISSIVE lets plaintext through", permissive),
    ("A policy edit cuts a live connection", live_edit),
    ("Throughput against no proxy", throughput),
];

impl<'a> Stage<'a> {
    pub(super) fn new(mesh: &'a Mesh) -> Self {
        Self { mesh, clock: Clock::system(), captured: None, rules: Rules::at_start() }
    }

    /// Runs one step. An error is something that was not expected, too.
    pub(super) fn run(&mut self, (title, work): &Plan) -> Step {
        let begin = self.clock.monotonic();
        let finding = work(self).unwrap_or_else(|error| Finding {
            expected: "the step to run".into(),
            seen: vec![explain(&error)],
            ok: false,
            figures: BTreeMap::new(),
        });
        let took = self.clock.monotonic().duration_since(begin);
        let Finding { expected, seen, ok, figures } = finding;
        Step { title, expected, seen, ok, milliseconds: took.as_millis(), figures }
    }

    /// The line with which the server's proxy says how the next connection ended.
    fn server_line(&self, skip: usize, source: &str) -> io::Result<String> {
        let ended = |line: &str| {
            line.contains("\tconnection complete\t")
                && line.contains("direction=\"inbound\"")
                && line.contains(source)
        };
        self.mesh.proxy(SERVER_NODE)?.wait_log(skip, PATIENCE, ended).map_err(|error| {
            io::Error::new(error.kind(), format!("the server's proxy logged no line with {source}"))
        })
    }

    fn server_log_len(&self) -> io::Result<usize> {
        Ok(self.mesh.proxy(SERVER_NODE)?.log()?.len())
    }

    /// Edits the rules, as a person would.
    fn edit(&mut self, change: impl FnOnce(&mut Rules)) -> io::Result<()> {
        change(&mut self.rules);
        self.mesh.apply(&self.rules)
    }
}

/// 1: over the service's address, tunnelled, the source address kept.
fn allowed(stage: &mut Stage<'_>) -> io::Result<Finding> {
    let mesh = stage.mesh;
    let (client, skip) = (mesh.pod("frontend")?, stage.server_log_len()?);
    let node = mesh.lab.node(CLIENT_NODE).ok_or(ErrorKind::NotFound)?;
    let capture = Capture::start(mesh.lab.link_between_nodes(), &node.port)?;
    let mut stream = client.connect(mesh.service(), PATIENCE)?;
    let peer = read_line(&mut stream)?;
    let back = ask(&mut stream, SECRET, PATIENCE)?;
    drop(stream);
    let line = stage.server_line(skip, &identity("frontend"))?;
    stage.captured = Some(capture.finish()?);
    let kept = peer.starts_with(&format!("{}:", client.ipv4));
    let claimed = field(&line, "src.identity").unwrap_or_default();
    Ok(Finding {
        expected: format!(
            "{} is served, and the server side knows it is that",
            identity("frontend")
        ),
        seen: vec![
            format!("asked {} and got its answer back whole", mesh.service()),
            format!("the server's proxy verified {claimed}"),
            format!("the application saw the client's own address, {peer}"),
        ],
        ok: back == SECRET && kept && claimed == identity("frontend"),
        figures: BTreeMap::new(),
    })
}

/// 2: what went over the wire in step 1.
fn wire(stage: &mut Stage<'_>) -> io::Result<Finding> {
    let captured = stage.captured.take().ok_or_else(|| io::Error::other("nothing captured"))?;
    // What the control plane says has been going on for longer than the capture.
    let of_control = |stream: &Stream| {
        [stream.from, stream.to].into_iter().any(|end| stage.mesh.is_control(end))
    };
    let streams: Vec<Stream> = captured
        .streams()
        .into_iter()
        .filter(|stream| !stream.bytes.is_empty() && !of_control(stream))
        .collect();
    let tunnel =
        |stream: &&Stream| [stream.from, stream.to].iter().any(|end| end.port() == HBONE_PORT);
    let (tunnels, others): (Vec<&Stream>, Vec<&Stream>) = streams.iter().partition(tunnel);
    let records: Vec<_> = tunnels.iter().filter_map(|stream| stream.records()).collect();
    let encrypted: usize = records.iter().map(|records| records.encrypted).sum();
    let tls = !tunnels.is_empty()
        && records.len() == tunnels.len()
        && encrypted > 0
        && captured.lost == 0
        && tunnels.iter().all(|stream| stream.whole);
    let found = captured.contains(SECRET.as_bytes());
    let control = control(stage)?;
    Ok(Finding {
        expected: "every stream is TLS, and the payload is nowhere in it".into(),
        seen: vec![
            format!(
                "captured {} frames, {} bytes; {} streams on port {HBONE_PORT}, {} on others",
                captured.frames,
                captured.payload_bytes(),
                tunnels.len(),
                others.len()
            ),
            format!(
                "all of them parse as TLS records from their first byte: {}; {encrypted} encrypted",
                yes(tls)
            ),
            format!("the payload is {} in them", if found { "FOUND" } else { "not found" }),
            format!(
                "the same search over plaintext of a pod outside the mesh: {}",
                if control { "found, as it should be" } else { "NOT FOUND: the search is blind" }
            ),
        ],
        ok: tls && others.is_empty() && !found && control,
        figures: BTreeMap::new(),
    })
}

/// Whether the payload is found when it is there to be found.
fn control(stage: &Stage<'_>) -> io::Result<bool> {
    let mesh = stage.mesh;
    let node = mesh.lab.node(CLIENT_NODE).ok_or(ErrorKind::NotFound)?;
    let capture = Capture::start(mesh.lab.link_between_nodes(), &node.port)?;
    let to = SocketAddr::new(mesh.pod("plain")?.ipv4.into(), API_PORT);
    let mut stream = mesh.pod("legacy")?.connect(to, PATIENCE)?;
    ask(&mut stream, SECRET, PATIENCE)?;
    Ok(capture.finish()?.contains(SECRET.as_bytes()))
}

/// 3: same node, same subnet, same port; another service account.
fn intruder(stage: &mut Stage<'_>) -> io::Result<Finding> {
    let mesh = stage.mesh;
    let skip = stage.server_log_len()?;
    let (friend, intruder) = (mesh.pod("frontend")?, mesh.pod("intruder")?);
    let answer = try_line(intruder.connect(mesh.service(), PATIENCE));
    let line = stage.server_line(skip, &identity("intruder"))?;
    let reason = field(&line, "error").unwrap_or_default();
    let policies = allow_policies(mesh)?;
    let by_policy = reason.contains("none allowed") || reason.contains(CLIENTS_POLICY);
    Ok(Finding {
        expected: format!("refused by the ALLOW policy {CLIENTS_POLICY}, not by its address"),
        seen: vec![
            format!("the server's proxy verified its certificate: {}", identity("intruder")),
            format!("it got no byte of the server: {}", describe(&answer)),
            format!("the server's proxy: {reason}"),
            format!("the ALLOW policies in force there: {}", policies.join(", ")),
            format!(
                "same node, subnet and port as the allowed client ({} and {}): identity decides",
                intruder.ipv4, friend.ipv4
            ),
        ],
        ok: answer.is_err()
            && by_policy
            && policies.len() == 1
            && policies.iter().all(|name| name.ends_with(&format!("/{CLIENTS_POLICY}"))),
        figures: BTreeMap::new(),
    })
}

/// 4: a pod outside the mesh, on a port that anybody may ask.
fn strict(stage: &mut Stage<'_>) -> io::Result<Finding> {
    let mesh = stage.mesh;
    let (skip, legacy) = (stage.server_log_len()?, mesh.pod("legacy")?);
    let answer = say(legacy.connect(mesh.health()?, PATIENCE));
    let line = stage.server_line(skip, &format!("src.addr={}:", legacy.ipv4))?;
    let reason = field(&line, "error").unwrap_or_default();
    Ok(Finding {
        expected: "plaintext is refused, though the port is open to every client".into(),
        seen: vec![
            format!(
                "legacy (no proxy, no certificate) asked port {HEALTH_PORT} and got no byte: {}",
                describe(&answer)
            ),
            format!("the server's proxy: {reason}"),
        ],
        ok: answer.is_err() && reason.contains("strict"),
        figures: BTreeMap::new(),
    })
}

/// 5: the same after an edit.
fn permissive(stage: &mut Stage<'_>) -> io::Result<Finding> {
    stage.edit(|rules| rules.strict = false)?;
    let begin = stage.clock.monotonic();
    let legacy = stage.mesh.pod("legacy")?;
    let (mut answer, mut took);
    // Until the proxy has read the edited file it goes on refusing.
    loop {
        answer = say(legacy.connect(stage.mesh.health()?, PATIENCE));
        took = stage.clock.monotonic().duration_since(begin);
        if answer.is_ok() || took > PATIENCE {
            break;
        }
        std::thread::sleep(GLANCE);
    }
    let api = SocketAddr::new(stage.mesh.pod("payments")?.ipv4.into(), API_PORT);
    let protected = try_line(legacy.connect(api, PATIENCE));
    Ok(Finding {
        expected: "plaintext is let through where no identity is asked for".into(),
        seen: vec![
            format!(
                "legacy asked port {HEALTH_PORT} again: {}, {} ms after the edit",
                describe(&answer),
                took.as_millis()
            ),
            format!("port {API_PORT} still wants an identity: {}", describe(&protected)),
        ],
        ok: answer.is_ok() && protected.is_err(),
        figures: BTreeMap::new(),
    })
}

/// 6: one client loses its permission while it is connected, the other does not.
fn live_edit(stage: &mut Stage<'_>) -> io::Result<Finding> {
    let mesh = stage.mesh;
    let (service, skip) = (mesh.service(), stage.server_log_len()?);
    let mut batch = mesh.pod("batch")?.connect(service, PATIENCE)?;
    let mut frontend = mesh.pod("frontend")?.connect(service, PATIENCE)?;
    for stream in [&mut batch, &mut frontend] {
        read_line(stream)?;
        ask(stream, "still there?\n", PATIENCE)?;
    }
    stage.edit(|rules| rules.clients.retain(|client| *client != "batch"))?;
    let begin = stage.clock.monotonic();
    batch.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0; 1];
    let end = batch.read(&mut byte);
    let took = stage.clock.monotonic().duration_since(begin);
    let cut = match &end {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    };
    let line = stage.server_line(skip, &identity("batch"))?;
    let reason = field(&line, "error").unwrap_or_default();
    let other = ask(&mut frontend, "and you?\n", PATIENCE);
    let again = try_line(mesh.pod("batch")?.connect(service, PATIENCE));
    Ok(Finding {
        expected: "the connection that is no longer allowed ends, the other goes on".into(),
        seen: vec![
            format!(
                "batch lost its permission and its live connection: {}, {:.1} ms after the edit",
                if cut { "cut" } else { "NOT cut" },
                took.as_secs_f64() * 1e3
            ),
            format!("the server's proxy: {reason}"),
            format!("frontend's live connection goes on: {}", yes(other.is_ok())),
            format!("batch cannot come back: {}", yes(again.is_err())),
        ],
        ok: cut && other.is_ok() && again.is_err() && !reason.is_empty(),
        figures: BTreeMap::from([("cut_after_ms", took.as_secs_f64() * 1e3)]),
    })
}

/// 7: one flow, one direction, both proxies against none.
fn throughput(stage: &mut Stage<'_>) -> io::Result<Finding> {
    let mesh = stage.mesh;
    let skip = stage.server_log_len()?;
    let mut best = [0.0_f64; 2];
    for _ in 0..ROUNDS {
        for (best, (from, to)) in
            best.iter_mut().zip([("legacy", "plain"), ("frontend", "payments")])
        {
            let (pod, to) = (mesh.pod(from)?, mesh.bulk(to)?);
            let guess = match *best {
                0.0 => measure_upload(pod, to, LEARNING_BYTES, &stage.clock)?,
                known => known,
            };
            let bytes = (guess * MEASURED_SECONDS).clamp(1e6, MEASURED_BYTES_MAX);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 MB and 4 GB"
            )]
            let rate = measure_upload(pod, to, bytes as u64, &stage.clock)?;
            *best = best.max(rate);
        }
    }
    // Only what went through a tunnel counts.
    stage.server_line(skip, &identity("frontend"))?;
    let [plain, meshed] = best;
    let ratio = meshed / plain.max(1.0);
    let gigabits = |rate: f64| rate * 8.0 / 1e9;
    Ok(Finding {
        expected: format!(
            "at least {:.0} % of what the same wire does without proxies",
            RATIO_MIN * 100.0
        ),
        seen: vec![
            format!("no proxy, no encryption:       {:6.2} Gbit/s", gigabits(plain)),
            format!("two proxies, mutual TLS:       {:6.2} Gbit/s", gigabits(meshed)),
            format!(
                "one flow, both proxies and both applications on this machine: {:.0} %",
                ratio * 100.0
            ),
        ],
        ok: ratio >= RATIO_MIN,
        figures: BTreeMap::from([
            ("no_proxy_gbit_per_s", gigabits(plain)),
            ("two_proxies_gbit_per_s", gigabits(meshed)),
            ("ratio", ratio),
        ]),
    })
}
