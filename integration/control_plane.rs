//! The real proxies and the control plane that tells them what the mesh is.

use std::net::SocketAddr;

use adit::cli::lab::{App, Service};

use crate::lifecycle::{CART_ID, WEB_ID, live};
use crate::world::control::CONTROL;
use crate::world::{
    Context, Outcome, PORT, VIP, World, connect, echo, echo_and_end, ensure, refused, until,
};

pub(crate) const TESTS: crate::Tests = &[
    ("the_mesh_is_what_kubernetes_yaml_says", from_yaml),
    ("a_control_plane_that_dies_is_missed_by_nobody", dies),
    ("a_restart_without_control_plane_serves_what_was_saved", saved),
    ("nothing_is_served_before_the_control_plane_has_spoken", late),
    ("on_demand_a_node_knows_what_it_asked_for", on_demand),
];

/// Who may call the cart, by service account in `front`.
fn allow(accounts: &[&str]) -> String {
    let principals: Vec<String> =
        accounts.iter().map(|account| format!("cluster.local/ns/front/sa/{account}")).collect();
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: callers, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: cart}}}}, action: ALLOW, \
         rules: [{{from: [{{source: {{principals: [{}]}}}}]}}]}}\n",
        principals.join(", ")
    )
}

/// All of it started, the mesh as `yaml` says beside the pods.
fn begin(yaml: &str) -> Outcome<World> {
    let mut world = World::of_manifests(yaml)?;
    world.start_control()?;
    for node in ["a", "b"] {
        world.start_proxy(node, node)?;
    }
    world.wait_ready()?;
    Ok(world)
}

fn service() -> SocketAddr {
    SocketAddr::new(VIP.0.parse().expect("an address"), VIP.1)
}

/// Waits for the end of a connection that is no longer allowed.
fn is_cut(stream: std::net::TcpStream) -> Outcome {
    let mut stream = stream;
    let (bytes, _) = crate::world::read_to_end(&mut stream)?;
    ensure!(bytes.is_empty(), "something came: {bytes:?}");
    Ok(())
}

fn from_yaml() -> Outcome {
    let mut world = begin(&allow(&["web", "intruder"]))?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    echo_and_end(connect(world.pod("web"), service())?, "by its service\n")?;
    world.wait_log("b", &["connection complete", WEB_ID, CART_ID])?;
    // Without an identity there is no principal.
    refused(world.pod("legacy"), world.server(false))?;
    let mut intruder = connect(world.pod("intruder"), service())?;
    echo(&mut intruder, "still allowed\n")?;
    let mut web = live(&world)?;
    world.write_manifests(&allow(&["web"]))?;
    is_cut(intruder)?;
    refused(world.pod("intruder"), service())?;
    echo(&mut web, "still\n")?;
    let dump = world.proxy("b").config_dump().during("the dump")?;
    let stream = &dump["controlPlane"];
    ensure!(stream["connected"] == true, "{stream}");
    for kind in ["Address", "Authorization"] {
        let rejected = &stream["types"][kind]["rejected"];
        ensure!(*rejected == serde_json::json!({}), "{kind}: {rejected}");
    }
    Ok(())
}

fn dies() -> Outcome {
    let mut world = begin(&allow(&["web", "intruder"]))?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let mut web = live(&world)?;
    let mut intruder = connect(world.pod("intruder"), service())?;
    echo(&mut intruder, "before\n")?;
    // Killed at once.
    drop(world.proxies.remove(CONTROL));
    for node in ["a", "b"] {
        world.wait_metric(node, "adit_xds_connected", |value| value < 0.5)?;
    }
    echo(&mut web, "meanwhile\n")?;
    echo_and_end(connect(world.pod("web"), service())?, "a new one\n")?;
    world.wait_ready()?;
    world.write_manifests(&allow(&["web"]))?;
    echo(&mut intruder, "nobody has told\n")?;
    world.start_control()?;
    is_cut(intruder)?;
    echo(&mut web, "after\n")?;
    for node in ["a", "b"] {
        world.wait_metric(node, "adit_xds_connected", |value| value > 0.5)?;
        world.wait_log(node, &["the control plane has answered"])?;
    }
    Ok(())
}

fn saved() -> Outcome {
    let mut world = World::of_manifests(&allow(&["web"]))?;
    let ca = world.dir().join("ca").to_string_lossy().into_owned();
    let start = |world: &mut World| {
        for node in ["a", "b"] {
            let path = world.dir().join(format!("{node}.snapshot"));
            let path = path.to_string_lossy().into_owned();
            // Certificates do not depend on the control plane here.
            let own = [("FAKE_CA", "true"), ("CA_ADDRESS", ""), ("DEV_CA_DIR", ca.as_str())];
            let kept = [("XDS_SNAPSHOT_PATH", path.as_str())];
            world.start_proxy_at((node, node), node, &[&own[..], &kept].concat())?;
        }
        world.wait_ready()
    };
    world.start_control()?;
    start(&mut world)?;
    for node in ["a", "b"] {
        world.wait_metric(node, "adit_xds_snapshot_saved_timestamp_seconds", |at| at > 0.0)?;
    }
    world.proxies.clear();
    start(&mut world)?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    echo_and_end(connect(world.pod("web"), service())?, "as it was\n")?;
    refused(world.pod("intruder"), service())?;
    let dump = world.proxy("b").config_dump().during("the dump")?;
    let stream = &dump["controlPlane"];
    ensure!(stream["restored"].is_string() && stream["connected"] == false, "{stream}");
    Ok(())
}

fn late() -> Outcome {
    let mut world = World::of_manifests("")?;
    for node in ["a", "b"] {
        world.start_proxy(node, node)?;
        world.wait_log(node, &["no control plane", "no root certificate"])?;
    }
    let not_ready = |node: &str| {
        let answer = world.proxy(node).get(15_021, "/healthz/ready");
        answer.err().map(|error| error.to_string()).unwrap_or_default()
    };
    until("it says what it waits for", || Ok(not_ready("b").contains("state manager")))?;
    world.start_control()?;
    world.wait_ready()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    echo_and_end(connect(world.pod("web"), service())?, "at last\n")?;
    world.wait_log("b", &["connection complete", WEB_ID, CART_ID])?;
    Ok(())
}

fn on_demand() -> Outcome {
    let mut world = World::of_manifests(&allow(&["web"]))?;
    world.start_control()?;
    for node in ["a", "b"] {
        world.start_proxy_at((node, node), node, &[("XDS_ON_DEMAND", "true")])?;
    }
    world.wait_ready()?;
    let names = |node: &str| -> Outcome<Vec<String>> {
        let dump = world.proxy(node).config_dump().during("the dump")?;
        let workloads = dump["workloads"].as_array().ok_or("no workloads")?;
        let name = |workload: &serde_json::Value| workload["name"].as_str().map(str::to_owned);
        Ok(workloads.iter().filter_map(name).collect())
    };
    ensure!(!names("a")?.contains(&"cart".to_owned()), "node a knows the cart already");
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    // By the address of a service and by that of a pod.
    echo_and_end(connect(world.pod("web"), service())?, "by its service\n")?;
    echo_and_end(connect(world.pod("web"), world.server(false))?, "by its pod\n")?;
    ensure!(names("a")?.contains(&"cart".to_owned()), "node a does not know the cart");
    world.wait_log("b", &["connection complete", WEB_ID, CART_ID])?;
    refused(world.pod("intruder"), service())?;
    // Who is outside the mesh is reached as ever.
    let outside = world.pod("legacy");
    let _app = App::start(outside, PORT, Service::Echo).during("a server outside")?;
    let legacy = SocketAddr::new(outside.ipv4.into(), PORT);
    echo_and_end(connect(world.pod("web"), legacy)?, "in plain text\n")?;
    // Without a control plane what is known is served, and what is not is refused.
    drop(world.proxies.remove(CONTROL));
    world.wait_metric("a", "adit_xds_connected", |value| value < 0.5)?;
    echo_and_end(connect(world.pod("web"), service())?, "meanwhile\n")?;
    refused(world.pod("web"), SocketAddr::new([198, 51, 100, 7].into(), PORT))?;
    world.wait_log("a", &["lookup_unanswered", "198.51.100.7"])?;
    world.start_control()?;
    world.wait_metric("a", "adit_xds_connected", |value| value > 0.5)?;
    echo_and_end(connect(world.pod("web"), service())?, "after\n")
}
