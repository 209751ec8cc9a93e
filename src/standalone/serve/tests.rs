//! The whole over loopback: a gRPC client of the generated code, TLS, tokens, reloads.

mod client;
mod upstream;

use std::fs;
use std::time::Duration;

use tokio::time::timeout;
use tonic::Code;

use super::*;
use client::{Client, Stream};

/// Everything a test waits for comes within this time.
const PATIENCE: Duration = Duration::from_secs(20);

const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
";

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-web, namespace: shop}
spec: {rules: [{from: [{source: {serviceAccounts: [web]}}]}]}
";

const JOB: &str = "{apiVersion: batch/v1, kind: Job, metadata: {name: once, namespace: shop}}\n";

fn pod(name: &str, node: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{nodeName: {node}, serviceAccountName: {name}}}\nstatus: {{podIP: {ip}}}\n"
    )
}

/// A control plane on loopback, with folders of its own that go with it.
struct World {
    folder: PathBuf,
    address: SocketAddr,
    plaintext: SocketAddr,
    _tasks: JoinSet<()>,
}

impl World {
    async fn start(name: &str, yaml: &str) -> Self {
        let unique = format!("adit-control-{name}-{}-{:x}", std::process::id(), fastrand::u64(..));
        let folder = std::env::temp_dir().canonicalize().unwrap().join(unique);
        fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        fs::create_dir(folder.join("yaml")).unwrap();
        fs::write(folder.join("yaml/mesh.yaml"), yaml).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings {
            manifests: folder.join("yaml"),
            listen: any,
            plaintext: any,
            ca_dir: folder.join("ca"),
            trust_domain: "corp.example".into(),
        };
        let control = Control::start(settings, Clock::system()).await.unwrap();
        let (address, plaintext) = (control.address, control.plaintext);
        let mut tasks = JoinSet::new();
        tasks.spawn(control.run());
        Self { folder, address, plaintext, _tasks: tasks }
    }

    fn write(&self, yaml: &str) {
        let next = self.folder.join("yaml/next");
        fs::write(&next, yaml).unwrap();
        fs::rename(next, self.folder.join("yaml/mesh.yaml")).unwrap();
    }

    fn token(&self, node: &str) -> String {
        fs::read_to_string(self.folder.join("ca/tokens").join(node)).unwrap()
    }

    async fn client(&self, token: Option<String>) -> Client {
        let root = fs::read(self.folder.join("ca/root-cert.pem")).unwrap();
        Client::tls(self.address, &root, token).await
    }

    async fn status(&self) -> serde_json::Value {
        let body = client::get(self.plaintext, "/status.json").await;
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until the status page says so.
    async fn status_with(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let found = async {
            loop {
                let status = self.status().await;
                if wanted(&status) {
                    return status;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, found).await.expect("the status page says it in time")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

async fn next(stream: &mut Stream) -> (Vec<String>, Vec<String>) {
    let response = timeout(PATIENCE, stream.next()).await.expect("an answer in time").unwrap();
    stream.acknowledge(&response, None).await;
    let names = response.resources.into_iter().map(|resource| resource.name).collect();
    (names, response.removed_resources)
}

#[tokio::test]
async fn a_proxy_is_served_and_told_of_changes() {
    let yaml = format!("{NAMESPACE}{}", pod("web", "node-a", "10.0.0.1"));
    let world = World::start("served", &yaml).await;
    let mut client = world.client(Some(world.token("node-a"))).await;
    let mut stream = client.stream("node-a").await.unwrap();
    fs::write(world.folder.join("ca/tokens/node-a"), "as it was").unwrap();
    let pod_web = "Kubernetes//Pod/shop/web".to_owned();
    assert_eq!(next(&mut stream).await, (vec![pod_web.clone()], vec![]));
    assert_eq!(next(&mut stream).await, (vec![], vec![]));

    // Only what changed, and both kinds of it.
    world.write(&format!("{yaml}{}---{POLICY}", pod("db", "node-b", "10.0.0.2")));
    let pod_db = "Kubernetes//Pod/shop/db".to_owned();
    assert_eq!(next(&mut stream).await, (vec![pod_db.clone()], vec![]));
    assert_eq!(next(&mut stream).await, (vec!["shop/only-web".to_owned()], vec![]));
    let acknowledged = |status: &serde_json::Value| {
        let kinds = status["proxies"][0]["resources"].as_array().cloned().unwrap_or_default();
        kinds.len() == 2 && kinds.iter().all(|kind| kind["acknowledged"] == 2)
    };
    let status = world.status_with(acknowledged).await;
    assert_eq!(status["proxies"][0]["token_of"], "node-a");
    assert_eq!(status["proxies"][0]["node"], "node-a");
    assert_eq!(status["addresses"], 2);

    // What cannot be used changes nothing, and is told with its place.
    world.write(&format!("{yaml}---\nkind: Pod\n"));
    let status = world.status_with(|status| !status["error"].is_null()).await;
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("mesh.yaml:12: an object has an apiVersion and a kind"), "{error}");
    assert_eq!(status["generation"], 2);

    // What is not served is told too when nothing else changes.
    world.write(&format!("{yaml}{}---{POLICY}---\n{JOB}", pod("db", "node-b", "10.0.0.2")));
    let told = |status: &serde_json::Value| status["not_served"] != serde_json::json!([]);
    let status = world.status_with(told).await;
    assert!(status["not_served"][0].as_str().unwrap().contains("Job"), "{status}");
    assert_eq!((&status["generation"], &status["error"]), (&2.into(), &serde_json::Value::Null));

    // A refusal is kept for people to see, and the page is safe to look at.
    world.write(&yaml);
    let response = timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
    assert_eq!(response.removed_resources, [pod_db]);
    stream.acknowledge(&response, Some("<b>no</b>")).await;
    let refused = |status: &serde_json::Value| status["proxies"][0]["resources"][0]["nacks"] == 1;
    world.status_with(refused).await;
    let page = client::get(world.plaintext, "/").await;
    assert!(page.contains("&lt;b&gt;no") && !page.contains("<b>no"), "{page}");
    drop((stream, client));
    world.status_with(|status| status["proxies"] == serde_json::json!([])).await;
    // A token is written when its node appears, and left alone: its proxy may be reading it.
    assert_eq!(world.token("node-a"), "as it was");
    assert_ne!(world.token("node-b"), "");
}

#[tokio::test]
async fn certificates_are_for_pods_of_the_callers_node() {
    let yaml = format!(
        "{NAMESPACE}{}{}",
        pod("web", "node-a", "10.0.0.1"),
        pod("db", "node-b", "10.0.0.2")
    );
    let world = World::start("certificates", &yaml).await;
    let web = "spiffe://corp.example/ns/shop/sa/web";
    let check = async |token: Option<String>, asks: &str, csr: &str, expected: Result<(), Code>| {
        let mut client = world.client(token).await;
        let got = client.certificate(asks, csr, 3600).await;
        assert_eq!(got.as_ref().map(|_| ()).map_err(tonic::Status::code), expected, "{asks} {csr}");
        got.unwrap_or_default()
    };
    let token = || Some(world.token("node-a"));
    let chain = check(token(), web, web, Ok(())).await;
    assert_eq!(chain.len(), 2);
    let root = fs::read_to_string(world.folder.join("ca/root-cert.pem")).unwrap();
    assert_eq!(chain[1].lines().collect::<Vec<_>>(), root.lines().collect::<Vec<_>>());
    let refused = Err(Code::Unauthenticated);
    let db = "spiffe://corp.example/ns/shop/sa/db";
    check(token(), db, db, refused).await;
    check(token(), "spiffe://other/ns/shop/sa/web", web, refused).await;
    check(token(), "web", web, refused).await;
    check(None, web, web, refused).await;
    check(Some(world.token("node-b")), web, web, refused).await;
    check(Some(world.token("node-a").replace("node-a", "node-b")), db, db, refused).await;
    check(token(), web, db, Err(Code::InvalidArgument)).await;
    let mut client = world.client(token()).await;
    let long = client.certificate(web, web, 91 * 86_400).await;
    assert_eq!(long.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stream_is_for_the_tokens_node() {
    let world =
        World::start("streams", &format!("{NAMESPACE}{}", pod("w", "node-a", "10.0.0.1"))).await;
    let first = async |mut client: Client, node: &str| {
        let mut stream = client.stream(node).await?;
        timeout(PATIENCE, stream.next()).await.unwrap().map(|_| ())
    };
    let code = |result: Result<(), tonic::Status>| result.map_err(|status| status.code());
    let token = world.token("node-a");
    assert_eq!(code(first(world.client(Some(token.clone())).await, "node-a").await), Ok(()));
    let other = first(world.client(Some(token)).await, "node-b").await;
    assert_eq!(code(other), Err(Code::PermissionDenied));
    let nobody = first(world.client(None).await, "node-a").await;
    assert_eq!(code(nobody), Err(Code::Unauthenticated));
    // The plaintext port asks for no token, but does not take a false one, and never issues.
    let plain = async |token| Client::plain(world.plaintext, token).await;
    assert_eq!(code(first(plain(None).await, "node-a").await), Ok(()));
    let forged = first(plain(Some("forged".to_owned())).await, "node-a").await;
    assert_eq!(code(forged), Err(Code::Unauthenticated));
    let web = "spiffe://corp.example/ns/shop/sa/w";
    let issued = plain(None).await.certificate(web, web, 60).await;
    assert_eq!(issued.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn what_cannot_be_used_does_not_start() {
    let world = World::start("start", NAMESPACE).await;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = Settings {
        manifests: world.folder.join("absent"),
        listen: any,
        plaintext: any,
        ca_dir: world.folder.join("ca"),
        trust_domain: "corp.example".into(),
    };
    let check = async |settings: Settings, part: &str| {
        let error = Control::start(settings, Clock::system()).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    check(settings.clone(), "absent: No such file").await;
    let empty = Settings { manifests: world.folder.join("ca"), ..settings.clone() };
    check(empty, "no *.yaml in this folder").await;
    let taken =
        Settings { manifests: world.folder.join("yaml"), listen: world.address, ..settings };
    check(taken, "cannot listen on").await;
}
