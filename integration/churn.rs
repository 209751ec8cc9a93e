//! Change under traffic: policies, pods and agents come and go while connections live.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use adit::cli::lab::{App, Pod, Redirection, Service};

use crate::world::control::{ALLOW_WEB, DENY_EVERYBODY_DRY_RUN};
use crate::world::{
    Context, End, Outcome, PATIENCE, PORT, World, connect, echo, echo_and_end, ensure, read_to_end,
    refused, reset,
};

pub(crate) const TESTS: crate::Tests = &[
    ("a_policy_change_cuts_what_it_forbids_and_nothing_else", policy_change),
    ("a_policy_that_has_not_arrived_refuses", policy_unknown),
    ("a_newly_selected_policy_cuts_live_connections", newly_selected),
    ("a_missing_peer_authentication_refuses_plaintext_only", missing_strict),
    ("dry_run_changes_nothing", dry_run),
    ("an_agent_may_restart_under_traffic", agent_restart),
    ("pods_come_and_go_under_traffic", pods_come_and_go),
    ("a_pod_that_left_is_cut_at_once", pod_removed),
];

const DENY_ALL: &str = "- {name: nobody, namespace: shop, scope: WorkloadSelector, action: Deny, \
    dryRun: false, rules: [[]]}\n";
/// Short connections one after another, until told to stop.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<Outcome>>,
}

impl Traffic {
    pub(crate) fn start(pod: &Pod, to: SocketAddr) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (pod, stopped, count) = (pod.clone(), Arc::clone(&stop), Arc::clone(&done));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                echo_and_end(connect(&pod, to)?, "once more\n")
                    .during(&format!("connection {number}"))?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { stop, done, thread: Some(thread) }
    }

    /// Waits until this many more connections went through.
    pub(crate) fn go_on(&self, more: u64) -> Outcome {
        let target = self.done.load(Ordering::Relaxed) + more;
        while self.done.load(Ordering::Relaxed) < target {
            ensure!(!self.failed(), "the traffic has stopped");
            thread::yield_now();
        }
        Ok(())
    }

    fn failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    pub(crate) fn finish(mut self) -> Outcome<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("finished twice")?;
        thread.join().map_err(|_| "the traffic panicked")??;
        Ok(self.done.load(Ordering::Relaxed))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn live(world: &World, pod: &str) -> Outcome<TcpStream> {
    let mut stream = connect(world.pod(pod), world.server(false))?;
    echo(&mut stream, "alive\n")?;
    Ok(stream)
}

fn policy_change() -> Outcome {
    let mut world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let traffic = Traffic::start(world.pod("web"), world.server(false));
    traffic.go_on(5)?;
    let mut allowed = live(&world, "web")?;
    let mut forbidden = live(&world, "intruder")?;
    let mut plaintext = live(&world, "legacy")?;
    world.set_policies(ALLOW_WEB)?;
    for stream in [&mut forbidden, &mut plaintext] {
        let seen = read_to_end(stream)?;
        ensure!(seen == (Vec::new(), End::Reset), "a forbidden connection saw {seen:?}");
    }
    world.wait_log("b", &["policy_changed: allow policies exist, but none allowed"])?;
    echo(&mut allowed, "still allowed\n")?;
    traffic.go_on(5)?;
    traffic.finish()?;
    Ok(())
}

fn policy_unknown() -> Outcome {
    let mut world = World::of_file()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let mut before = live(&world, "web")?;
    world.set_file("", &[("cart", &["shop/not-there"])])?;
    refused(world.pod("web"), world.server(false))?;
    world.wait_log("b", &["policy_unknown: policy shop/not-there has not arrived"])?;
    let seen = read_to_end(&mut before)?;
    ensure!(seen == (Vec::new(), End::Reset), "a live connection saw {seen:?}");
    world.wait_log("b", &["policy_changed: policy shop/not-there has not arrived"])?;
    let counted = world.metric("b", "adit_policy_unknown_total")?;
    ensure!(counted >= 1.0, "counted {counted}");
    // It arrives, and all is well again.
    let arrives = "- {name: not-there, namespace: shop, scope: WorkloadSelector, action: Allow, \
        dryRun: false, rules: [[]]}\n";
    world.set_file(arrives, &[("cart", &["shop/not-there"])])?;
    echo_and_end(connect(world.pod("web"), world.server(false))?, "arrived\n")
}

fn newly_selected() -> Outcome {
    let mut world = World::of_file()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    // The policy is known, but selects nobody.
    world.set_file(DENY_ALL, &[])?;
    let mut stream = live(&world, "web")?;
    // Only the workload changes.
    world.set_file(DENY_ALL, &[("cart", &["shop/nobody"])])?;
    let seen = read_to_end(&mut stream)?;
    ensure!(seen == (Vec::new(), End::Reset), "saw {seen:?}");
    world.wait_log("b", &["policy_changed: explicitly denied by: shop/nobody"])?;
    Ok(())
}

fn missing_strict() -> Outcome {
    let mut world = World::of_file()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    world.set_file("", &[("cart", &["shop/converted_peer_authentication_p"])])?;
    echo_and_end(connect(world.pod("web"), world.server(false))?, "mutual TLS goes on\n")?;
    refused(world.pod("legacy"), world.server(false))?;
    world.wait_log("b", &["policy_denied", "shop/converted_peer_authentication_p"])?;
    Ok(())
}

fn dry_run() -> Outcome {
    let mut world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    world.set_policies(DENY_EVERYBODY_DRY_RUN)?;
    echo_and_end(connect(world.pod("web"), world.server(false))?, "allowed\n")?;
    world.wait_log("b", &["\tpolicy\tdry run", "shop/nobody", "would=\"deny\""])?;
    Ok(())
}

fn agent_restart() -> Outcome {
    let mut world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let mut stream = live(&world, "web")?;
    let traffic = Traffic::start(world.pod("web"), world.server(false));
    traffic.go_on(3)?;
    for node in ["a", "b"] {
        let agent = world.agents.get_mut(node).ok_or("no agent")?;
        agent.stop();
        world.wait_log(node, &["the node agent closed the session"])?;
        traffic.go_on(3)?;
        let agent = world.agents.get_mut(node).ok_or("no agent")?;
        agent.restart().during("restarting an agent")?;
        ensure!(agent.wait_served(1, PATIENCE), "the proxy of {node} does not come back");
    }
    // What the agent says after its restart counts.
    let late = world.add_pod("a", "late", "front", Redirection::Ambient)?;
    world.publish()?;
    world.agents["a"].add(&late).during("adding a pod")?;
    echo_and_end(connect(&late, world.server(false))?, "late\n")?;
    echo(&mut stream, "still alive\n")?;
    traffic.go_on(3)?;
    traffic.finish()?;
    Ok(())
}

fn pods_come_and_go() -> Outcome {
    let mut world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let traffic = Traffic::start(world.pod("web"), world.server(false));
    for round in 0..10 {
        let name = format!("guest{round}");
        let guest = world.add_pod("a", &name, "front", Redirection::Ambient)?;
        world.publish()?;
        world.agents["a"].add(&guest).during("adding a pod")?;
        echo_and_end(connect(&guest, world.server(false))?, "guest\n")?;
        let identity = format!("src.identity=\"spiffe://cluster.local/ns/front/sa/{name}\"");
        world.wait_log("b", &["connection complete", &identity])?;
        world.agents["a"].del(&guest.uid).during("removing a pod")?;
        world.lab.remove_pod(&name);
        world.publish()?;
    }
    traffic.go_on(3)?;
    traffic.finish()?;
    let pods = world.metric("a", "workload_manager_active_proxy_count")?;
    ensure!((pods - 2.0).abs() < f64::EPSILON, "{pods} pods are served");
    let dump = world.proxy("a").config_dump().during("reading the dump")?;
    let certificates = dump["certificates"].as_array().map_or(0, Vec::len);
    ensure!(certificates == 2, "{certificates} certificates are left");
    Ok(())
}

fn pod_removed() -> Outcome {
    let world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let mut stream = live(&world, "intruder")?;
    let mut other = live(&world, "web")?;
    let uid = world.pod("intruder").uid.clone();
    world.agents["a"].del(&uid).during("removing a pod")?;
    let mut byte = [0];
    ensure!(stream.read(&mut byte).is_err(), "the connection of a removed pod goes on");
    world.wait_log("a", &["connection complete", "src.workload=\"intruder\"", "pod_removed"])?;
    echo(&mut other, "the other pod goes on\n")?;
    other.write_all(b"x").during("sending")?;
    reset(other)
}
