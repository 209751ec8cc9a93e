//! A world in which one end of the tunnels is somebody else's.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use adit::cli::lab::{Pod, Proxy, ProxyPlan, Redirection};
use adit::report::dump::pem_text;
use nix::sys::signal::Signal;

use crate::hyper;
use crate::world::peer::{Pki, Shown};
use crate::world::{Context, Outcome, PATIENCE, PORT, World, connect};

/// Where clients of a near end connect to, on loopback.
const NEAR: u16 = 7_000;
pub(crate) const HBONE: u16 = 15_008;
/// Where Envoy takes orders.
const ENVOY_ADMIN: u16 = 9_901;
/// Lines of its log that are shown when something went wrong.
const LINES_SHOWN: usize = 12;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It terminates what our client opens.
    EnvoyTerminates,
    /// It opens what our server terminates.
    EnvoyOriginates,
    NodeTerminates,
    NodeOriginates,
    HyperTerminates,
    HyperOriginates,
}

/// What it speaks, and our proxies are told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Tls13,
    Tls12,
}

/// It, running, and the proxies.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) world: World,
    pub(crate) peer: Proxy,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::EnvoyTerminates,
        Self::EnvoyOriginates,
        Self::NodeTerminates,
        Self::NodeOriginates,
        Self::HyperTerminates,
        Self::HyperOriginates,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EnvoyTerminates => "envoy_terminates",
            Self::EnvoyOriginates => "envoy_originates",
            Self::NodeTerminates => "node_terminates",
            Self::NodeOriginates => "node_originates",
            Self::HyperTerminates => "hyper_terminates",
            Self::HyperOriginates => "hyper_originates",
        }
    }

    /// Whether it can be told what version to speak.
    pub(crate) fn speaks(self, version: Version) -> bool {
        version == Version::Tls13 || !matches!(self, Self::HyperTerminates | Self::HyperOriginates)
    }

    /// Whether the application at its far end may finish before the other one, and be heard. Envoy
    /// takes an end of the answer for the end of all.
    pub(crate) fn lets_the_server_finish_first(self) -> bool {
        !self.is_envoy()
    }

    /// Whether our reset is still one behind it: Envoy makes an ordinary end of it.
    pub(crate) fn carries_resets(self) -> bool {
        !self.is_envoy()
    }

    /// Whether a reset behind it is one for us: a server of `hyper` makes an ordinary end of it.
    pub(crate) fn tells_of_resets(self) -> bool {
        self != Self::HyperTerminates
    }

    /// Whether it takes new tunnels after it has said GOAWAY.
    pub(crate) fn listens_on(self) -> bool {
        matches!(self, Self::NodeTerminates | Self::HyperTerminates)
    }

    fn is_envoy(self) -> bool {
        matches!(self, Self::EnvoyTerminates | Self::EnvoyOriginates)
    }

    pub(crate) fn terminates(self) -> bool {
        matches!(self, Self::EnvoyTerminates | Self::NodeTerminates | Self::HyperTerminates)
    }
}

impl Version {
    pub(crate) const ALL: [Self; 2] = [Self::Tls13, Self::Tls12];

    /// Nothing newer, nothing older.
    fn as_envoy_says(self) -> &'static str {
        if self == Self::Tls13 { "TLSv1_3" } else { "TLSv1_2" }
    }

    fn as_node_says(self) -> &'static str {
        if self == Self::Tls13 { "TLSv1.3" } else { "TLSv1.2" }
    }
}

impl Place {
    pub(crate) fn new(kind: Kind, version: Version) -> Outcome<Self> {
        Self::of((kind, version), "cart")
    }

    /// It opens tunnels to this pod.
    pub(crate) fn asking(kind: Kind, pod: &str) -> Outcome<Self> {
        Self::of((kind, Version::Tls13), pod)
    }

    fn of((kind, version): (Kind, Version), asked: &str) -> Outcome<Self> {
        let mut world = match version {
            Version::Tls13 => World::new()?,
            Version::Tls12 => World::with_environment(&[("TLS12_ENABLED", "true")])?,
        };
        // In the mesh, but served by nobody of ours: whoever is at its port 15008 is its proxy.
        let pod = world.add_pod("b", "waypoint", "shop", Redirection::Ambient)?;
        world.publish()?;
        let (place, id) = if kind.terminates() {
            (pod, "spiffe://cluster.local/ns/shop/sa/waypoint")
        } else {
            (world.pod("legacy").clone(), "spiffe://cluster.local/ns/front/sa/legacy")
        };
        let dir = world.dir().join("peer");
        fs::create_dir(&dir).during("making a folder")?;
        write_pems(&Pki::of(world.dir())?, id, &dir)?;
        let (program, arguments) = command((kind, version), (&world, asked), id)?;
        let peer = Proxy::start(ProxyPlan {
            program,
            netns: place.netns,
            arguments,
            environment: Vec::new(),
            log: world.dir().join("peer.log"),
        });
        let peer = peer.during(&format!("starting {}", kind.name()))?;
        // No connection to try it: at a near end that would be a stream.
        let serves = |line: &str| line.contains("serving") || line.contains("main dispatch loop");
        peer.wait_log(0, PATIENCE, serves)
            .map_err(|error| format!("{error}; it says {:?}", peer.log()))?;
        Ok(Self { kind, world, peer })
    }

    /// The pod whose application is asked.
    pub(crate) fn server(&self) -> &Pod {
        self.world.pod(if self.kind.terminates() { "waypoint" } else { "cart" })
    }

    /// A connection through the tunnel to that application.
    pub(crate) fn connect(&self) -> Outcome<TcpStream> {
        if self.kind.terminates() {
            connect(self.world.pod("web"), (self.server().ipv4, PORT).into())
        } else {
            connect(self.world.pod("legacy"), (Ipv4Addr::LOCALHOST, NEAR).into())
        }
    }

    /// The node whose proxy is at our end.
    pub(crate) fn node(&self) -> &'static str {
        if self.kind.terminates() { "a" } else { "b" }
    }

    /// Makes the far end say GOAWAY, or our own if that is where streams arrive.
    pub(crate) fn leave(&self) -> Outcome {
        match self.kind {
            Kind::EnvoyTerminates => {
                let path = "/drain_listeners?graceful&skip_exit";
                self.peer.post(ENVOY_ADMIN, path).during("draining")?;
                Ok(())
            }
            Kind::NodeTerminates | Kind::HyperTerminates => {
                self.peer.signal(Signal::SIGUSR2).during("a signal")
            }
            Kind::EnvoyOriginates | Kind::NodeOriginates | Kind::HyperOriginates => {
                self.world.proxy("b").signal(Signal::SIGTERM).during("a signal")
            }
        }
    }

    /// An error with what both ends say.
    pub(crate) fn explain(&self, error: &str) -> String {
        let tail = |log: std::io::Result<String>| -> Vec<String> {
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LINES_SHOWN);
            lines[from..].iter().map(ToString::to_string).collect()
        };
        let ours = tail(self.world.proxy(self.node()).log());
        format!("{error}\nours: {ours:#?}\ntheirs: {:#?}", tail(self.peer.log()))
    }
}

/// Writes `root.pem`, and a certificate of this identity with its key, for a peer that reads files.
pub(crate) fn write_pems(pki: &Pki, identity: &str, dir: &Path) -> Outcome {
    let Shown { chain, key } = pki.issue(&[identity])?;
    for (name, label, der) in [
        ("root", "CERTIFICATE", &*pki.root),
        ("cert", "CERTIFICATE", &*chain[0]),
        ("key", "PRIVATE KEY", key.secret_der()),
    ] {
        let path = dir.join(format!("{name}.pem"));
        fs::write(path, pem_text(label, der)).during("writing a certificate")?;
    }
    Ok(())
}

/// The program that is the peer, and what it is told.
fn command(
    (kind, version): (Kind, Version),
    (world, asked): (&World, &str),
    id: &str,
) -> Outcome<(PathBuf, Vec<String>)> {
    let dir = world.dir().join("peer");
    let host = world.pod(asked).ipv4.to_string();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (application, near, hbone) = (PORT.to_string(), NEAR.to_string(), HBONE.to_string());
    let envoy = |config: &str| -> Outcome<_> {
        let path = dir.join("envoy.yaml");
        let config = config.replace("DIR", &text(&dir)).replace("HOST", &host);
        let config = config.replace("VERSION", version.as_envoy_says());
        fs::write(&path, config).during("writing its configuration")?;
        let rest = ["--concurrency", "1", "--disable-hot-restart", "-l", "info"];
        let first = ["-c".to_owned(), text(&path)];
        Ok((find("envoy")?, first.into_iter().chain(rest.map(str::to_owned)).collect()))
    };
    let tls = version.as_node_says().to_owned();
    let ourselves = || std::env::current_exe().during("finding this program");
    match kind {
        Kind::EnvoyTerminates => envoy(include_str!("envoy-server.yaml")),
        Kind::EnvoyOriginates => envoy(include_str!("envoy-client.yaml")),
        Kind::NodeTerminates => {
            Ok((find("node")?, vec![script("server"), text(&dir), tls, hbone, application]))
        }
        Kind::NodeOriginates => {
            let told = vec![script("client"), text(&dir), tls, near, host, application];
            Ok((find("node")?, told))
        }
        Kind::HyperTerminates => {
            let what = hyper::SERVER.to_owned();
            Ok((ourselves()?, vec![what, text(world.dir()), id.to_owned(), hbone, application]))
        }
        Kind::HyperOriginates => {
            let what = hyper::CLIENT.to_owned();
            let dir = text(world.dir());
            Ok((ourselves()?, vec![what, dir, id.to_owned(), near, host, application]))
        }
    }
}

fn script(name: &str) -> String {
    format!("{}/integration/peers/{name}.mjs", env!("CARGO_MANIFEST_DIR"))
}

/// Where a program is that a shell would find.
fn find(program: &str) -> Outcome<PathBuf> {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output();
    let found = found.during("looking for it")?;
    if !found.status.success() {
        return Err(format!("there is no {program} on the PATH: .ci/run installs it"));
    }
    let path = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    Path::new(&path).canonicalize().during(program)
}
