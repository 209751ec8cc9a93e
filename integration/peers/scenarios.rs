//! What is done through a tunnel, whoever is at its ends.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use adit::cli::lab::{App, Service};
use adit::sys::clock::Clock;

use crate::place::Place;
use crate::world::{
    Context, End, Outcome, PATIENCE, PORT, accept_one, echo, echo_and_end, ensure, listen,
    read_to_end, reset,
};

type Scenario = fn(&mut Place) -> Outcome;

pub(crate) const ALL: [(&str, Scenario); 7] = [
    ("an_identity_is_shown_and_checked", identity),
    ("bulk_both_ways", bulk),
    ("half_closes", half_closes),
    ("resets_both_ways", resets),
    ("two_hundred_chatty_streams_and_readers_that_pause", chatty),
    ("a_stalled_reader_stops_nobody", stalled),
    ("goaway_under_load", goaway),
];

const MUCH: usize = 24 << 20;
const CHATTY: usize = 200;
const MESSAGES: usize = 50;
const MESSAGE: &[u8; 14] = b"fourteen bytes";
const LOADED: usize = 20;
/// Nothing else here takes nearly as long.
const STOPPED: Duration = Duration::from_secs(2);

fn byte(at: usize) -> u8 {
    u8::try_from((at + at / 251) % 251).unwrap_or(0)
}

fn identity(place: &mut Place) -> Outcome {
    let _app = App::start(place.server(), PORT, Service::Echo).during("a server")?;
    echo_and_end(place.connect()?, "who is there\n")?;
    let theirs = if place.kind.terminates() { "ns/shop/sa/waypoint" } else { "ns/front/sa/legacy" };
    let ours = if place.kind.terminates() { "ns/front/sa/web" } else { "ns/shop/sa/cart" };
    let line = ["connection complete", theirs, ours, "bytes_sent=13 bytes_recv=13"];
    place.world.wait_log(place.node(), &line)?;
    Ok(())
}

/// Sends `count` bytes on a thread, and checks as many from the other side; finishes at once, or
/// when the other side has.
fn exchange(stream: TcpStream, count: usize, at_once: bool) -> Outcome {
    let mut writer = stream.try_clone().during("sharing a stream")?;
    let mut reader = stream;
    thread::scope(|scope| {
        let sender = scope.spawn(move || -> Outcome {
            let chunk: Vec<u8> = (0..251 * 251).map(byte).collect();
            let mut left = count;
            while left > 0 {
                let piece = left.min(chunk.len());
                writer.write_all(&chunk[..piece]).during("sending")?;
                left -= piece;
            }
            if at_once {
                writer.shutdown(Shutdown::Write).during("ending")?;
            }
            Ok(())
        });
        let (bytes, end) = read_to_end(&mut reader)?;
        ensure!(bytes.len() == count, "{} of {count} bytes came", bytes.len());
        let good = bytes.iter().enumerate().all(|(at, got)| *got == byte(at % (251 * 251)));
        ensure!(good && end == End::Finished, "other bytes came, or {end:?}");
        sender.join().map_err(|_| "the sender panicked")??;
        if at_once { Ok(()) } else { reader.shutdown(Shutdown::Write).during("ending") }
    })
}

fn bulk(place: &mut Place) -> Outcome {
    let listener = listen(place.server(), PORT)?;
    let accepted = accept_one(&listener)?;
    let near = place.connect()?;
    let far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
    let first = place.kind.lets_the_server_finish_first();
    thread::scope(|scope| {
        let other = scope.spawn(|| exchange(far, MUCH, first));
        exchange(near, MUCH, true).during("the client")?;
        other.join().map_err(|_| "the server panicked")?.during("the server")
    })
}

fn half_closes(place: &mut Place) -> Outcome {
    let listener = listen(place.server(), PORT)?;
    // The client ends first, the server answers after it.
    let accepted = accept_one(&listener)?;
    let mut near = place.connect()?;
    near.write_all(b"question").during("asking")?;
    near.shutdown(Shutdown::Write).during("ending")?;
    let mut far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
    ensure!(read_to_end(&mut far)? == (b"question".to_vec(), End::Finished), "up");
    far.write_all(b"answer").during("answering")?;
    drop(far);
    ensure!(read_to_end(&mut near)? == (b"answer".to_vec(), End::Finished), "down");
    if !place.kind.lets_the_server_finish_first() {
        return Ok(());
    }
    // The server ends first, the client goes on talking.
    let accepted = accept_one(&listener)?;
    let mut near = place.connect()?;
    near.write_all(b"x").during("asking")?;
    let mut far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
    far.read_exact(&mut [0]).during("reading")?;
    far.shutdown(Shutdown::Write).during("ending")?;
    ensure!(read_to_end(&mut near)? == (Vec::new(), End::Finished), "early end");
    near.write_all(b"still here").during("talking on")?;
    drop(near);
    ensure!(read_to_end(&mut far)? == (b"still here".to_vec(), End::Finished), "on");
    Ok(())
}

fn resets(place: &mut Place) -> Outcome {
    let listener = listen(place.server(), PORT)?;
    for client_resets in [true, false] {
        let accepted = accept_one(&listener)?;
        let mut near = place.connect()?;
        near.write_all(b"ping").during("sending")?;
        let mut far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
        far.read_exact(&mut [0; 4]).during("reading")?;
        far.write_all(b"pong").during("sending")?;
        near.read_exact(&mut [0; 4]).during("reading")?;
        let (first, mut second) = if client_resets { (near, far) } else { (far, near) };
        reset(first)?;
        let seen = read_to_end(&mut second)?;
        let told = client_resets != place.kind.terminates();
        let kind = place.kind;
        let kept = if told { kind.tells_of_resets() } else { kind.carries_resets() };
        let expected = if kept { End::Reset } else { End::Finished };
        ensure!(seen == (Vec::new(), expected), "client resets: {client_resets}: {seen:?}");
    }
    Ok(())
}

/// Echoes whatever comes on as many connections as come, each on a thread; the first pauses.
fn echo_slowly(listener: &TcpListener, count: usize) -> Outcome {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..count {
            let (stream, _) = listener.accept().during("accepting")?;
            stream.set_read_timeout(Some(PATIENCE)).during("a limit")?;
            threads.push(scope.spawn(move || -> Outcome {
                let (mut reader, mut writer) = (stream.try_clone().during("sharing")?, stream);
                // All of it is read only when all has been said.
                let (bytes, end) = {
                    let mut first = [0; MESSAGE.len()];
                    reader.read_exact(&mut first).during("reading")?;
                    writer.write_all(&first).during("answering")?;
                    read_to_end(&mut reader)?
                };
                ensure!(end == End::Finished, "{end:?}");
                writer.write_all(&bytes).during("answering")?;
                writer.shutdown(Shutdown::Write).during("ending")
            }));
        }
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread panicked")?)
    })
}

fn chatty(place: &mut Place) -> Outcome {
    let listener = listen(place.server(), PORT)?;
    let refusals = |place: &Place| -> Outcome<f64> {
        let text = place.world.proxy(place.node()).metrics().during("metrics")?;
        let lines = text.lines().filter(|line| line.starts_with("adit_refusals_total{"));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    };
    let before = refusals(place)?;
    thread::scope(|scope| {
        let server = scope.spawn(|| echo_slowly(&listener, CHATTY));
        let mut clients = Vec::new();
        for _ in 0..CHATTY {
            let mut stream = place.connect()?;
            stream.set_nodelay(true).during("no delay")?;
            clients.push(scope.spawn(move || -> Outcome {
                let mut back = [0; MESSAGE.len()];
                stream.write_all(MESSAGE).during("sending")?;
                stream.read_exact(&mut back).during("reading")?;
                for _ in 1..MESSAGES {
                    stream.write_all(MESSAGE).during("sending")?;
                }
                stream.shutdown(Shutdown::Write).during("ending")?;
                let (rest, end) = read_to_end(&mut stream)?;
                ensure!(rest == MESSAGE.repeat(MESSAGES - 1) && end == End::Finished, "{end:?}");
                Ok(())
            }));
        }
        for client in clients {
            client.join().map_err(|_| "a client panicked")?.during("a client")?;
        }
        server.join().map_err(|_| "the server panicked")?.during("the server")
    })?;
    let after = refusals(place)?;
    ensure!((after - before).abs() < f64::EPSILON, "{} refusals", after - before);
    Ok(())
}

fn stalled(place: &mut Place) -> Outcome {
    let listener = listen(place.server(), PORT)?;
    // One that nobody reads, until it cannot send any more.
    let accepted = accept_one(&listener)?;
    let mut near = place.connect()?;
    near.write_all(b"x").during("sending")?;
    let far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
    near.set_nonblocking(true).during("not waiting")?;
    let chunk = vec![b'x'; 256 * 1024];
    // Until nothing was taken for so long that no window will open soon.
    let clock = Clock::system();
    let mut taken_at = clock.monotonic();
    while clock.monotonic() - taken_at < STOPPED {
        if near.write(&chunk).unwrap_or(0) > 0 {
            taken_at = clock.monotonic();
        } else {
            thread::yield_now();
        }
    }
    let accepted = accept_one(&listener)?;
    let other = place.connect()?;
    let other_far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
    let first = place.kind.lets_the_server_finish_first();
    thread::scope(|scope| {
        let server = scope.spawn(|| exchange(other_far, MUCH, first));
        exchange(other, MUCH, true).during("beside it")?;
        server.join().map_err(|_| "the server panicked")?.during("beside it, the server")
    })?;
    drop((near, far));
    Ok(())
}

fn goaway(place: &mut Place) -> Outcome {
    let app = App::start(place.server(), PORT, Service::Echo).during("a server")?;
    let mut streams = Vec::new();
    for _ in 0..LOADED {
        let mut stream = place.connect()?;
        echo(&mut stream, "before\n")?;
        streams.push(stream);
    }
    place.leave()?;
    if !place.kind.terminates() {
        place.world.wait_log("b", &["stopping"])?;
    }
    for stream in &mut streams {
        echo(stream, "meanwhile\n")?;
    }
    if place.kind.listens_on() {
        // What is new goes through another tunnel.
        for _ in 0..LOADED {
            echo_and_end(place.connect()?, "anew\n")?;
        }
    }
    for stream in streams {
        echo_and_end(stream, "to the end\n")?;
    }
    drop(app);
    Ok(())
}
