//! The real proxies and certificates that are revoked.

use std::fs;
use std::path::PathBuf;

use adit::cli::lab::{App, Service};
use rustls::version::TLS13;

use crate::lifecycle::{CART_ID, WEB_ID, live};
use crate::world::peer::{Pki, Tunnel, echo as echo_in, handshake, on_runtime, tls, within};
use crate::world::{
    Context, Outcome, PORT, World, connect, echo, echo_and_end, ensure, read_to_end, refused, until,
};

pub(crate) const TESTS: crate::Tests = &[
    ("who_is_revoked_is_cut_off_and_kept_out", revoked),
    ("without_a_list_nobody_new_comes_in_if_so_told", unknown),
];

const HBONE: u16 = 15008;
const SERIAL: u64 = 7_001;

/// A world whose proxies look into a file.
struct Scene {
    world: World,
    pki: Pki,
    path: PathBuf,
    _app: App,
}

impl Scene {
    fn new(first: Option<Vec<u8>>, unknown: &str) -> Outcome<Self> {
        let mut world = World::new()?;
        let path = world.dir().join("ca-crl.pem");
        if let Some(first) = first {
            fs::write(&path, first).during("writing the lists")?;
        }
        let pki = Pki::of(world.dir())?;
        let text = path.to_string_lossy().into_owned();
        for node in ["a", "b"] {
            world.proxies.remove(node);
            let settings = [("CRL_PATH", text.as_str()), ("CRL_UNKNOWN", unknown)];
            world.start_proxy_at((node, node), node, &settings)?;
        }
        world.wait_ready()?;
        let app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
        Ok(Self { world, pki, path, _app: app })
    }

    /// Puts other lists in the place of those that are there, and waits until all have seen them.
    fn replace(&self, bytes: &[u8]) -> Outcome {
        let loads = |node: &str| -> Outcome<(usize, usize)> {
            let log = self.world.proxy(node).log().during("the log")?;
            let count = |text: &str| log.matches(text).count();
            Ok((count("lists are in force"), count("lists are not used")))
        };
        let before = [loads("a")?, loads("b")?];
        let new = self.path.with_extension("new");
        fs::write(&new, bytes).during("writing the lists")?;
        fs::rename(new, &self.path).during("replacing the lists")?;
        until("the lists are read", || {
            Ok([loads("a")?, loads("b")?].iter().zip(before).all(|(now, then)| *now != then))
        })
    }

    async fn peer(&self) -> Outcome<Tunnel> {
        let shown = self.pki.issue_as(&[WEB_ID], (-3_600, 3_600), SERIAL)?;
        let config = tls(Some(&shown), &["h2"], &TLS13)?;
        Tunnel::open(self.world.pod("legacy"), self.hbone(), &config).await
    }

    /// TLS of the same peer, which must come to nothing.
    async fn rejected(&self) -> Outcome {
        use tokio::io::AsyncReadExt;
        let shown = self.pki.issue_as(&[WEB_ID], (-3_600, 3_600), SERIAL)?;
        let config = tls(Some(&shown), &["h2"], &TLS13)?;
        let pod = self.world.pod("legacy");
        let Ok(mut stream) = handshake(pod, self.hbone(), &config).await else { return Ok(()) };
        let got = within(stream.read(&mut [0; 1])).await?;
        ensure!(!matches!(got, Ok(1..)), "the peer was let in");
        Ok(())
    }

    fn hbone(&self) -> std::net::SocketAddr {
        (self.world.pod("cart").ipv4, HBONE).into()
    }

    /// The serial number of the certificate that a node shows for an identity.
    fn serial(&self, node: &str, id: &str) -> Outcome<u128> {
        let dump = self.world.proxy(node).config_dump().during("the dump")?;
        let list = dump["certificates"].as_array().cloned().unwrap_or_default();
        let found = list.iter().find(|certificate| certificate["identity"] == id);
        let serial = found.and_then(|found| found["certChain"][0]["serialNumber"].as_str());
        serial.ok_or("no certificate")?.parse().during("the serial number")
    }
}

fn revoked() -> Outcome {
    let scene = Scene::new(None, "allow")?;
    let world = &scene.world;
    scene.replace(&scene.pki.revokes(&[])?)?;
    let mut web = live(world)?;
    on_runtime(async {
        let tunnel = scene.peer().await?;
        let authority = world.server(false).to_string();
        let (status, carried) = tunnel.connect(&authority).await?;
        let mut carried = carried.ok_or_else(|| format!("the status is {status}"))?;
        echo_in(&mut carried, "still good\n").await?;
        scene.replace(&scene.pki.revokes(&[SERIAL.into()])?)?;
        let _ = tunnel.ended().await?;
        ensure!(echo_in(&mut carried, "?").await.is_err(), "the stream goes on");
        scene.rejected().await
    })?;
    world.wait_log("b", &["connection complete", "peer_revoked", WEB_ID, CART_ID])?;
    world.wait_log("b", &["peer_revoked", "the peer's certificate is revoked"])?;
    let rejections = |reporter: &str| {
        let name = format!("istio_crl_policy_rejections_total{{reporter=\"{reporter}\"}}");
        move |world: &World, node: &str| world.metric(node, &name)
    };
    let count = rejections("destination")(world, "b")?;
    ensure!((1.9..=2.1).contains(&count), "{count} rejections");
    // Nobody else has noticed.
    echo(&mut web, "as ever\n")?;
    // The server's certificate is revoked: who has called it hangs up, and nobody calls again.
    let serial = scene.serial("b", CART_ID)?;
    scene.replace(&scene.pki.revokes(&[serial])?)?;
    let (bytes, _) = read_to_end(&mut web)?;
    ensure!(bytes.is_empty(), "something came: {bytes:?}");
    refused(world.pod("web"), world.server(false))?;
    world.wait_log("a", &["connection complete", "peer_revoked", WEB_ID, CART_ID])?;
    ensure!(rejections("source")(world, "a")? > 1.9, "rejections were not counted");
    // What cannot be read replaces nothing.
    scene.replace(b"-----BEGIN X509 CRL-----\ngarbage\n-----END X509 CRL-----\n")?;
    let dump = world.proxy("a").config_dump().during("the dump")?;
    ensure!(dump["revocation"]["lists"] == 1, "{}", dump["revocation"]);
    ensure!(dump["revocation"]["error"].is_string(), "{}", dump["revocation"]);
    refused(world.pod("web"), world.server(false))?;
    // And back.
    scene.replace(&scene.pki.revokes(&[])?)?;
    echo_and_end(connect(world.pod("web"), world.server(false))?, "again\n")
}

fn unknown() -> Outcome {
    let scene = Scene::new(None, "refuse")?;
    let world = &scene.world;
    on_runtime(scene.rejected())?;
    world.wait_log("b", &["revocation_unknown", "no revocation list in force"])?;
    refused(world.pod("web"), world.server(false))?;
    scene.replace(&scene.pki.revokes(&[])?)?;
    let mut web = live(world)?;
    // Nobody new comes in, and who is in stays.
    scene.replace(b"")?;
    on_runtime(scene.rejected())?;
    echo(&mut web, "still here\n")
}
