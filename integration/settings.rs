//! What a proxy is told, by its environment and by its admin server, and what it tells.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

use adit::cli::lab::{App, Service};

use crate::lifecycle::{ADMIN, CART_ID, WEB_ID, exit_code, live};
use crate::world::control::ALLOW_WEB;
use crate::world::{Context, Outcome, PATIENCE, PORT, World, connect, echo_and_end, ensure, until};

pub(crate) const TESTS: crate::Tests = &[
    ("the_log_level_can_be_changed", log_level),
    ("the_dump_shows_everything", dump),
    ("the_exposition_tells_of_a_connection", exposition),
    ("proxies_that_start_at_once_share_a_root", shared_root),
    ("an_unsafe_folder_for_the_root_is_refused", unsafe_folders),
    ("contradictory_settings_are_refused", contradictions),
];

fn log_level() -> Outcome {
    let world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let post = |query: &str| world.proxy("b").post(ADMIN, &format!("/logging{query}"));
    let opened = |level: &str| -> Outcome<bool> {
        let skip = world.proxy("b").log().during("reading a log")?.len();
        echo_and_end(connect(world.pod("web"), world.server(false))?, "logged\n")?;
        let done = |line: &str| line.contains("connection complete");
        world.proxy("b").wait_log(skip, PATIENCE, done).during(level)?;
        let log = world.proxy("b").log().during("reading a log")?;
        Ok(log[skip..].lines().any(|line| line.contains("\tdebug\taccess\tconnection opened")))
    };
    let body = post("").during("asking")?;
    ensure!(body == "current log level is info\n", "at first: {body:?}");
    ensure!(!opened("info")?, "openings are logged at info");
    let body = post("?level=access=debug").during("changing")?;
    ensure!(body.contains("access=debug"), "changed: {body:?}");
    ensure!(opened("debug")?, "openings are not logged at debug");
    for bad in ["?level=loud", "?level=access=loud", "?lvl=info"] {
        let error = post(bad).err().ok_or_else(|| format!("{bad} is accepted"))?.to_string();
        ensure!(error.starts_with("status 400"), "{bad}: {error}");
    }
    let body = post("?reset").during("resetting")?;
    ensure!(body == "current log level is info\n", "at last: {body:?}");
    ensure!(!opened("reset")?, "openings are still logged");
    let got = world.proxy("b").get(ADMIN, "/logging").err().ok_or("GET is answered")?;
    ensure!(got.to_string().starts_with("status 405"), "GET: {got}");
    Ok(())
}

fn dump() -> Outcome {
    let mut world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    world.set_policies(ALLOW_WEB)?;
    let stream = live(&world)?;
    let src = stream.local_addr().during("an address")?.to_string();
    let (cart, web) = (world.pod("cart"), world.pod("web"));
    let to = format!("{}:{PORT}", cart.ipv4);
    let expected = |src: &str, original: serde_json::Value, actual: &str| {
        serde_json::json!([{
            "src": src, "originalDst": original, "actualDst": actual, "protocol": "HBONE"
        }])
    };
    for (node, pod, identity) in [("b", cart, CART_ID), ("a", web, WEB_ID)] {
        let dump = world.proxy(node).config_dump().during("the dump")?;
        let names = |key: &str| -> Vec<String> {
            let list = dump[key].as_array().cloned().unwrap_or_default();
            list.iter().map(|item| item["name"].to_string()).collect()
        };
        for name in ["web", "cart", "legacy", "intruder"] {
            ensure!(names("workloads").contains(&format!("\"{name}\"")), "no workload {name}");
        }
        ensure!(names("services") == ["\"cart\""], "services: {:?}", names("services"));
        ensure!(names("policies") == ["\"only-web\""], "policies: {:?}", names("policies"));
        let certificates = dump["certificates"].as_array().ok_or("no certificates")?;
        let own = certificates.iter().find(|one| one["identity"] == identity);
        let own = own.ok_or_else(|| format!("{node}: no certificate of {identity}"))?;
        ensure!(own["state"] == "Available", "{own}");
        ensure!(own["certChain"][0]["serialNumber"].is_string(), "{own}");
        let state = &dump["workloadState"][&pod.uid];
        ensure!(state["state"] == "Up", "{node}: {state}");
        ensure!(state["info"]["name"] == *pod.plan.name, "{node}: {state}");
        let connections = &state["connections"];
        match node {
            "b" => {
                let inbound = connections["inbound"][0].clone();
                ensure!(inbound["protocol"] == "HBONE", "{inbound}");
                ensure!(inbound["actualDst"] == to.as_str(), "{inbound}");
                let from = inbound["src"].as_str().unwrap_or_default();
                ensure!(from.starts_with(&format!("{}:", web.ipv4)), "{inbound}");
            }
            _ => {
                let hop = connections["outbound"][0]["actualDst"].as_str().unwrap_or_default();
                let wanted = expected(&src, to.as_str().into(), hop);
                ensure!(connections["outbound"] == wanted, "{connections}");
                ensure!(hop.starts_with(&cart.ipv4.to_string()), "{connections}");
            }
        }
    }
    Ok(())
}

fn exposition() -> Outcome {
    let world = World::new()?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let stream = connect(world.pod("web"), (world.pod("cart").ipv4, PORT).into())?;
    echo_and_end(stream, "eleven byte")?;
    for (node, reporter) in [("b", "destination"), ("a", "source")] {
        world.wait_log(node, &["connection complete", "sa/web"])?;
        let text = world.proxy(node).metrics().during("metrics")?;
        ensure!(text.ends_with("\n# EOF\n"), "it ends in {:?}", text.lines().last());
        let labels = [
            format!("reporter=\"{reporter}\""),
            "source_workload_namespace=\"front\"".to_owned(),
            format!("source_principal=\"{WEB_ID}\""),
            "destination_service=\"cart.shop.svc.cluster.local\"".to_owned(),
            "destination_workload_namespace=\"shop\"".to_owned(),
            format!("destination_principal=\"{CART_ID}\""),
            "request_protocol=\"tcp\"".to_owned(),
            "response_flags=\"-\"".to_owned(),
            "connection_security_policy=\"mutual_tls\"".to_owned(),
        ];
        let counters = [
            ("istio_tcp_connections_opened_total", "1"),
            ("istio_tcp_connections_closed_total", "1"),
            ("istio_tcp_received_bytes_total", "11"),
            ("istio_tcp_sent_bytes_total", "11"),
        ];
        for (name, value) in counters {
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
            let [line] = lines[..] else { return Err(format!("{node}: {name}: {lines:?}")) };
            for label in &labels {
                // Only who was addressed by the service knows it on the near side.
                let unknown = reporter == "source" && label.starts_with("destination_service");
                ensure!(unknown || line.contains(label.as_str()), "{node}: no {label}: {line}");
            }
            ensure!(line.ends_with(&format!(" {value}")), "{node}: not {value}: {line}");
        }
    }
    Ok(())
}

fn shared_root() -> Outcome {
    // Both proxies of a world are started at once and find no folder.
    let world = World::of_file()?;
    let mut roots = Vec::new();
    for node in ["a", "b"] {
        world.wait_log(node, &["\twarn\t", "come from a development root"])?;
        let gauge = world.metric(node, "adit_development_ca")?;
        ensure!((gauge - 1.0).abs() < f64::EPSILON, "the gauge is {gauge}");
        let available = || {
            let dump = world.proxy(node).config_dump().during("the dump")?;
            Ok(dump["certificates"][0]["state"] == "Available")
        };
        until("there is a certificate", available)?;
        let dump = world.proxy(node).config_dump().during("the dump")?;
        roots.push(dump["certificates"][0]["rootCerts"].clone());
    }
    ensure!(roots[0] == roots[1] && roots[0].is_array(), "the roots are {roots:?}");
    let mode = |path: &Path| {
        let about = fs::metadata(path).during("looking at the root")?;
        Ok::<_, String>(about.permissions().mode() & 0o7777)
    };
    let ca = world.dir().join("ca");
    for (path, expected) in
        [(ca.clone(), 0o700), (ca.join("root-key.der"), 0o600), (ca.join("root-cert.pem"), 0o600)]
    {
        let found = mode(&path)?;
        ensure!(found == expected, "{}: mode {found:o}", path.display());
    }
    let left = fs::read_dir(world.dir()).during("listing")?.filter_map(Result::ok);
    let hidden: Vec<_> = left.filter(|e| e.file_name().as_encoded_bytes()[0] == b'.').collect();
    ensure!(hidden.is_empty(), "left behind: {hidden:?}");
    Ok(())
}

/// A variable of the environment and its value.
type Setting<'a> = (&'a str, &'a str);

/// Starts a proxy that must refuse to start, saying all of `parts`.
fn cannot_start(world: &mut World, settings: &[Setting<'_>], parts: &[&str]) -> Outcome {
    let skip = fs::read_to_string(world.dir().join("x.log")).unwrap_or_default().len();
    world.start_proxy_at(("b", "x"), "spare", settings)?;
    let code = exit_code(world, "x")?;
    let log = world.proxy("x").log().during("reading a log")?;
    let said = log.get(skip..).unwrap_or_default();
    ensure!(code == Some(1), "{settings:?}: it ended with {code:?}: {said}");
    for part in parts {
        ensure!(said.contains(part), "{settings:?}: no {part:?} in:\n{said}");
    }
    world.proxies.remove("x");
    Ok(())
}

fn unsafe_folders() -> Outcome {
    let mut world = World::of_file()?;
    world.lab.add_node("spare").during("making a node")?;
    let folder = |name: &str, mode: u32| {
        let path = world.dir().join(name);
        fs::DirBuilder::new().create(&path).during("making a folder")?;
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(&path, mode).during("opening a folder")?;
        Ok::<_, String>(path.to_string_lossy().into_owned())
    };
    let open = folder("open", 0o755)?;
    let above = folder("above", 0o777)?;
    let link = world.dir().join("link").to_string_lossy().into_owned();
    symlink(world.dir().join("ca"), &link).during("a link")?;
    let key = world.dir().join("ca2");
    fs::DirBuilder::new().mode(0o700).create(&key).during("making a folder")?;
    for name in ["root-cert.pem", "root-key.der"] {
        fs::copy(world.dir().join("ca").join(name), key.join(name)).during("copying")?;
        let mode = fs::Permissions::from_mode(0o644);
        fs::set_permissions(key.join(name), mode).during("opening a file")?;
    }
    let key = key.to_string_lossy().into_owned();
    let inside = format!("{above}/ca");
    let cases = [
        (&open, &open, "is open to others"),
        (&link, &link, "is a symbolic link"),
        (&inside, &above, "others may replace what is in it"),
        (&key, &key, "not a plain file of this user with mode 0600"),
    ];
    for (dir, at_fault, text) in cases {
        cannot_start(&mut world, &[("DEV_CA_DIR", dir)], &["development CA", at_fault, text])?;
    }
    Ok(())
}

fn contradictions() -> Outcome {
    let mut world = World::of_file()?;
    world.lab.add_node("spare").during("making a node")?;
    let real = ("CA_ADDRESS", "https://istiod.istio-system.svc:15012");
    let cases: [(&[Setting<'_>], &[&str]); 7] = [
        (&[real], &["FAKE_CA", "CA_ADDRESS names a real certificate authority"]),
        (&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], &["FAKE_CA", "in a cluster"]),
        (
            &[("FAKE_CA", "false"), ("CA_ADDRESS", "")],
            &["CA_ADDRESS", "nothing to get certificates from", "DEV_CA_DIR"],
        ),
        (
            &[("FAKE_CA", "false"), ("CA_ADDRESS", "http://istiod:15010")],
            &["CA_ADDRESS", "without TLS"],
        ),
        (&[("FAKE_CA", "yes")], &["FAKE_CA"]),
        (&[("LOCAL_XDS", "workloads: []")], &["LOCAL_XDS_PATH", "together with LOCAL_XDS"]),
        // Everything that is wrong, at once.
        (
            &[("SECRET_TTL", "soon"), ("PROXY_MODE", "both"), ("RUST_LOG", "loud")],
            &["SECRET_TTL", "PROXY_MODE"],
        ),
    ];
    for (settings, parts) in cases {
        cannot_start(&mut world, settings, parts)?;
    }
    Ok(())
}
