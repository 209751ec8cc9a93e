//! How long a connection takes through two real proxies that know a large mesh, while a thousand
//! updates a second come and while none do, in turn.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use adit::cli::lab::{Agent, Lab, Pod, PodPlan, Proxy, ProxyPlan, Redirection};
use adit::sys::clock::Clock;

use crate::Failure;
use crate::large_mesh::{Mesh, SWITCH_PORT};

/// Second octet of the pods' addresses: none of the large mesh has it.
const LAB_NUMBER: u8 = 78;
/// Where the application answers, and the control plane of each node is.
const PORT: u16 = 9001;
const CONTROL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15_010);
/// Windows without updates and with, in turn.
const PAIRS: usize = 21;
const WINDOW: Duration = Duration::from_secs(2);
/// Between two connections begins: 250 a second.
const PACE: Duration = Duration::from_millis(4);
const PATIENCE: Duration = Duration::from_secs(60);

/// The 50th and 99th of a hundred.
type Delays = (Duration, Duration);

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // In a folder for temporary files it may also stay.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn measure() -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("adit-connects-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let folder = Folder(folder);
    let mut lab = Lab::create(LAB_NUMBER, Some(false))?;
    let mut pods = Vec::new();
    for (node, name) in [("a", "client"), ("b", "server")] {
        lab.add_node(node)?;
        pods.push(lab.add_pod(PodPlan {
            node: node.into(),
            name: name.into(),
            namespace: "bench".into(),
            service_account: name.into(),
            redirection: Redirection::Ambient,
        })?);
    }
    let (client, server) = (&pods[0], &pods[1]);
    let application = server.netns.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    thread::spawn(move || answer(&application));
    let mut running = Vec::new();
    for (node, pod) in [("a", client), ("b", server)] {
        running.push(start(&lab, node, pod, &pods, &folder.0)?);
    }
    for (_, proxy, _) in &mut running {
        proxy.wait_ready(PATIENCE)?;
    }
    let to = SocketAddr::new(server.ipv4.into(), PORT);
    let clock = Clock::system();
    window(&clock, client, to)?;
    let nodes = ["a", "b"].map(|name| lab.node(name).map(|node| node.netns.clone()));
    let nodes: Vec<_> = nodes.into_iter().flatten().collect();
    let mut pairs: Vec<(Delays, Delays)> = Vec::new();
    for _ in 0..PAIRS {
        let quiet = window(&clock, client, to)?;
        let switches = nodes
            .iter()
            .map(|netns| netns.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, SWITCH_PORT))))
            .collect::<io::Result<Vec<_>>>()?;
        let busy = window(&clock, client, to)?;
        drop(switches);
        pairs.push((quiet, busy));
    }
    print(&pairs);
    for (name, (_, proxy, _)) in ["a", "b"].iter().zip(&running) {
        let metrics = proxy.metrics()?;
        let version = metrics.lines().find(|line| line.starts_with("adit_snapshot_generation"));
        println!("  node {name}: {}", version.unwrap_or("no generation"));
    }
    Ok(())
}

/// The control plane and the proxy of a node.
fn start(
    lab: &Lab,
    node: &str,
    pod: &Pod,
    pods: &[Pod],
    folder: &Path,
) -> Result<(Proxy, Proxy, Agent), Failure> {
    let netns = lab.node(node).ok_or("no such node")?.netns.clone();
    let mut arguments = vec!["--serve".to_owned(), CONTROL.to_string()];
    arguments.extend(pods.iter().map(|pod| Mesh::describe(&pod.plan, pod.ipv4)));
    let control = Proxy::start(ProxyPlan {
        program: std::env::current_exe()?,
        netns: netns.clone(),
        arguments,
        environment: Vec::new(),
        log: folder.join(format!("control-{node}.log")),
    })?;
    control.wait_log(0, PATIENCE, |line| line.starts_with("http://"))?;
    let agent = Agent::start(&folder.join(format!("{node}.sock")))?;
    agent.enroll(pod);
    let (program, config) = (Path::new(env!("CARGO_BIN_EXE_adit")), Path::new(""));
    let plan = ProxyPlan::from_files(program, (node, &netns), agent.path(), config, folder)
        .with("XDS_ADDRESS", &format!("http://{CONTROL}"))
        .with("XDS_SNAPSHOT_PATH", "");
    Ok((control, Proxy::start(plan)?, agent))
}

/// Answers one byte with one byte, one connection after another.
fn answer(application: &TcpListener) {
    for mut stream in application.incoming().flatten() {
        let mut byte = [0];
        // A client that goes away is the next one's chance.
        let _ = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
    }
}

/// Connections at a steady pace: how long each took from its due time to its answer.
fn window(clock: &Clock, client: &Pod, to: SocketAddr) -> io::Result<Delays> {
    let begin = clock.monotonic();
    let count = u32::try_from(WINDOW.as_millis() / PACE.as_millis()).unwrap_or(1);
    let mut delays = client.netns.run(|| {
        let mut delays = Vec::new();
        for number in 0..count {
            let due = begin + PACE * number;
            thread::sleep(due.saturating_duration_since(clock.monotonic()));
            let mut stream = TcpStream::connect(to)?;
            stream.write_all(b"?")?;
            stream.read_exact(&mut [0])?;
            delays.push(clock.monotonic().duration_since(due));
        }
        Ok(delays)
    })?;
    delays.sort_unstable();
    let at = |part: usize| delays[(delays.len() - 1) * part / 100];
    Ok((at(50), at(99)))
}

fn print(pairs: &[(Delays, Delays)]) {
    let spread = |of: &dyn Fn(&(Delays, Delays)) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        format!(
            "{:.2} (half from {:.2} to {:.2})",
            values[values.len() / 2],
            values[values.len() / 4],
            values[values.len() * 3 / 4]
        )
    };
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "connections through two proxies, {PAIRS} pairs of {WINDOW:?} without and with 1,000 \
         updates/s"
    );
    println!("  p50 without, us: {}", spread(&|((p50, _), _)| micros(*p50)));
    println!("  p50 with, us:    {}", spread(&|(_, (p50, _))| micros(*p50)));
    println!("  p99 without, us: {}", spread(&|((_, p99), _)| micros(*p99)));
    println!("  p99 with, us:    {}", spread(&|(_, (_, p99))| micros(*p99)));
    let ratio = |with: Duration, without: Duration| with.as_secs_f64() / without.as_secs_f64();
    println!("  p50, with/without: {}", spread(&|(a, b)| ratio(b.0, a.0)));
    println!("  p99, with/without: {}; goal 1.25", spread(&|(a, b)| ratio(b.1, a.1)));
}
