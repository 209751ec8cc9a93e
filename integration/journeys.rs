//! Traffic through the whole: allowed, refused, both families, ends and resets.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};

use adit::cli::lab::{App, Service};

use crate::world::control::{ALLOW_WEB, DENY_INTRUDER, STRICT};
use crate::world::{
    Context, End, Outcome, PORT, VIP, World, accept_one, connect, echo_and_end, ensure, listen,
    read_to_end, refused, reset,
};

pub(crate) const TESTS: crate::Tests = &[
    ("allowed_with_the_identity_the_server_side_saw", allowed),
    ("the_application_sees_the_original_source", original_source),
    ("a_service_address_leads_to_its_endpoint", service),
    ("identity_decides_who_is_denied", denied),
    ("strict_refuses_plaintext_and_permissive_takes_it", strict_and_permissive),
    ("unmeshed_destinations_are_passed_through", passthrough),
    ("half_closes_are_carried", half_close),
    ("resets_are_carried", resets),
    ("own_ports_are_no_destination", own_ports),
];

fn families(world: &World) -> impl Iterator<Item = bool> + use<> {
    [false, true].into_iter().take(if world.lab.has_ipv6() { 2 } else { 1 })
}

fn allowed() -> Outcome {
    let world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    for ipv6 in families(&world) {
        let to = world.server(ipv6);
        echo_and_end(connect(world.pod("web"), to)?, "hello\n")?;
        let authority = format!("dst.hbone_addr={to}");
        world.wait_log(
            "b",
            &[
                "\taccess\tconnection complete",
                "src.identity=\"spiffe://cluster.local/ns/front/sa/web\"",
                "dst.identity=\"spiffe://cluster.local/ns/shop/sa/cart\"",
                &authority,
                "direction=\"inbound\" bytes_sent=6 bytes_recv=6",
            ],
        )?;
        world.wait_log(
            "a",
            &[
                "connection complete",
                "src.identity=\"spiffe://cluster.local/ns/front/sa/web\"",
                &authority,
                "direction=\"outbound\" bytes_sent=6 bytes_recv=6",
            ],
        )?;
    }
    Ok(())
}

fn original_source() -> Outcome {
    let world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Peer).during("starting a server")?;
    for ipv6 in families(&world) {
        for name in ["web", "legacy"] {
            let pod = world.pod(name);
            let mut stream = connect(pod, world.server(ipv6))?;
            stream.shutdown(Shutdown::Write).during("ending")?;
            let (line, _) = read_to_end(&mut stream)?;
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            let seen: SocketAddr = line.parse().during(&format!("reading {line:?}"))?;
            let own: IpAddr =
                if ipv6 { pod.ipv6.ok_or("no IPv6")?.into() } else { pod.ipv4.into() };
            ensure!(seen.ip().to_canonical() == own, "{name} is {own}, the server saw {seen}");
        }
    }
    Ok(())
}

fn service() -> Outcome {
    let world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let vip: SocketAddr = SocketAddr::new(VIP.0.parse().during("the VIP")?, VIP.1);
    echo_and_end(connect(world.pod("web"), vip)?, "by name\n")?;
    world.wait_log("a", &["connection complete", "dst.service=\"cart.shop.svc.cluster.local\""])?;
    Ok(())
}

fn denied() -> Outcome {
    let mut world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let to = world.server(false);
    world.set_policies(ALLOW_WEB)?;
    echo_and_end(connect(world.pod("web"), to)?, "allowed\n")?;
    refused(world.pod("intruder"), to)?;
    let flagged = [
        "connection complete",
        "sa/intruder",
        "policy_none_allowed: allow policies exist, but none allowed: shop/only-web",
    ];
    world.wait_log("b", &flagged)?;
    // The side that asked only learns the status.
    world.wait_log("a", &["connect_refused: the far side answered 401"])?;
    world.set_policies(&format!("{ALLOW_WEB}---\n{DENY_INTRUDER}"))?;
    refused(world.pod("intruder"), to)?;
    world.wait_log("b", &["policy_denied: explicitly denied by: shop/no-intruder"])?;
    let counted = world
        .metric("b", "adit_refusals_total{reason=\"policy_denied\",reporter=\"destination\"}")?;
    ensure!((counted - 1.0).abs() < f64::EPSILON, "counted {counted} denials");
    Ok(())
}

fn strict_and_permissive() -> Outcome {
    let mut world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    for ipv6 in families(&world) {
        let to = world.server(ipv6);
        world.set_policies("")?;
        echo_and_end(connect(world.pod("legacy"), to)?, "permissive\n")?;
        let strict = "istio-system/istio_converted_static_strict";
        world.set_policies(STRICT)?;
        refused(world.pod("legacy"), to)?;
        world.wait_log("b", &["policy_denied", strict])?;
        echo_and_end(connect(world.pod("web"), to)?, "mutual TLS goes on\n")?;
    }
    Ok(())
}

fn passthrough() -> Outcome {
    let world = World::new()?;
    let legacy = world.pod("legacy");
    let _app = App::start(legacy, PORT, Service::Echo).during("starting a server")?;
    echo_and_end(connect(world.pod("web"), (legacy.ipv4, PORT).into())?, "as it is\n")?;
    world.wait_log("a", &["connection complete", "dst.workload=\"legacy\"", "outbound"])?;
    Ok(())
}

fn half_close() -> Outcome {
    let world = World::new()?;
    let listener = listen(world.pod("cart"), PORT)?;
    for client in ["web", "legacy"] {
        // The client ends first, the server answers after it.
        let accepted = accept_one(&listener)?;
        let mut near = connect(world.pod(client), world.server(false))?;
        near.write_all(b"question").during("asking")?;
        near.shutdown(Shutdown::Write).during("ending")?;
        let mut far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
        ensure!(read_to_end(&mut far)? == (b"question".to_vec(), End::Finished), "{client}: up");
        far.write_all(b"answer").during("answering")?;
        drop(far);
        ensure!(read_to_end(&mut near)? == (b"answer".to_vec(), End::Finished), "{client}: down");
        // The server ends first, the client goes on talking.
        let accepted = accept_one(&listener)?;
        let mut near = connect(world.pod(client), world.server(false))?;
        near.write_all(b"x").during("asking")?;
        let mut far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
        far.read_exact(&mut [0]).during("reading")?;
        far.shutdown(Shutdown::Write).during("ending")?;
        ensure!(read_to_end(&mut near)? == (Vec::new(), End::Finished), "{client}: early end");
        near.write_all(b"still here").during("talking on")?;
        drop(near);
        ensure!(read_to_end(&mut far)? == (b"still here".to_vec(), End::Finished), "{client}: on");
    }
    Ok(())
}

fn resets() -> Outcome {
    let world = World::new()?;
    let listener = listen(world.pod("cart"), PORT)?;
    for client in ["web", "legacy"] {
        for client_resets in [true, false] {
            let accepted = accept_one(&listener)?;
            let mut near = connect(world.pod(client), world.server(false))?;
            near.write_all(b"ping").during("sending")?;
            let mut far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
            far.read_exact(&mut [0; 4]).during("reading")?;
            far.write_all(b"pong").during("sending")?;
            near.read_exact(&mut [0; 4]).during("reading")?;
            let (first, mut second) = if client_resets { (near, far) } else { (far, near) };
            reset(first)?;
            let seen = read_to_end(&mut second)?;
            ensure!(seen == (Vec::new(), End::Reset), "{client}, {client_resets}: {seen:?}");
        }
    }
    world.wait_log("a", &["application_reset"])?;
    world.wait_log("a", &["peer_reset"])?;
    Ok(())
}

fn own_ports() -> Outcome {
    let world = World::new()?;
    let web = world.pod("web");
    // A captured connection to 15001 on loopback is accepted and refused (spec redirection 7).
    refused(web, ([127, 0, 0, 1], 15001).into())?;
    world.wait_log("a", &["connection failed", "self_call"])?;
    for port in [15001, 15006] {
        refused(world.pod("legacy"), (world.pod("cart").ipv4, port).into())?;
    }
    world.wait_log("b", &["connection failed", "self_call"])?;
    Ok(())
}
