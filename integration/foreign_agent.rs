//! A node agent that is not ours, given only the socket and the messages of the protocol.

use std::net::TcpListener;
use std::os::fd::AsFd;

use adit::cli::lab::{App, Pod, Redirection, Service};

use crate::world::raw_agent::{RawAgent, RawSession, add, del, keep, snapshot_sent};
use crate::world::{
    Context, Outcome, PATIENCE, PORT, World, connect, echo, echo_and_end, ensure, listen, until,
};

pub(crate) const TESTS: crate::Tests = &[
    ("pods_come_from_any_agent", hand_over),
    ("what_is_kept_goes_on_and_what_is_not_named_ends", snapshot_decides),
    ("a_pod_that_cannot_be_served_is_tried_again", retry),
];

const READINESS: u16 = 15021;

/// Hands a pod over as the agent of another project would.
fn hand_over_pod(session: &RawSession, pod: &Pod) -> Outcome<Result<(), String>> {
    let plan = &pod.plan;
    let message = add(&pod.uid, &plan.name, &plan.namespace, &plan.service_account);
    session.tell(&message, &[pod.netns.fd().as_fd()])
}

fn readiness(world: &World) -> Outcome<String> {
    match world.proxy("b").get(READINESS, "/healthz/ready") {
        Ok(body) => Ok(body),
        Err(error) => Ok(error.to_string()),
    }
}

/// A proxy that has never seen another agent than this one.
fn fresh_proxy(world: &mut World) -> Outcome<(RawAgent, RawSession)> {
    let proxy = world.proxies.remove("b").ok_or("no proxy")?;
    let status = proxy.terminate(PATIENCE).during("stopping the proxy")?;
    ensure!(status.success(), "the proxy ended with {status}");
    let agent = world.foreign_agent("b")?;
    world.start_proxy("b", "b")?;
    let session = agent.accept()?;
    Ok((agent, session))
}

fn hand_over() -> Outcome {
    let mut world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let (_agent, session) = fresh_proxy(&mut world)?;
    hand_over_pod(&session, world.pod("cart"))?.during("the proxy refuses")?;
    // Its certificate comes meanwhile.
    let pending = "status 500: not ready, pending: workload proxy manager";
    until("only the snapshot is missing", || Ok(readiness(&world)? == pending))?;
    session.order(&snapshot_sent(), &[])?;
    world.wait_ready()?;
    echo_and_end(connect(world.pod("web"), world.server(false))?, "handed over\n")?;
    world.wait_log("b", &["connection complete", "dst.workload=\"cart\"", "inbound"])?;

    // One that comes later, with both directions of traffic.
    let guest = world.add_pod("b", "guest", "shop", Redirection::Ambient)?;
    world.publish()?;
    hand_over_pod(&session, &guest)?.during("the proxy refuses")?;
    hand_over_pod(&session, &guest)?.during("twice is once")?;
    let _guest_app = App::start(&guest, PORT, Service::Echo).during("a server")?;
    let to = (guest.ipv4, PORT).into();
    echo_and_end(connect(world.pod("web"), to)?, "to the guest\n")?;
    let mut live = connect(&guest, world.server(false))?;
    echo(&mut live, "from the guest\n")?;
    world.wait_log("b", &["pod started", "guest"])?;

    session.order(&del(&guest.uid), &[])?;
    ensure!(echo(&mut live, "still there?\n").is_err(), "the connection of a deleted pod goes on");
    let again = guest.connect(world.server(false), PATIENCE);
    ensure!(again.is_err(), "a deleted pod still has an outbound listener");
    session.order(&del(&guest.uid), &[]).during("deleting what is gone")?;
    echo_and_end(connect(world.pod("web"), world.server(false))?, "others go on\n")
}

fn snapshot_decides() -> Outcome {
    let mut world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let guest = world.add_pod("b", "guest", "shop", Redirection::Ambient)?;
    world.publish()?;
    world.agents["b"].add(&guest).during("adding a pod")?;
    let mut of_cart = connect(world.pod("web"), world.server(false))?;
    let mut of_guest = connect(&guest, world.server(false))?;
    echo(&mut of_cart, "before\n")?;
    echo(&mut of_guest, "before\n")?;
    let agent = world.foreign_agent("b")?;
    let session = agent.accept()?;
    // Nothing ends before the snapshot is whole.
    session.order(&keep(&world.pod("cart").uid), &[])?;
    echo(&mut of_guest, "not yet\n")?;
    session.order(&snapshot_sent(), &[])?;
    ensure!(echo(&mut of_guest, "gone\n").is_err(), "a pod that is not named goes on");
    echo(&mut of_cart, "kept\n")?;
    world.wait_ready()
}

fn retry() -> Outcome {
    let mut world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let (_agent, session) = fresh_proxy(&mut world)?;
    // Somebody in the pod has the port for himself.
    let occupied: TcpListener = listen(world.pod("cart"), 15008)?;
    let refused = hand_over_pod(&session, world.pod("cart"))?;
    let text = refused.err().ok_or("a pod without listeners was accepted")?;
    ensure!(text.contains("15008"), "the error is {text:?}");
    session.order(&snapshot_sent(), &[])?;
    let pending = "workload_manager_pending_proxy_count";
    world.wait_metric("b", pending, |pods| (pods - 1.0).abs() < f64::EPSILON)?;
    let body = readiness(&world)?;
    ensure!(
        body.ends_with("pending: identity, workload proxy manager"),
        "with a pod pending: {body}"
    );
    drop(occupied);
    world.wait_ready()?;
    echo_and_end(connect(world.pod("web"), world.server(false))?, "at last\n")?;
    world.wait_metric("b", pending, |pods| pods.abs() < f64::EPSILON)?;
    Ok(())
}
