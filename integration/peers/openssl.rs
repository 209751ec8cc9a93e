//! The record layer and OpenSSL's, in both roles: key updates from either side, with and without
//! one asked for in return, and session tickets.

use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use adit::hbone::handshake::{Handshake, Keys};
use adit::hbone::record::{HEADER, Opened, Opener, PAYLOAD_MAX, Sealer, Secrets, record_len};
use adit::sys::child::kill_with_parent;
use rustls::version::TLS13;

use crate::ours;
use crate::place::write_pems;
use crate::world::peer::{Pki, tls};
use crate::world::{Context, Outcome, PATIENCE, TempDir, accept_one, ensure};

type Test = fn() -> Outcome;

pub(crate) const ALL: [(&str, Test); 3] = [
    ("our_client_takes_new_keys_every_seven_records", our_updates),
    ("our_client_follows_the_keys_of_its_server", their_updates_as_server),
    ("our_server_follows_the_keys_of_its_client", their_updates_as_client),
];

/// Records under one key, and lines that are exchanged.
const RECORDS_MAX: u64 = 7;
const LINES: usize = 100;
/// How often a program is told to take new keys.
const UPDATES: usize = 20;
/// Makes either program take new keys; in capitals it asks for ours, too.
const UPDATE: &str = "k\n";
const UPDATE_BOTH: &str = "K\n";

/// A program that is ended with this, and its standard streams.
struct OpenSsl {
    child: Child,
    input: ChildStdin,
    /// Its lines, of both its outputs.
    lines: Receiver<String>,
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl OpenSsl {
    fn start(arguments: &[&str], dir: &Path) -> Outcome<Self> {
        let (reader, output) = pipe().during("a pipe")?;
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(dir).stdin(Stdio::piped());
        command.stderr(output.try_clone().during("a pipe")?).stdout(output);
        kill_with_parent(&mut command);
        let mut child = command.spawn().during("starting openssl")?;
        let input = child.stdin.take().ok_or("no input")?;
        let (said, lines) = channel();
        // Ends with the program: nobody else has the other end.
        thread::spawn(move || {
            BufReader::new(reader)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| said.send(line))
        });
        Ok(Self { child, input, lines })
    }

    fn says(&mut self, text: &str) -> Outcome {
        self.input.write_all(text.as_bytes()).during("telling openssl")?;
        self.input.flush().during("telling openssl")
    }

    /// Reads its output up to a line.
    fn wait_line(&mut self, wanted: &str) -> Outcome {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.map_err(|error| format!("no {wanted:?} ({error}) after {seen:#?}"))?;
            if line == wanted {
                return Ok(());
            }
            seen.push(line);
        }
    }
}

/// A connection whose handshake is over.
struct Link {
    stream: TcpStream,
    sealer: Sealer,
    opener: Opener,
    wire: Vec<u8>,
}

impl Link {
    fn shake(mut stream: TcpStream, handshake: Handshake) -> Outcome<Self> {
        stream.set_read_timeout(Some(PATIENCE)).during("a limit")?;
        let Keys { role, secrets, rest } = ours::shake(&mut stream, handshake)?;
        let Secrets::Tls13 { sending, receiving } = secrets else {
            return Err("it is not TLS 1.3".to_owned());
        };
        let sealer = Sealer::new(sending, RECORDS_MAX).during("the keys")?;
        Ok(Self {
            stream,
            sealer,
            opener: Opener::new(receiving, role).during("the keys")?,
            wire: rest,
        })
    }

    /// Sends a text in one record, behind a key update if one is due.
    fn say(&mut self, text: &str) -> Outcome {
        let mut batch = vec![0; PAYLOAD_MAX];
        let front = self.sealer.due(&mut batch).during("a key update")?;
        let place = front + HEADER..front + HEADER + text.len();
        batch[place].copy_from_slice(text.as_bytes());
        let len = self.sealer.seal(&mut batch[front..], text.len()).during("sealing")?;
        self.stream.write_all(&batch[..front + len]).during("sending")
    }

    /// Reads a line, whatever else comes before it.
    fn hear(&mut self) -> Outcome<String> {
        let mut line = String::new();
        while !line.ends_with('\n') {
            line.push_str(&self.open_next()?);
        }
        Ok(line)
    }

    /// Reads until the peer has taken new keys so often; no data comes before.
    fn hear_update(&mut self, generation: u64) -> Outcome {
        while self.opener.state().generation < generation {
            let text = self.open_next()?;
            ensure!(text.is_empty(), "{text:?} instead of a key update");
        }
        Ok(())
    }

    /// The text of the next record; empty if it is for the record layer.
    fn open_next(&mut self) -> Outcome<String> {
        loop {
            let len = record_len(&self.wire).during("a record")?;
            if let Some(len) = len.filter(|len| *len <= self.wire.len()) {
                let mut record: Vec<u8> = self.wire.drain(..len).collect();
                match self.opener.open(&mut record).during("opening")? {
                    Opened::Data(text) => return String::from_utf8(text.to_vec()).during("text"),
                    Opened::UpdateAsked => self.sealer.ask_update(),
                    Opened::Nothing => {}
                    Opened::Closed => return Err("openssl has closed".to_owned()),
                }
                return Ok(String::new());
            }
            let mut buffer = [0; 4_096];
            let count = self.stream.read(&mut buffer).during("reading")?;
            ensure!(count > 0, "openssl has hung up");
            self.wire.extend_from_slice(&buffer[..count]);
        }
    }
}

/// Certificates in a folder, a port, and our side of TLS as client of what listens there.
struct Ground {
    dir: TempDir,
    pki: Pki,
    port: String,
}

impl Ground {
    fn new() -> Outcome<Self> {
        let (dir, pki) = (TempDir::new()?, Pki::foreign()?);
        write_pems(&pki, "spiffe://cluster.local/ns/a/sa/b", dir.path())?;
        // Nobody else takes it: every test has its own.
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).during("a port")?;
        let port = probe.local_addr().during("a port")?.port().to_string();
        Ok(Self { dir, pki, port })
    }

    fn server(&self, more: &[&str]) -> Outcome<OpenSsl> {
        let common = ["s_server", "-accept", &self.port, "-tls1_3", "-alpn", "h2"];
        let files = ["-cert", "cert.pem", "-key", "key.pem"];
        let mut server = OpenSsl::start(&[&common[..], &files, more].concat(), self.dir.path())?;
        server.wait_line("ACCEPT")?;
        Ok(server)
    }

    fn connect(&self) -> Outcome<Link> {
        let config = tls(None, &["h2"], &TLS13)?;
        let handshake = ours::client(&config, Ipv4Addr::LOCALHOST.into())?;
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port.parse().during("a port")?);
        Link::shake(TcpStream::connect(to).during("connecting")?, handshake)
    }
}

/// Every server of OpenSSL sends two tickets first.
fn our_updates() -> Outcome {
    let ground = Ground::new()?;
    let _server = ground.server(&["-rev"])?;
    let mut link = ground.connect()?;
    for number in 0..LINES {
        link.say(&format!("line {number}\n"))?;
        let backwards: String = format!("line {number}").chars().rev().collect();
        let heard = link.hear()?;
        ensure!(heard.trim_end() == backwards, "{heard:?} is not {backwards:?}");
    }
    let generations = link.sealer.state().generation;
    ensure!(generations >= LINES as u64 / RECORDS_MAX, "{generations} key updates");
    Ok(())
}

fn their_updates_as_server() -> Outcome {
    let ground = Ground::new()?;
    let mut server = ground.server(&[])?;
    let mut link = ground.connect()?;
    link.say("the first\n")?;
    server.wait_line("the first")?;
    for number in 0..UPDATES {
        server.says(if number % 2 == 0 { UPDATE } else { UPDATE_BOTH })?;
        // It takes a command only at the beginning of what it reads.
        link.hear_update(number as u64 + 1)?;
        server.says(&format!("line {number}\n"))?;
        let heard = link.hear()?;
        ensure!(heard == format!("line {number}\n"), "{number}: {heard:?}");
        link.say(&format!("answer {number}\n"))?;
        server.wait_line(&format!("answer {number}"))?;
    }
    generations(&link)
}

fn their_updates_as_client() -> Outcome {
    let ground = Ground::new()?;
    let listener = TcpListener::bind(format!("127.0.0.1:{}", ground.port)).during("listening")?;
    let to = format!("127.0.0.1:{}", ground.port);
    let arguments = ["s_client", "-connect", &to, "-tls1_3", "-alpn", "h2"];
    let files = ["-cert", "cert.pem", "-key", "key.pem", "-CAfile", "root.pem"];
    let mut client = OpenSsl::start(&[&arguments[..], &files].concat(), ground.dir.path())?;
    let stream = accept_one(&listener)?.join().map_err(|_| "it panicked")?.during("accepting")?;
    let shown = ground.pki.issue(&["spiffe://cluster.local/ns/a/sa/b"])?;
    let mut link = Link::shake(stream, ours::server(&*ground.pki.server(shown)?)?)?;
    link.say("the first\n")?;
    client.wait_line("the first")?;
    for number in 0..UPDATES {
        client.says(if number % 2 == 0 { UPDATE } else { UPDATE_BOTH })?;
        client.wait_line("KEYUPDATE")?;
        client.says(&format!("line {number}\n"))?;
        let heard = link.hear()?;
        ensure!(heard == format!("line {number}\n"), "{number}: {heard:?}");
        link.say(&format!("answer {number}\n"))?;
        client.wait_line(&format!("answer {number}"))?;
    }
    generations(&link)
}

/// Both sides have taken new keys all along.
fn generations(link: &Link) -> Outcome {
    let (ours, theirs) = (link.sealer.state().generation, link.opener.state().generation);
    ensure!(theirs == UPDATES as u64, "they took {theirs} new keys");
    ensure!(ours >= UPDATES as u64 / 2, "we took {ours} new keys");
    Ok(())
}
