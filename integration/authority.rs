//! The real proxy and a certificate authority that it asks over TLS.

use adit::cli::lab::{App, Service};

use crate::lifecycle::{CART_ID, WEB_ID, live};
use crate::world::control::CONTROL;
use crate::world::{Context, Outcome, PORT, World, connect, echo_and_end, ensure, until};

pub(crate) const TESTS: crate::Tests = &[
    ("certificates_come_from_the_authority_once_it_is_there", late_authority),
    ("a_token_of_another_node_gets_no_certificate", foreign_token),
];

/// Starts the proxy of a node again, with an authority and this node's token.
fn ask_authority(world: &mut World, node: &str, token_of: &str) -> Outcome {
    let ca = world.dir().join("ca");
    let root = ca.join("root-cert.pem").to_string_lossy().into_owned();
    let token = ca.join("tokens").join(token_of).to_string_lossy().into_owned();
    world.proxies.remove(node);
    let address = format!("https://{}", world.control_address()?);
    let settings = [
        ("FAKE_CA", "false"),
        ("CA_ADDRESS", address.as_str()),
        ("CA_ROOT_CA", root.as_str()),
        ("AUTH_TOKEN", token.as_str()),
    ];
    world.start_proxy_at((node, node), node, &settings)
}

/// What the dump says of the certificate of an identity.
fn state(world: &World, node: &str, id: &str) -> Outcome<String> {
    let dump = world.proxy(node).config_dump().during("the dump")?;
    let list = dump["certificates"].as_array().cloned().unwrap_or_default();
    let found = list.iter().find(|certificate| certificate["identity"] == id);
    Ok(found.map_or("", |found| found["state"].as_str().unwrap_or_default()).to_owned())
}

fn late_authority() -> Outcome {
    let mut world = World::of_file()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    for node in ["a", "b"] {
        ask_authority(&mut world, node, node)?;
    }
    for (node, id) in [("a", WEB_ID), ("b", CART_ID)] {
        until("it can be asked", || Ok(world.proxy(node).config_dump().is_ok()))?;
        // Its authority does not listen yet.
        until("there is no certificate", || Ok(state(&world, node, id)?.starts_with("Unavail")))?;
    }
    // Everything else is there, and what is not is named.
    for node in ["a", "b"] {
        let answer = || world.proxy(node).get(15_021, "/healthz/ready").err();
        let text = || answer().map(|error| error.to_string()).unwrap_or_default();
        until("only an identity is missing", || Ok(text().ends_with("pending: identity")))?;
    }
    world.write_manifests_for_authority()?;
    world.start_control()?;
    world.wait_ready()?;
    for (node, id) in [("a", WEB_ID), ("b", CART_ID)] {
        until("there is a certificate", || Ok(state(&world, node, id)? == "Available"))?;
        let gauge = world.metric(node, "adit_development_ca")?;
        ensure!(gauge.abs() < f64::EPSILON, "the gauge is {gauge}");
    }
    echo_and_end(connect(world.pod("web"), world.server(false))?, "under their names\n")?;
    world.wait_log("b", &["connection complete", WEB_ID, CART_ID])?;
    drop(live(&world)?);
    Ok(())
}

fn foreign_token() -> Outcome {
    let mut world = World::of_file()?;
    world.write_manifests_for_authority()?;
    world.start_control()?;
    world.wait_log(CONTROL, &["15012"])?;
    ask_authority(&mut world, "b", "a")?;
    world.wait_log("b", &["no certificate", CART_ID, "Unauthenticated", "is on node a"])?;
    let state = state(&world, "b", CART_ID)?;
    ensure!(state.starts_with("Unavailable"), "the state is {state}");
    Ok(())
}
