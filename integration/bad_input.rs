//! A broken configuration file and a broken agent: what runs goes on.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsFd;

use adit::cli::lab::{App, Service};

use crate::world::raw_agent::{add, del, field, keep, snapshot_sent};
use crate::world::{
    Context, Outcome, PATIENCE, PORT, World, connect, echo, echo_and_end, ensure, refused,
};

pub(crate) const TESTS: crate::Tests = &[
    ("a_broken_file_leaves_the_last_good_one", broken_file),
    ("a_broken_agent_disturbs_nobody", broken_agent),
];

const ALLOW_WEB: &str = "- {name: only-web, namespace: shop, scope: Namespace, action: Allow, \
    dryRun: false, rules: [[[{principals: [{Exact: cluster.local/ns/front/sa/web}]}]]]}\n";
const FILE_ERRORS: &str = "adit_config_file_errors_total";
const AGENT_ERRORS: &str = "adit_agent_errors_total";

fn live(world: &World) -> Outcome<TcpStream> {
    let mut stream = connect(world.pod("web"), world.server(false))?;
    echo(&mut stream, "alive\n")?;
    Ok(stream)
}

/// Waits for one more of something.
fn one_more(world: &World, counter: &str, before: f64) -> Outcome {
    world.wait_metric("b", counter, |now| now > before)?;
    let after = world.metric("b", counter)?;
    ensure!((after - before - 1.0).abs() < f64::EPSILON, "{counter}: {before}, then {after}");
    Ok(())
}

fn broken_file() -> Outcome {
    let mut world = World::of_file()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let mut stream = live(&world)?;
    for (at, what) in ["garbage", "unknown field", "cut off", "not text", "bad policy", "empty"]
        .into_iter()
        .enumerate()
    {
        // A good one that forbids the intruder; then a broken one.
        let mark = format!("{ALLOW_WEB}# {at}\n");
        world.set_file(&mark, &[])?;
        let good = world.config_text().to_owned();
        let broken = match what {
            "garbage" => b"\t}{:- what".to_vec(),
            "unknown field" => format!("{good}surprise: true\n").into_bytes(),
            "cut off" => good.as_bytes()[..good.rfind('}').unwrap_or(0)].to_vec(),
            "not text" => vec![0xff; 100],
            "bad policy" => good.replace("Allow", "Allways").into_bytes(),
            _ => Vec::new(),
        };
        let before = world.metric("b", FILE_ERRORS)?;
        let skip = world.proxy("b").log().during("reading a log")?.len();
        world.overwrite_config(&broken)?;
        let logged = |line: &str| {
            line.contains("\terror\t")
                && line.contains("the configuration cannot be used")
                && line.contains("mesh.yaml")
                && line.contains("the last good one")
        };
        world.proxy("b").wait_log(skip, PATIENCE, logged).during(what)?;
        one_more(&world, FILE_ERRORS, before).during(what)?;
        refused(world.pod("intruder"), world.server(false)).during(what)?;
        echo(&mut stream, "goes on\n").during(what)?;
        echo_and_end(connect(world.pod("web"), world.server(false))?, "new\n").during(what)?;
        // Mended, without a restart: the intruder is let in.
        world.set_file("", &[])?;
        echo_and_end(connect(world.pod("intruder"), world.server(false))?, "mended\n")?;
    }
    Ok(())
}

/// One message that is wrong.
struct Case<'a> {
    what: &'a str,
    message: Vec<u8>,
    descriptors: usize,
    /// The descriptors are namespaces.
    namespaces: bool,
    /// Sent before the snapshot is complete.
    early: bool,
    answer: &'a str,
    ends: bool,
}

impl<'a> Case<'a> {
    fn new(what: &'a str, message: Vec<u8>, answer: &'a str) -> Self {
        let (descriptors, namespaces, early, ends) = (0, true, false, true);
        Self { what, message, descriptors, namespaces, early, answer, ends }
    }

    fn with(mut self, descriptors: usize) -> Self {
        self.descriptors = descriptors;
        self
    }
}

fn cases() -> Vec<Case<'static>> {
    let guest = || add("11111111-2222", "guest", "shop", "guest");
    let longest = "x".repeat(2000);
    let none = "without its namespace";
    vec![
        Case::new("undecodable", b"\xff\xff".to_vec(), "not a message of this protocol"),
        Case::new("cut off", guest()[..9].to_vec(), "not a message of this protocol"),
        Case::new("no payload", field(4, b""), "without a known payload"),
        Case::new("no descriptor", guest(), none),
        Case { early: true, ..Case::new("no descriptor, early", guest(), none) },
        Case::new("no info", field(1, &field(1, b"u1")), "without workload info").with(1),
        Case { namespaces: false, ends: false, ..Case::new("a file", guest(), "unusable").with(1) },
        Case::new("two descriptors", guest(), "2 descriptors").with(2),
        Case::new("seven descriptors", guest(), "7 descriptors").with(7),
        Case::new("del with one", del("11111111-2222"), "takes none").with(1),
        Case::new("snapshot with one", snapshot_sent(), "takes none").with(1),
        Case::new("too long", add("u1", &longest, "shop", "x"), "longer than 1024").with(1),
        Case::new("second snapshot", snapshot_sent(), "complete already"),
        Case::new("late keep", keep("11111111-2222"), "only before the snapshot"),
    ]
}

fn broken_agent() -> Outcome {
    let mut world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let mut stream = live(&world)?;
    let agent = world.foreign_agent("b")?;
    let plain = File::open(world.dir().join("manifests.yaml")).during("opening a file")?;
    for case in cases() {
        let what = case.what;
        let session = agent.accept().during(what)?;
        session.order(&keep(&world.pod("cart").uid), &[])?;
        if !case.early {
            session.order(&snapshot_sent(), &[])?;
        }
        let before = world.metric("b", AGENT_ERRORS)?;
        let skip = world.proxy("b").log().during("reading a log")?.len();
        let one = match case.namespaces {
            true => world.pod("legacy").netns.fd().as_fd(),
            false => plain.as_fd(),
        };
        let answer = session.tell(&case.message, &vec![one; case.descriptors]).during(what)?;
        let text = answer.err().ok_or_else(|| format!("{what}: accepted"))?;
        ensure!(text.contains(case.answer), "{what}: the answer is {text:?}");
        let logged = |line: &str| line.contains("\terror\t") && line.contains(case.answer);
        world.proxy("b").wait_log(skip, PATIENCE, logged).during(what)?;
        one_more(&world, AGENT_ERRORS, before).during(what)?;
        if case.ends {
            session.ended().during(what)?;
        } else {
            session.order(&del("11111111-2222"), &[]).during("the session goes on")?;
        }
        echo(&mut stream, "goes on\n").during(what)?;
        echo_and_end(connect(world.pod("web"), world.server(false))?, "new\n").during(what)?;
    }
    let session = agent.accept()?;
    session.order(&keep(&world.pod("cart").uid), &[])?;
    session.order(&snapshot_sent(), &[])?;
    world.wait_ready()?;
    echo(&mut stream, "to the end\n")
}
