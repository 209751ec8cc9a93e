//! What is measured, and how often.

use std::io;
use std::thread;
use std::time::Duration;

use crate::delay;
use crate::load;
use crate::proxies::Cpu;
use crate::stalled::{self, Stalled};
use crate::world::{Side, Variant, World, address};

/// Connections open at the first look and at the second.
const IDLE: [usize; 2] = [200, 2_000];
/// Readers that have stopped, and the bytes that are sent to each.
const STALLED: (usize, usize) = (99, 1024 * 1024);
/// Time between requests beside bulk.
const PACE: Duration = Duration::from_millis(1);
/// Short connections of one run: few enough for ports and connection tracking.
const NEW_CONNECTIONS_MAX: u64 = 10_000;

/// How long and how often.
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    pub(crate) duration: Duration,
    /// After which nothing is begun.
    pub(crate) total: Duration,
}

impl Settings {
    pub(crate) const FULL: Self =
        Self { rounds: 5, duration: Duration::from_millis(2_500), total: Duration::from_secs(700) };
    pub(crate) const QUICK: Self =
        Self { rounds: 3, duration: Duration::from_millis(800), total: Duration::from_secs(150) };
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scenario {
    /// Memory of a connection that only waits. First, because load leaves its traces in memory.
    IdleMemory,
    OneFlow,
    EightFlows,
    SameNode,
    /// To be compared with one flow.
    BesideStalled,
    Plaintext,
    /// Its rate in the second half of the run.
    FarPeer,
    /// How long it takes to come to that.
    FarPeerStart,
    KeepAlive,
    KeepAlive32,
    /// What one of a hundred requests beside bulk takes.
    TailBesideBulk,
    NewConnections,
    /// Memory of each of thousands whose readers have stopped. Almost last, because the kernel has
    /// little room for the bytes of others meanwhile, and with some proxies also after it.
    ThousandsMemory,
    /// As [`Self::BesideStalled`], with thousands.
    BesideThousands,
}

/// One run of a scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// In the scenario's unit.
    pub(crate) value: f64,
    /// Of all proxy processes of that side.
    pub(crate) cpu: Cpu,
    /// How many of the scenario's pieces of work were done.
    pub(crate) work: f64,
}

impl Scenario {
    pub(crate) const ALL: &[Self] = &[
        Self::IdleMemory,
        Self::OneFlow,
        Self::EightFlows,
        Self::SameNode,
        Self::BesideStalled,
        Self::Plaintext,
        Self::FarPeer,
        Self::FarPeerStart,
        Self::KeepAlive,
        Self::KeepAlive32,
        Self::TailBesideBulk,
        Self::NewConnections,
        Self::ThousandsMemory,
        Self::BesideThousands,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IdleMemory => "idle_memory",
            Self::BesideThousands => "beside_thousands",
            Self::ThousandsMemory => "thousands_memory",
            Self::OneFlow => "one_flow",
            Self::EightFlows => "eight_flows",
            Self::SameNode => "same_node",
            Self::BesideStalled => "beside_stalled",
            Self::Plaintext => "plaintext_passthrough",
            Self::FarPeer => "far_peer",
            Self::FarPeerStart => "far_peer_start",
            Self::KeepAlive => "keep_alive_1",
            Self::KeepAlive32 => "keep_alive_32",
            Self::TailBesideBulk => "tail_beside_bulk",
            Self::NewConnections => "new_connections",
        }
    }

    /// What it measures, for a person.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::IdleMemory => "memory of an idle connection, in each proxy",
            Self::BesideThousands => "one bulk flow beside 4,950 whose readers have stopped",
            Self::ThousandsMemory => {
                "memory of each of 9,900 whose readers have stopped, in both proxies"
            }
            Self::OneFlow => "one bulk flow to the other node",
            Self::EightFlows => "eight bulk flows to the other node",
            Self::SameNode => "one bulk flow to a pod of the same node",
            Self::BesideStalled => "one bulk flow beside 99 whose readers have stopped",
            Self::Plaintext => "one bulk flow from an unmeshed client",
            Self::FarPeer => "one bulk flow to a peer 40 ms away and back",
            Self::FarPeerStart => "how long such a flow takes to come to its rate",
            Self::KeepAlive => "requests on one connection: median time",
            Self::KeepAlive32 => "requests on 32 connections",
            Self::TailBesideBulk => "a request per ms beside eight bulk flows: 99 % are faster",
            Self::NewConnections => "a new connection per request, 8 at a time",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::IdleMemory | Self::ThousandsMemory => "KiB",
            Self::OneFlow
            | Self::EightFlows
            | Self::SameNode
            | Self::BesideStalled
            | Self::BesideThousands
            | Self::Plaintext
            | Self::FarPeer => "Gb/s",
            Self::FarPeerStart => "ms",
            Self::KeepAlive | Self::TailBesideBulk => "us",
            Self::KeepAlive32 | Self::NewConnections => "k/s",
        }
    }

    /// Whether more is better.
    pub(crate) fn more_is_better(self) -> bool {
        !matches!(
            self,
            Self::IdleMemory
                | Self::ThousandsMemory
                | Self::FarPeerStart
                | Self::KeepAlive
                | Self::TailBesideBulk
        )
    }

    /// The unit of CPU time, and how much of it a second for one piece of work is.
    pub(crate) fn cpu_unit(self) -> Option<(&'static str, f64)> {
        match self {
            Self::IdleMemory
            | Self::ThousandsMemory
            | Self::FarPeerStart
            | Self::TailBesideBulk => None,
            Self::OneFlow
            | Self::EightFlows
            | Self::SameNode
            | Self::BesideStalled
            | Self::BesideThousands
            | Self::Plaintext
            | Self::FarPeer => Some(("CPU-s/GB", 1.0)),
            Self::KeepAlive | Self::KeepAlive32 => Some(("CPU-us/request", 1e6)),
            Self::NewConnections => Some(("CPU-us/connection", 1e6)),
        }
    }

    /// How often it is run. Memory is measured once: a second time would find the first's. So is
    /// what takes long to set up.
    pub(crate) fn rounds(self, settings: &Settings) -> u32 {
        match self {
            Self::IdleMemory | Self::BesideThousands | Self::ThousandsMemory => 1,
            _ => settings.rounds,
        }
    }

    /// Runs it once for one kind of proxy.
    pub(crate) fn run(self, world: &World, side: &Side, settings: &Settings) -> io::Result<Sample> {
        let (client, duration) = (&side.client.netns, settings.duration);
        let server = |port| address(&side.server, port);
        let peer = if self == Self::SameNode { &side.neighbour } else { &side.server };
        // Opens the tunnel, so that no run pays for it.
        load::idle(client, address(peer, load::ANSWER), &mut Vec::new(), 1)?;
        let taken = side.proxies.taken()?;
        let mut before = side.proxies.cpu()?;
        let (value, work) = match self {
            Self::IdleMemory => (idle(side)?, 0.0),
            // It takes two pipes for each, and would have to have more files than it may.
            Self::ThousandsMemory | Self::BesideThousands if side.variant == Variant::Null => {
                (0.0, 0.0)
            }
            Self::ThousandsMemory => {
                let before = side.proxies.resident_kib()?;
                let _stalled = Stalled::start(side, stalled::MOST)?;
                let grown = side.proxies.resident_kib()? - before;
                (grown / stalled::MOST as f64, 0.0)
            }
            Self::BesideThousands => {
                let _stalled = Stalled::start(side, stalled::HALF)?;
                before = side.proxies.cpu()?;
                moved(load::bulk(client, server(load::SINK), 1, duration))?
            }
            Self::OneFlow => rate(load::bulk(client, server(load::SINK), 1, duration)?),
            Self::EightFlows => rate(load::bulk(client, server(load::SINK), 8, duration)?),
            Self::SameNode => rate(load::bulk(client, address(peer, load::SINK), 1, duration)?),
            Self::BesideStalled => {
                let stalled = load::stall(client, server(load::STALL), STALLED)?;
                before = side.proxies.cpu()?;
                let figures = moved(load::bulk(client, server(load::SINK), 1, duration));
                drop(stalled);
                load::let_go();
                figures?
            }
            Self::Plaintext => {
                let from = &world.outside.netns;
                rate(load::bulk(from, server(load::SINK), 1, duration)?)
            }
            // Only tunnels are made to be long.
            Self::FarPeer | Self::FarPeerStart if !side.variant.encrypts() => (0.0, 0.0),
            Self::FarPeer | Self::FarPeerStart => {
                let from = &side.neighbour.netns;
                let (bytes, rate, after) = delay::timed(from, server(delay::TIMELINE), duration)?;
                match self {
                    Self::FarPeer => (rate * 8.0 / 1e9, bytes as f64 / 1e9),
                    _ => (after.as_secs_f64() * 1e3, 0.0),
                }
            }
            Self::KeepAlive => {
                let times = load::requests(client, server(load::ANSWER), duration)?;
                let count = times.len() as f64;
                (median_us(times)?, count)
            }
            Self::KeepAlive32 => {
                let to = server(load::ANSWER);
                per_second(load::parallel_requests(client, to, 32, duration)?)
            }
            Self::TailBesideBulk => (tail(side, duration)?, 0.0),
            Self::NewConnections => {
                let to = server(load::ANSWER_ONCE);
                let how_many = (8, NEW_CONNECTIONS_MAX);
                per_second(load::new_connections(client, to, how_many, duration)?)
            }
        };
        let cpu = side.proxies.cpu()? - before;
        self.check_security(side, taken)?;
        Ok(Sample { value, cpu, work })
    }

    /// Whether adit took every connection of this run as it was to, in a tunnel or not, and left
    /// its bytes there if it was to.
    fn check_security(self, side: &Side, before: [f64; 2]) -> io::Result<()> {
        if side.variant != Variant::Adit {
            return Ok(());
        }
        let after = side.proxies.taken()?;
        let [tunnelled, plain] = [after[0] - before[0], after[1] - before[1]];
        let expected = if self == Self::Plaintext { plain } else { tunnelled };
        // The connection that opened the tunnel has ended before the load has.
        if self == Self::SameNode && (side.proxies.direct()? > 0.0) != side.direct {
            return Err(io::Error::other("bytes took the other path than they were to"));
        }
        if expected > 0.0 && expected == tunnelled + plain {
            return Ok(());
        }
        let words = format!("{tunnelled} connections came in a tunnel and {plain} in plain text");
        Err(io::Error::other(words))
    }
}

/// KiB of one connection in one proxy; 0 if there is none.
fn idle(side: &Side) -> io::Result<f64> {
    let to = address(&side.server, load::ANSWER);
    let mut streams = Vec::new();
    let [few, many] = IDLE;
    load::idle(&side.client.netns, to, &mut streams, few)?;
    let before = side.proxies.resident_kib()?;
    load::idle(&side.client.netns, to, &mut streams, many)?;
    let grown = side.proxies.resident_kib()? - before;
    Ok(grown / (many - few) as f64 / side.proxies.count().max(1) as f64)
}

/// As [`rate`]; that nothing moves any more is a figure, too.
fn moved(bulk: io::Result<(u64, Duration)>) -> io::Result<(f64, f64)> {
    match bulk {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((0.0, 0.0)),
        moved => moved.map(rate),
    }
}

/// Gigabits per second, and gigabytes.
fn rate((bytes, time): (u64, Duration)) -> (f64, f64) {
    let gigabytes = bytes as f64 / 1e9;
    (gigabytes * 8.0 / time.as_secs_f64(), gigabytes)
}

/// Thousands per second, and how many.
fn per_second((count, time): (u64, Duration)) -> (f64, f64) {
    (count as f64 / time.as_secs_f64() / 1e3, count as f64)
}

fn median_us(times: Vec<Duration>) -> io::Result<f64> {
    percentile_us(times, 50)
}

fn percentile_us(mut times: Vec<Duration>, percent: usize) -> io::Result<f64> {
    times.sort_unstable();
    let found = times.get(times.len() * percent / 100).ok_or(io::ErrorKind::TimedOut)?;
    Ok(found.as_secs_f64() * 1e6)
}

/// The time that 99 % of requests do not need, one per ms, beside bulk flows of the same pods.
fn tail(side: &Side, duration: Duration) -> io::Result<f64> {
    let (client, server) = (&side.client.netns, |port| address(&side.server, port));
    thread::scope(|scope| {
        let bulk = scope.spawn(|| load::bulk(client, server(load::SINK), 8, duration));
        let times = load::paced(client, server(load::ANSWER), PACE, duration);
        bulk.join().map_err(|_| io::Error::other("the bulk flows panicked"))??;
        percentile_us(times?, 99)
    })
}
