//! A thousand connections at once, each byte accounted for, resets and half-closes among them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use adit::sys::netns::Netns;
use adit::sys::socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::world::{Context, Outcome, PORT, World, ensure};

pub(crate) const TESTS: crate::Tests =
    &[("a_thousand_connections_lose_no_byte", tunnelled), ("plaintext_loses_no_byte", plaintext)];

const CONNECTIONS: u32 = 1_000;
/// The whole must end by then; it takes a few seconds.
const HANG: Duration = Duration::from_secs(90);
const HEAD: usize = 13;

/// Who ends a session, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The client finishes, then the server answers and finishes.
    ClientFirst,
    /// The server says everything and finishes, then the client does.
    ServerFirst,
    /// The client resets after the server has everything.
    ClientResets,
    /// The server resets after the client has everything.
    ServerResets,
}

/// What one session does.
#[derive(Clone, Copy, Debug)]
struct Plan {
    id: u32,
    ending: Ending,
    up: u32,
    down: u32,
}

impl Plan {
    fn of(id: u32) -> Self {
        let ending = match id % 10 {
            0 => Ending::ClientResets,
            1 => Ending::ServerResets,
            2 => Ending::ServerFirst,
            _ => Ending::ClientFirst,
        };
        // From nothing to a few windows, different for every session.
        let size = |factor: u32| (id.wrapping_mul(factor)) % 150_000;
        Self { id, ending, up: size(7_919), down: size(104_729) }
    }

    fn head(self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[0..4].copy_from_slice(&self.id.to_be_bytes());
        head[4..8].copy_from_slice(&self.up.to_be_bytes());
        head[8..12].copy_from_slice(&self.down.to_be_bytes());
        head[12] = self.ending as u8;
        head
    }

    fn read(head: [u8; HEAD]) -> Outcome<Self> {
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let plan = Self::of(word(0));
        let same = plan.up == word(4) && plan.down == word(8) && plan.ending as u8 == head[12];
        ensure!(same, "the head of session {} is damaged: {head:?}", plan.id);
        Ok(plan)
    }

    /// The byte at an offset: session and sequence, so that no byte can stand for another.
    fn bytes(self, len: u32, up: bool) -> Vec<u8> {
        let seed = self.id.wrapping_mul(2).wrapping_add(u32::from(up));
        (0..len)
            .map(|i| {
                let mixed = (i / 4).wrapping_mul(2_654_435_761).wrapping_add(seed);
                mixed.to_be_bytes()[(i % 4) as usize]
            })
            .collect()
    }
}

async fn read_to_end(stream: &mut TcpStream) -> Outcome<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes).await {
        Ok(_) => Ok((bytes, false)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok((bytes, true)),
        Err(error) => Err(error.to_string()),
    }
}

fn check(plan: Plan, what: &str, got: &[u8], expected: &[u8]) -> Outcome {
    let first = got.iter().zip(expected).position(|(a, b)| a != b);
    ensure!(
        got == expected,
        "{plan:?}: {what}: {} bytes of {}, first difference at {first:?}",
        got.len(),
        expected.len()
    );
    Ok(())
}

async fn serve(mut stream: TcpStream) -> Outcome {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await.during("the head")?;
    let plan = Plan::read(head)?;
    stream.write_all(b"!").await.during("the greeting")?;
    let (up, down) = (plan.bytes(plan.up, true), plan.bytes(plan.down, false));
    match plan.ending {
        Ending::ClientFirst => {
            let (got, reset) = read_to_end(&mut stream).await?;
            ensure!(!reset, "{plan:?}: reset towards the server");
            check(plan, "up", &got, &up)?;
            stream.write_all(&down).await.during("down")?;
        }
        Ending::ServerFirst => {
            stream.write_all(&down).await.during("down")?;
            stream.shutdown().await.during("finishing")?;
            let (got, reset) = read_to_end(&mut stream).await?;
            ensure!(!reset, "{plan:?}: reset towards the server");
            check(plan, "up", &got, &up)?;
        }
        Ending::ClientResets => {
            let mut got = vec![0; up.len()];
            stream.read_exact(&mut got).await.during("up")?;
            check(plan, "up", &got, &up)?;
            stream.write_all(b"+").await.during("the receipt")?;
            let (rest, reset) = read_to_end(&mut stream).await?;
            ensure!(reset && rest.is_empty(), "{plan:?}: {} more, reset {reset}", rest.len());
        }
        Ending::ServerResets => {
            stream.write_all(&down).await.during("down")?;
            stream.read_exact(&mut [0]).await.during("the receipt")?;
            socket::reset_on_close(&stream).during("resetting")?;
        }
    }
    Ok(())
}

async fn ask(to: SocketAddr, plan: Plan, all: Arc<Barrier>) -> Outcome {
    let mut stream = TcpStream::connect(to).await.during("connecting")?;
    stream.write_all(&plan.head()).await.during("the head")?;
    stream.read_exact(&mut [0]).await.during("the greeting")?;
    // From here on every connection is open at both ends.
    all.wait().await;
    let (up, down) = (plan.bytes(plan.up, true), plan.bytes(plan.down, false));
    match plan.ending {
        Ending::ClientFirst => {
            stream.write_all(&up).await.during("up")?;
            stream.shutdown().await.during("finishing")?;
            let (got, reset) = read_to_end(&mut stream).await?;
            ensure!(!reset, "{plan:?}: reset towards the client");
            check(plan, "down", &got, &down)?;
        }
        Ending::ServerFirst => {
            let (got, reset) = read_to_end(&mut stream).await?;
            ensure!(!reset, "{plan:?}: reset towards the client");
            check(plan, "down", &got, &down)?;
            stream.write_all(&up).await.during("up")?;
        }
        Ending::ClientResets => {
            stream.write_all(&up).await.during("up")?;
            stream.read_exact(&mut [0]).await.during("the receipt")?;
            socket::reset_on_close(&stream).during("resetting")?;
        }
        Ending::ServerResets => {
            let mut got = vec![0; down.len()];
            stream.read_exact(&mut got).await.during("down")?;
            check(plan, "down", &got, &down)?;
            stream.write_all(b"+").await.during("the receipt")?;
            let (rest, reset) = read_to_end(&mut stream).await?;
            ensure!(reset && rest.is_empty(), "{plan:?}: {} more, reset {reset}", rest.len());
        }
    }
    Ok(())
}

/// Runs a future on a runtime of its own inside a namespace.
fn inside<T: Send + 'static>(
    netns: &Netns,
    work: impl AsyncFnOnce() -> Outcome<T> + Send + 'static,
) -> thread::JoinHandle<Outcome<T>> {
    let netns = netns.clone();
    thread::spawn(move || {
        netns.enter().during("entering a pod")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let work = async { timeout(HANG, work()).await.map_err(|_| "it hangs".to_owned())? };
        runtime.during("making a runtime")?.block_on(work)
    })
}

/// All sessions, or the first that fails: the others wait for it in vain.
async fn gather(mut sessions: JoinSet<Outcome>) -> Outcome {
    while let Some(ended) = sessions.join_next().await {
        ended.map_err(|error| error.to_string()).and_then(|outcome| outcome)?;
    }
    Ok(())
}

fn run(client: &str) -> Outcome {
    let world = World::new()?;
    let to = world.server(false);
    let (ready, started) = oneshot::channel();
    let server = inside(&world.pod("cart").netns, async move || {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await.during("listening")?;
        let _ = ready.send(());
        let mut sessions = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (stream, _) = listener.accept().await.during("accepting")?;
            sessions.spawn(serve(stream));
        }
        gather(sessions).await
    });
    started.blocking_recv().during("waiting for the server")?;
    let clients = inside(&world.pod(client).netns, async move || {
        let all = Arc::new(Barrier::new(CONNECTIONS as usize));
        let mut sessions = JoinSet::new();
        for id in 0..CONNECTIONS {
            sessions.spawn(ask(to, Plan::of(id), Arc::clone(&all)));
        }
        gather(sessions).await
    });
    let joined = |thread: thread::JoinHandle<Outcome>, who: &str| {
        thread.join().map_err(|_| format!("the {who} panicked"))?.during(who)
    };
    joined(clients, "clients").map_err(|error| {
        let log = world.proxy("b").log().unwrap_or_default();
        let refusals =
            log.lines().filter(|line| line.contains("\terror\t") || line.contains("\twarn\t"));
        format!("{error}; the proxy says {:#?}", refusals.take(5).collect::<Vec<_>>())
    })?;
    joined(server, "server")
}

fn tunnelled() -> Outcome {
    run("web")
}

fn plaintext() -> Outcome {
    run("legacy")
}
