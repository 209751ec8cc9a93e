//! Our tunnel and the `h2` crate at its other end, both in either role: what the input says is
//! opened, sent, finished, reset and left unread on both sides, in any order and any pieces.
//!
//! They are equivalent if, once everything has been carried over, of every stream
//! 1. each side has been given what the other one sent, or if it was reset the beginning of it;
//! 2. both say the same of how it ended: finished if neither reset it, and otherwise reset, or
//!    finished if all had been said before the reset;
//! 3. and neither side has ended the connection of the other, who kept to the rules.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use adit::hbone::frame::ErrorCode;
use adit::hbone::http2::{Event, Room};
use adit::hbone::record::{Opened, Opener, record_len};
use adit::hbone::{Engine, Role};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client, server};
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::parts::{Ledger, Peer, Script, direction, engine, now, other};

const STREAMS_MAX: usize = 8;
/// What an application sends at most.
const SENT_MAX: usize = 400_000;
const SILENCE: Duration = Duration::from_secs(9);
const UPDATES_MAX: u64 = 16;
const ROUNDS_MAX: usize = 2_000;
const APPLICATION_DATA: u8 = 23;
const HANDSHAKE: u8 = 22;

/// How a stream ended for one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Finished,
    Reset,
}

/// What one application knows of its stream.
#[derive(Debug, Default)]
struct App {
    sent: usize,
    received: Vec<u8>,
    finished: bool,
    /// It reset the stream itself.
    resets: bool,
    end: Option<End>,
}

/// The socket of `h2`, in memory.
#[derive(Clone, Default)]
struct Pipe {
    inbound: Rc<RefCell<VecDeque<u8>>>,
    outbound: Rc<RefCell<Vec<u8>>>,
}

/// The connection of `h2`.
enum Link {
    Client(client::Connection<Pipe, Bytes>, client::SendRequest<Bytes>),
    Greeting(server::Handshake<Pipe, Bytes>),
    Server(server::Connection<Pipe, Bytes>),
}

/// One stream of `h2`.
#[derive(Default)]
struct Theirs {
    app: App,
    send: Option<SendStream<Bytes>>,
    receive: Option<RecvStream>,
    response: Option<client::ResponseFuture>,
}

struct World {
    engine: Engine,
    apps: BTreeMap<u32, App>,
    ledger: Rc<Ledger>,
    batch: Vec<u8>,
    born: Instant,
    now: Instant,
    link: Link,
    pipe: Pipe,
    streams: BTreeMap<u32, Theirs>,
    /// The TLS of `h2`, in both directions.
    sealer: Peer,
    opener: Opener,
    to_us: Vec<u8>,
    to_them: Vec<u8>,
    /// The beginning of a record that `h2` cannot open yet.
    partial: Vec<u8>,
}

pub(super) fn run(input: &[u8]) {
    let mut script = Script(input);
    let role = if script.byte().is_multiple_of(2) { Role::Client } else { Role::Server };
    let mut world = World::new(role);
    world.carry_all();
    while !script.is_over() {
        world.step(&mut script);
    }
    world.finish();
}

/// Which byte an application sends at a place of its stream.
fn byte(role: Role, stream: u32, at: usize) -> u8 {
    let role = usize::from(role == Role::Client);
    u8::try_from((at + at / 251 + role * 7 + stream as usize * 13) % 251).expect("below 251")
}

fn bytes(role: Role, stream: u32, from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| byte(role, stream, at)).collect()
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl World {
    fn new(role: Role) -> Self {
        let (ledger, pipe, now) = (Rc::new(Ledger::default()), Pipe::default(), now());
        let link = if role == Role::Server {
            let handshake = pin!(client::handshake(pipe.clone())).poll(&mut context());
            let Poll::Ready(Ok((send, connection))) = handshake else { panic!("it greets") };
            Link::Client(connection, send)
        } else {
            Link::Greeting(server::handshake(pipe.clone()))
        };
        Self {
            engine: engine(role, &ledger),
            apps: BTreeMap::new(),
            ledger,
            batch: vec![0; 64 * 1024],
            born: now,
            now,
            link,
            pipe,
            streams: BTreeMap::new(),
            sealer: Peer::new(other(role)),
            opener: Opener::new(direction(role), other(role)).expect("the keys are good"),
            to_us: Vec::new(),
            to_them: Vec::new(),
            partial: Vec::new(),
        }
    }

    fn role(&self) -> Role {
        self.engine.role()
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let id = 2 * (u32::from(what >> 4) % 8) + 1;
        match what % 14 {
            0 => self.open(),
            1 => self.we_send(id, script.size()),
            2 => self.they_send(id, script.size()),
            3 => self.we_finish(id),
            4 => self.they_finish(id),
            5 => self.we_reset(id),
            6 => self.they_reset(id),
            7 => {
                self.flush();
                let count = script.size().min(self.to_them.len());
                self.carry_to_them(count);
            }
            8 => {
                self.collect();
                let count = script.size().min(self.to_us.len());
                let appetite = script.byte();
                self.carry_to_us(count, appetite);
            }
            9 => self.we_take(id, script.size()),
            10 => self.they_take(id, usize::from(script.byte())),
            11 => self.poll(),
            // Not so many in a row that they count as a flood.
            12 if self.sealer.generation() < UPDATES_MAX => {
                self.collect();
                let update = [24, 0, 0, 1, what >> 4 & 1];
                self.sealer.seal(&update, HANDSHAKE, 0, &mut self.to_us);
                self.sealer.update();
            }
            12 => {}
            _ => {
                // Not so long that a peer whose bytes are not carried counts as silent.
                let pass = Duration::from_millis(u64::from(script.byte()) * 8);
                if self.now + pass < self.born + SILENCE {
                    self.now += pass;
                }
                self.engine.tick(self.now).expect("the peer is not silent");
            }
        }
    }

    fn open(&mut self) {
        if self.apps.len().max(self.streams.len()) >= STREAMS_MAX {
            return;
        }
        match &mut self.link {
            Link::Client(_, send) => {
                let Poll::Ready(Ok(())) = send.poll_ready(&mut context()) else { return };
                let request = Request::builder().method(Method::CONNECT).uri("10.0.0.1:80");
                let request = request.body(()).expect("a request");
                let (response, send) = send.send_request(request, false).expect("there is room");
                let stream = response.stream_id().as_u32();
                let (send, response) = (Some(send), Some(response));
                self.streams.insert(stream, Theirs { send, response, ..Theirs::default() });
            }
            _ => {
                let opened = self.engine.http_mut().open("10.0.0.1:80", [], self.now);
                if let Ok(stream) = opened {
                    self.apps.insert(stream, App::default());
                }
            }
        }
    }

    fn we_send(&mut self, id: u32, len: usize) {
        let role = self.role();
        let Some(app) = self.apps.get_mut(&id) else { return };
        if app.finished || app.resets || app.sent + len > SENT_MAX {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let plan = self.engine.plan(id, &mut batch).expect("it can be sealed");
        let content = bytes(role, id, app.sent, len);
        let mut rest = content.as_slice();
        for slot in plan.slots(&mut batch) {
            let count = slot.len().min(rest.len());
            slot[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
        }
        let count = if let Room::Bytes(_) = plan.room() { len - rest.len() } else { 0 };
        let sealed = self.engine.seal(plan, &mut batch, count).expect("it can be sealed");
        app.sent += count;
        self.engine.keep_unsent(&batch[..sealed]);
        self.batch = batch;
        self.leaves();
    }

    fn leaves(&mut self) {
        let unsent = self.engine.unsent().to_vec();
        self.engine.sent(unsent.len());
        self.to_them.extend(unsent);
        while self.engine.http_mut().next_turn().is_some() {}
    }

    fn flush(&mut self) {
        for _ in 0..100 {
            if !self.engine.wants_flush() {
                return;
            }
            let mut batch = std::mem::take(&mut self.batch);
            let len = self.engine.flush(&mut batch).expect("it can be sealed");
            self.engine.keep_unsent(&batch[..len]);
            self.batch = batch;
            self.leaves();
        }
        panic!("it flushes for ever");
    }

    fn we_finish(&mut self, id: u32) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        if !app.finished && !app.resets {
            app.finished = true;
            self.engine.http_mut().finish(id);
        }
    }

    fn we_reset(&mut self, id: u32) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        app.resets = true;
        app.end.get_or_insert(End::Reset);
        self.engine.http_mut().reset(id, ErrorCode::ConnectError);
    }

    fn we_take(&mut self, id: u32, most: usize) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        let http = self.engine.http_mut();
        let count = http.parked(id).len().min(most);
        app.received.extend_from_slice(&http.parked(id)[..count]);
        http.taken_parked(id, count, self.now);
    }

    fn they_send(&mut self, id: u32, len: usize) {
        let role = other(self.role());
        let Some(theirs) = self.streams.get_mut(&id) else { return };
        let Some(send) = theirs.send.as_mut() else { return };
        let app = &mut theirs.app;
        if app.finished || app.resets || app.end == Some(End::Reset) || app.sent + len > SENT_MAX {
            return;
        }
        send.reserve_capacity(len);
        if let Poll::Ready(Some(Ok(_)) | None) | Poll::Pending = send.poll_capacity(&mut context())
        {
            let count = send.capacity().min(len);
            let content = bytes(role, id, app.sent, count);
            if count > 0 && send.send_data(content.into(), false).is_ok() {
                app.sent += count;
            }
        }
    }

    fn they_finish(&mut self, id: u32) {
        let Some(theirs) = self.streams.get_mut(&id) else { return };
        let Some(send) = theirs.send.as_mut() else { return };
        if !theirs.app.finished && !theirs.app.resets {
            theirs.app.finished = send.send_data(Bytes::new(), true).is_ok();
        }
    }

    fn they_reset(&mut self, id: u32) {
        let Some(theirs) = self.streams.get_mut(&id) else { return };
        let Some(send) = theirs.send.as_mut() else { return };
        theirs.app.resets = true;
        theirs.app.end.get_or_insert(End::Reset);
        send.send_reset(Reason::CANCEL);
    }

    /// Takes up to `count` pieces.
    fn they_take(&mut self, id: u32, count: usize) {
        let Some(theirs) = self.streams.get_mut(&id) else { return };
        let Some(receive) = theirs.receive.as_mut() else { return };
        for _ in 0..count {
            match receive.poll_data(&mut context()) {
                Poll::Ready(Some(Ok(data))) => {
                    let released = receive.flow_control().release_capacity(data.len());
                    released.expect("it was received");
                    theirs.app.received.extend_from_slice(&data);
                }
                Poll::Ready(Some(Err(error))) => {
                    assert!(error.is_reset() || theirs.app.resets, "{error}");
                    theirs.app.end.get_or_insert(End::Reset);
                    return;
                }
                Poll::Ready(None) => {
                    theirs.app.end.get_or_insert(End::Finished);
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    /// What `h2` has to do.
    fn poll(&mut self) {
        let mut arrived = Vec::new();
        match &mut self.link {
            Link::Client(connection, _) => {
                if let Poll::Ready(ended) = Pin::new(connection).poll(&mut context()) {
                    panic!("h2 has ended the connection: {ended:?}");
                }
            }
            Link::Greeting(handshake) => {
                if let Poll::Ready(done) = Pin::new(handshake).poll(&mut context()) {
                    self.link = Link::Server(done.expect("the greeting is good"));
                }
                return;
            }
            Link::Server(connection) => {
                while let Poll::Ready(accepted) = connection.poll_accept(&mut context()) {
                    let (request, mut respond) =
                        accepted.expect("it is open").expect("h2 ends nothing");
                    let receive = request.into_body();
                    let stream = receive.stream_id().as_u32();
                    // A stream that was reset meanwhile cannot be answered.
                    let send = respond.send_response(Response::new(()), false).ok();
                    let receive = Some(receive);
                    arrived.push((stream, Theirs { send, receive, ..Theirs::default() }));
                }
            }
        }
        self.streams.extend(arrived);
        for theirs in self.streams.values_mut() {
            if let Some(response) = theirs.response.as_mut() {
                match Pin::new(response).poll(&mut context()) {
                    Poll::Ready(Ok(response)) => {
                        assert_eq!(response.status(), 200);
                        (theirs.receive, theirs.response) = (Some(response.into_body()), None);
                    }
                    Poll::Ready(Err(error)) => {
                        assert!(error.is_reset() || theirs.app.resets, "{error}");
                        theirs.app.end.get_or_insert(End::Reset);
                        theirs.response = None;
                    }
                    Poll::Pending => {}
                }
            }
        }
    }

    /// Seals what `h2` has written.
    fn collect(&mut self) {
        let plain = std::mem::take(&mut *self.pipe.outbound.borrow_mut());
        for piece in plain.chunks(16_384) {
            self.sealer.seal(piece, APPLICATION_DATA, 0, &mut self.to_us);
        }
    }

    fn carry_to_them(&mut self, count: usize) {
        let arrived: Vec<u8> = self.to_them.drain(..count).collect();
        let mut wire = std::mem::take(&mut self.partial);
        wire.extend(arrived);
        let mut at = 0;
        while let Some(len) = record_len(&wire[at..]).expect("a record") {
            if at + len > wire.len() {
                break;
            }
            if let Opened::Data(plain) =
                self.opener.open(&mut wire[at..at + len]).expect("it was sealed well")
            {
                self.pipe.inbound.borrow_mut().extend(plain.iter());
            }
            at += len;
        }
        self.partial = wire.split_off(at);
    }

    /// The applications take all, half or nothing of what comes.
    fn carry_to_us(&mut self, count: usize, appetite: u8) {
        let mut buffer = vec![0; 512 * 1024];
        let kept = self.engine.begin(&mut buffer);
        let count = count.min(buffer.len() - kept);
        buffer[kept..kept + count].copy_from_slice(&self.to_us[..count]);
        self.to_us.drain(..count);
        let mut input = self.engine.receive(&mut buffer[..kept + count]);
        loop {
            let event = self.engine.next(&mut input, self.now).expect("a legal peer is not ended");
            match event {
                None => break,
                Some(Event::Data { stream, bytes }) => {
                    let count = bytes.len() * usize::from(appetite % 3) / 2;
                    let app = self.apps.get_mut(&stream).expect("a stream that was announced");
                    app.received.extend_from_slice(&bytes[..count]);
                    self.engine.http_mut().park(stream, &bytes[count..]);
                    self.engine.http_mut().taken(stream, count, self.now);
                }
                Some(Event::Request { stream, .. }) => {
                    self.apps.insert(stream, App::default());
                    self.engine.http_mut().respond(stream, 200, [], false);
                }
                Some(Event::Response { status, .. }) => assert_eq!(status, 200),
                Some(Event::End { stream }) => {
                    let app = self.apps.get_mut(&stream).expect("a stream that was announced");
                    app.end.get_or_insert(End::Finished);
                }
                Some(Event::Reset { stream, .. }) => {
                    let app = self.apps.get_mut(&stream).expect("a stream that was announced");
                    app.end.get_or_insert(End::Reset);
                }
                Some(Event::GoAway { code }) => panic!("h2 goes away: {code:?}"),
            }
        }
        while self.engine.http_mut().next_turn().is_some() {}
    }

    /// Everything that is due is carried over and taken.
    fn carry_all(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.flush();
            self.poll();
            let ids: Vec<u32> = self.streams.keys().chain(self.apps.keys()).copied().collect();
            for id in ids {
                self.they_take(id, usize::MAX);
                self.we_take(id, usize::MAX);
            }
            self.poll();
            self.flush();
            self.collect();
            if self.to_us.is_empty() && self.to_them.is_empty() {
                return;
            }
            self.carry_to_them(self.to_them.len());
            self.carry_to_us(self.to_us.len(), 2);
        }
        panic!("the two ends never come to rest");
    }

    fn finish(mut self) {
        self.carry_all();
        let ids: Vec<u32> = self.streams.keys().chain(self.apps.keys()).copied().collect();
        for id in ids {
            self.we_finish(id);
            self.they_finish(id);
        }
        self.carry_all();
        let (role, peer) = (self.role(), other(self.role()));
        for (id, ours) in &self.apps {
            let Some(theirs) = self.streams.get(id) else {
                assert!(ours.resets, "{id}: h2 knows nothing of a stream that goes on");
                continue;
            };
            let theirs = &theirs.app;
            let reset = ours.resets || theirs.resets;
            for (got, sent, from) in
                [(&ours.received, theirs.sent, peer), (&theirs.received, ours.sent, role)]
            {
                assert!(got.len() <= sent, "{id}: {} of {sent} bytes", got.len());
                assert_eq!(*got, bytes(from, *id, 0, got.len()), "{id}: what was sent arrives");
                assert!(reset || got.len() == sent, "{id}: {} of {sent} bytes", got.len());
            }
            match (ours.end, theirs.end) {
                (Some(End::Finished), Some(End::Finished)) => {}
                (Some(_), Some(_)) => assert!(reset, "{id}: a reset that nobody asked for"),
                ends => panic!("{id}: it does not end: {ends:?}"),
            }
        }
        let known = |id: &u32| self.apps.contains_key(id) || self.streams[id].app.resets;
        assert!(self.streams.keys().all(known), "we know nothing of a stream that goes on");
        drop(self.engine);
        assert_eq!(self.ledger.0.get(), 0, "no debt is left behind");
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inbound = self.inbound.borrow_mut();
        if inbound.is_empty() {
            return Poll::Pending;
        }
        let count = buffer.remaining().min(inbound.len());
        let bytes: Vec<u8> = inbound.drain(..count).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.outbound.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
