//! Very many connections whose readers have stopped, opened by a process of its own, because one
//! may not have that many files.
//!
//! The kernel keeps more for each than the proxies do, and has not room for ten thousand: while
//! they are opened the pods' buffers are made small.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;
use std::{fs, io, thread};

use adit::sys::netns::Netns;
use serde::{Deserialize, Serialize};

use crate::PATIENCE;
use crate::load;
use crate::proxies::{reachable, start_other};
use crate::relay::ready;
use crate::world::{Side, address};

/// How many: a pod may have 10,000 connections, tunnels and all.
pub(crate) const MOST: usize = 9_900;
/// How many leave the kernel with enough memory for a flow beside them, which the proxies have in
/// any case.
pub(crate) const HALF: usize = MOST / 2;
/// What is sent on each: more than its first window and what the kernel keeps.
const BYTES: usize = 96 * 1024;
/// Between two looks at what is to end.
const GLANCE: Duration = Duration::from_millis(100);
/// What the kernel may keep of a connection in each direction, the least, the first and the most.
const SMALL: &str = "4096 16384 16384";
const BUFFERS: [&str; 2] = ["/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem"];

/// What the process is told, as JSON on its standard input.
#[derive(Serialize, Deserialize)]
struct Plan {
    netns: PathBuf,
    to: SocketAddr,
    count: usize,
}

/// The process that holds them; they are reset when this is dropped.
pub(crate) struct Stalled(Child);

/// A process that opens connections, says so, and holds them until it is killed.
pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plan: Plan = serde_json::from_reader(io::stdin().lock())?;
    adit::sys::process::raise_open_files()?;
    let netns = Netns::from_fd(fs::File::open(&plan.netns)?.into())?;
    let _streams = load::stall(&netns, plan.to, (plan.count, BYTES))?;
    ready()?;
    loop {
        thread::park();
    }
}

impl Stalled {
    /// Opens them from the client of a side to its server, once the proxies have ended those that
    /// were there before.
    pub(crate) fn start(side: &Side, count: usize) -> io::Result<Self> {
        let begin = load::now();
        while side.proxies.open_files()? > HALF / 10 {
            if load::now() - begin > PATIENCE {
                return Err(io::Error::other("connections that were reset do not end"));
            }
            thread::sleep(GLANCE);
        }
        let before = narrow([&side.client.netns, &side.server.netns])?;
        let to = address(&side.server, load::STALL);
        let plan = Plan { netns: reachable(&side.client), to, count };
        let opened = start_other(&["--stall"], &plan).map(Self);
        for (netns, values) in before {
            netns.run(|| write_all(&values))?;
        }
        opened
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        // Nothing is left to do about a process that is not there any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
        load::let_go();
    }
}

/// Makes the kernel's buffers small in some namespaces, and answers how they were.
fn narrow(all: [&Netns; 2]) -> io::Result<Vec<(&Netns, Vec<String>)>> {
    let mut before = Vec::new();
    for netns in all {
        let values = netns.run(|| BUFFERS.iter().map(fs::read_to_string).collect())?;
        netns.run(|| write_all(&BUFFERS.map(|_| SMALL.to_owned())))?;
        before.push((netns, values));
    }
    Ok(before)
}

fn write_all(values: &[String]) -> io::Result<()> {
    BUFFERS.iter().zip(values).try_for_each(|(path, value)| fs::write(path, value))
}
