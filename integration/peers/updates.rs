//! New keys all the time inside a live tunnel: the engine itself, with a driver that blocks,
//! against peers that are told nothing of it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::thread;

use adit::cli::lab::{App, Service};
use adit::hbone::Engine;
use adit::hbone::handshake::Handshake;
use adit::hbone::http2::{Event, Room};
use adit::hbone::limits::{Account, Limits};
use adit::sys::clock::Clock;
use rustls::version::TLS13;

use crate::ours;
use crate::place::{HBONE, Kind, Place, Version};
use crate::world::peer::{Pki, Shown, tls};
use crate::world::{Context, Outcome, PORT, accept_one, connect, ensure, listen};

/// Seven records under the same keys.
const LIMITS: Limits = Limits {
    streams_max: 10,
    stream_window_max: 1 << 20,
    frame_max: 1 << 20,
    header_list_max: 64 * 1024,
    records_max: 7,
    ping_interval_ms: 10_000,
    ping_timeout_ms: 20_000,
};
const BATCH: usize = 256 * 1024;
/// Texts that go back and forth, and how long they are in turn.
const TEXTS: usize = 200;
const LENGTHS: [usize; 4] = [1, 100, 5_000, 60_000];

#[derive(Debug)]
struct Endless;

impl Account for Endless {
    fn charge(&self, _: u32) {}

    fn room(&self) -> u64 {
        u64::MAX
    }

    fn release(&self, _: u32) {}
}

/// Our end of a tunnel.
struct Wire {
    socket: TcpStream,
    engine: Engine,
    clock: Clock,
    sending: Vec<u8>,
    receiving: Vec<u8>,
    /// Bytes may have come with the handshake.
    fresh: bool,
}

/// What has happened on the one stream.
#[derive(Default)]
struct Heard {
    requested: Option<u32>,
    status: Option<u16>,
    text: Vec<u8>,
    ended: bool,
}

impl Wire {
    fn shake(mut socket: TcpStream, handshake: Handshake) -> Outcome<Self> {
        let clock = Clock::system();
        let keys = ours::shake(&mut socket, handshake)?;
        let engine = Engine::new(keys, LIMITS, Rc::new(Endless), clock.monotonic());
        let engine = engine.during("the keys")?;
        let (sending, receiving) = (vec![0; BATCH], vec![0; BATCH]);
        Ok(Self { socket, engine, clock, sending, receiving, fresh: true })
    }

    fn flush(&mut self) -> Outcome {
        while self.engine.wants_flush() {
            let len = self.engine.flush(&mut self.sending).during("sealing")?;
            self.socket.write_all(&self.sending[..len]).during("sending")?;
        }
        Ok(())
    }

    /// Reads once, and notes what came of it.
    fn hear(&mut self, heard: &mut Heard) -> Outcome {
        self.flush()?;
        let kept = self.engine.begin(&mut self.receiving);
        let mut count = 0;
        if !std::mem::take(&mut self.fresh) {
            count = self.socket.read(&mut self.receiving[kept..]).during("reading")?;
            ensure!(count > 0, "the peer has hung up");
        }
        let now = self.clock.monotonic();
        let mut input = self.engine.receive(&mut self.receiving[..kept + count]);
        while let Some(event) = self.engine.next(&mut input, now).during("what the peer says")? {
            match event {
                Event::Request { stream, .. } => heard.requested = Some(stream),
                Event::Response { status, .. } => heard.status = Some(status),
                Event::Data { stream, bytes } => {
                    heard.text.extend_from_slice(bytes);
                    self.engine.http_mut().taken(stream, bytes.len(), now);
                }
                Event::End { .. } => heard.ended = true,
                Event::Reset { code, .. } => return Err(format!("reset: {code}")),
                Event::GoAway { code } => return Err(format!("it leaves: {code}")),
            }
        }
        self.flush()
    }

    /// Sends a text, and listens where it has to wait.
    fn say(&mut self, stream: u32, mut text: &[u8], heard: &mut Heard) -> Outcome {
        while !text.is_empty() {
            let plan = self.engine.plan(stream, &mut self.sending).during("sealing")?;
            let (room, mut count) = (plan.room(), 0);
            for slot in plan.slots(&mut self.sending) {
                let (now, later) = text.split_at(slot.len().min(text.len()));
                slot[..now.len()].copy_from_slice(now);
                (text, count) = (later, count + now.len());
            }
            let len = self.engine.seal(plan, &mut self.sending, count).during("sealing")?;
            self.socket.write_all(&self.sending[..len]).during("sending")?;
            ensure!(room != Room::Closed, "the stream is closed");
            // It has the turn when its window opens; nobody else is here.
            while count == 0 && self.engine.http_mut().next_turn().is_none() {
                self.hear(heard)?;
            }
        }
        Ok(())
    }
}

fn text(number: usize) -> Vec<u8> {
    let len = LENGTHS[number % LENGTHS.len()];
    (0..len).map(|at| u8::try_from((number + at) % 251).unwrap_or(0)).collect()
}

fn identity(place: &Place, what: &str) -> Outcome<Shown> {
    let (namespace, account) = if what == "legacy" { ("front", what) } else { ("shop", what) };
    let id = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
    Pki::of(place.world.dir())?.issue(&[&id])
}

/// We ask.
pub(crate) fn as_client(kind: Kind) -> Outcome {
    let place = Place::new(kind, Version::Tls13)?;
    let _app = App::start(place.server(), PORT, Service::Echo).during("a server")?;
    let asked = || -> Outcome {
        let to = place.server().ipv4;
        let config = tls(Some(&identity(&place, "legacy")?), &["h2"], &TLS13)?;
        let handshake = ours::client(&config, to.into())?;
        let socket = connect(place.world.pod("legacy"), (to, HBONE).into())?;
        let mut wire = Wire::shake(socket, handshake)?;
        let (mut heard, now) = (Heard::default(), wire.clock.monotonic());
        let opened = wire.engine.http_mut().open(&format!("{to}:{PORT}"), [], now);
        let stream = opened.during("a CONNECT")?;
        while heard.status.is_none() {
            wire.hear(&mut heard)?;
        }
        ensure!(heard.status == Some(200), "answered {:?}", heard.status);
        for number in 0..TEXTS {
            let text = text(number);
            wire.say(stream, &text, &mut heard)?;
            while heard.text.len() < text.len() {
                wire.hear(&mut heard)?;
            }
            ensure!(heard.text == text, "text {number} came back as another");
            heard.text.clear();
        }
        wire.engine.http_mut().finish(stream);
        while !heard.ended {
            wire.hear(&mut heard)?;
        }
        Ok(())
    };
    asked().map_err(|error| place.explain(&error))
}

/// We are asked.
pub(crate) fn as_server(kind: Kind) -> Outcome {
    let place = Place::asking(kind, "waypoint")?;
    let served = || -> Outcome {
        let pki = Pki::of(place.world.dir())?;
        let config = pki.server(identity(&place, "waypoint")?)?;
        let listener = listen(place.world.pod("waypoint"), HBONE)?;
        let accepted = accept_one(&listener)?;
        let mut near = place.connect()?;
        thread::scope(|scope| {
            let client = scope.spawn(move || -> Outcome {
                for number in 0..TEXTS {
                    let (text, mut back) = (text(number), Vec::new());
                    near.write_all(&text).during("sending")?;
                    back.resize(text.len(), 0);
                    near.read_exact(&mut back).during("reading")?;
                    ensure!(back == text, "text {number} came back as another");
                }
                near.shutdown(Shutdown::Write).during("ending")?;
                let count = near.read(&mut [0]).during("the end")?;
                ensure!(count == 0, "more came");
                Ok(())
            });
            let socket = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
            let mut wire = Wire::shake(socket, ours::server(&config)?)?;
            let mut heard = Heard::default();
            let mut stream = None;
            while !heard.ended || !heard.text.is_empty() {
                if let Some(asked) = heard.requested.take() {
                    ensure!(wire.engine.http_mut().respond(asked, 200, [], false), "it is gone");
                    stream = Some(asked);
                }
                let text = std::mem::take(&mut heard.text);
                if let Some(stream) = stream {
                    wire.say(stream, &text, &mut heard)?;
                }
                if !heard.ended && heard.text.is_empty() {
                    wire.hear(&mut heard)?;
                }
            }
            wire.engine.http_mut().finish(stream.ok_or("no CONNECT came")?);
            wire.flush()?;
            client.join().map_err(|_| "the client panicked")?
        })
    };
    served().map_err(|error| place.explain(&error))
}
