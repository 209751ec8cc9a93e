use std::collections::HashMap;

use serde_json::json;

use super::*;

/// What every configuration needs.
const LEAST: &[(&str, &str)] =
    &[("FAKE_CA", "true"), ("DEV_CA_DIR", "/ca"), ("LOCAL_XDS_PATH", "/mesh.yaml")];

/// Files that are there.
const THERE: &[&str] = &["token-file", "root-file"];

/// A machine of `cpus` CPUs with these variables and this mesh file.
fn read_on(
    cpus: usize,
    root: bool,
    mesh_file: Option<&str>,
    variables: &[(&str, &str)],
) -> Result<Config, Vec<ConfigError>> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let lookup = |name: &str| variables.get(name).map(|&value| value.to_owned());
    let file = |path: &Path| {
        assert_eq!(path, Path::new("./etc/istio/config/mesh"));
        mesh_file.map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    let names = || variables.keys().map(|&name| name.to_owned()).collect();
    let exists = |path: &Path| THERE.contains(&path.to_str().unwrap());
    let surroundings = Surroundings { file: &file, exists: &exists, cpus, root };
    Config::read_in(Env::new(&lookup, &names), &surroundings)
}

/// The least, and more.
fn read(more: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
    read_on(8, true, None, &[LEAST, more].concat())
}

fn good(more: &[(&str, &str)]) -> Config {
    read(more).unwrap_or_else(|errors| panic!("{more:?}: {errors:?}"))
}

/// The names of what is wrong.
fn wrong(result: Result<Config, Vec<ConfigError>>) -> Vec<String> {
    result.err().into_iter().flatten().map(|error| error.name).collect()
}

#[test]
fn the_defaults_are_those_of_the_specification() {
    let dump = good(&[]).dump();
    let limits = serde_json::to_value(Limits::default()).unwrap();
    assert_eq!(
        dump,
        json!({
            "network": "",
            "nodeName": null,
            "clusterId": "Kubernetes",
            "clusterDomain": "cluster.local",
            "mode": {"kind": "shared", "agentSocket": "/var/run/ztunnel/ztunnel.sock"},
            "dataPath": {
                "streamWindow": 4_194_304,
                "connectionWindow": 16_777_216,
                "frameSize": 1_048_576,
                "poolStreamsMax": 100,
                "poolUnusedRelease": "300s",
                "keepalive": {"idle": "180s", "interval": "180s", "retries": 9},
                "userTimeout": null,
                "packetMark": 1337,
                "originalSource": "auto",
                "portReuse": true,
                "localhostAppTunnel": true,
                "sameNode": "tunnel",
                "responseBaggage": true,
                "ipv6": true,
            },
            "identity": {
                "developmentCaDir": "/ca",
                "ca": null,
                "certificateTtl": "86400s",
                "pqcOnly": false,
                "tls12": false,
                "revocation": null,
            },
            "localSource": {"path": "/mesh.yaml"},
            "xds": null,
            "xdsSnapshot": null,
            "workers": 2,
            "log": {"filter": "info", "json": false, "policyDecisionsAtInfo": false},
            "servers": {"adminPort": 15000, "stats": "[::]:15020", "readiness": "[::]:15021"},
            "terminationDeadline": "5s",
            "limits": limits,
            "warnings": [],
        })
    );
}

#[test]
fn each_variable_arrives_in_its_place() {
    let check = |name: &str, value: &str, pointer: &str, expected: serde_json::Value| {
        let dump = good(&[(name, value)]).dump();
        assert_eq!(dump.pointer(pointer), Some(&expected), "{name}={value}");
    };
    check("NETWORK", "n1", "/network", json!("n1"));
    check("NODE_NAME", "node-a", "/nodeName", json!("node-a"));
    check("NODE_NAME", "", "/nodeName", json!(null));
    check("CLUSTER_ID", "c1", "/clusterId", json!("c1"));
    check("ISTIO_META_CLUSTER_ID", "c2", "/clusterId", json!("c2"));
    check("CLUSTER_DOMAIN", "corp.example", "/clusterDomain", json!("corp.example"));
    check("INPOD_UDS", "/x.sock", "/mode/agentSocket", json!("/x.sock"));
    check("SAME_NODE", "direct", "/dataPath/sameNode", json!("direct"));
    check("SAME_NODE", "tunnel", "/dataPath/sameNode", json!("tunnel"));
    check("HTTP2_STREAM_WINDOW_SIZE", "65536", "/dataPath/streamWindow", json!(65536));
    check("HTTP2_CONNECTION_WINDOW_SIZE", "65537", "/dataPath/connectionWindow", json!(65537));
    check("HTTP2_FRAME_SIZE", "16384", "/dataPath/frameSize", json!(16384));
    check("POOL_MAX_STREAMS_PER_CONNECTION", "7", "/dataPath/poolStreamsMax", json!(7));
    check("POOL_UNUSED_RELEASE_TIMEOUT", "1m30s", "/dataPath/poolUnusedRelease", json!("90s"));
    check("KEEPALIVE_ENABLED", "false", "/dataPath/keepalive", json!(null));
    check("KEEPALIVE_TIME", "20s", "/dataPath/keepalive/idle", json!("20s"));
    check("KEEPALIVE_INTERVAL", "21s", "/dataPath/keepalive/interval", json!("21s"));
    check("KEEPALIVE_RETRIES", "3", "/dataPath/keepalive/retries", json!(3));
    check("USER_TIMEOUT_ENABLED", "true", "/dataPath/userTimeout", json!("1800s"));
    check("PACKET_MARK", "5", "/dataPath/packetMark", json!(5));
    check("ENABLE_ORIG_SRC", "true", "/dataPath/originalSource", json!("always"));
    check("ENABLE_ORIG_SRC", "false", "/dataPath/originalSource", json!("never"));
    check("INPOD_PORT_REUSE", "false", "/dataPath/portReuse", json!(false));
    check("LOCALHOST_APP_TUNNEL", "false", "/dataPath/localhostAppTunnel", json!(false));
    check("ENABLE_RESPONSE_BAGGAGE", "false", "/dataPath/responseBaggage", json!(false));
    check("IPV6_ENABLED", "false", "/dataPath/ipv6", json!(false));
    check("IPV6_ENABLED", "false", "/servers/stats", json!("0.0.0.0:15020"));
    check("SECRET_TTL", "1h", "/identity/certificateTtl", json!("3600s"));
    check("COMPLIANCE_POLICY", "pqc", "/identity/pqcOnly", json!(true));
    check("TLS12_ENABLED", "true", "/identity/tls12", json!(true));
    let revocation = json!({"path": "/crl.pem", "unknown": "allow"});
    check("CRL_PATH", "/crl.pem", "/identity/revocation", revocation);
    check("CRL_PATH", "", "/identity/revocation", json!(null));
    check("RUST_LOG", "access=debug", "/log/filter", json!("access=debug"));
    check("LOG_FORMAT", "json", "/log/json", json!(true));
    check("AUTHZ_POLICY_INFO_LOGGING", "true", "/log/policyDecisionsAtInfo", json!(true));
    check("XDS_ADDRESS", "", "/xds", json!(null));
    check("CA_ADDRESS", "", "/identity/developmentCaDir", json!("/ca"));
    check("NOBODY_KNOWS_THIS", "?", "/workers", json!(2));
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let check = |name: &str, value: &str| {
        assert_eq!(wrong(read(&[(name, value)])), [name], "{name}={value:?}");
    };
    check("PROXY_MODE", "both");
    check("HTTP2_STREAM_WINDOW_SIZE", "0");
    check("HTTP2_STREAM_WINDOW_SIZE", "2147483648");
    check("HTTP2_CONNECTION_WINDOW_SIZE", "4MiB");
    check("HTTP2_FRAME_SIZE", "16383");
    check("HTTP2_FRAME_SIZE", "16777216");
    check("POOL_MAX_STREAMS_PER_CONNECTION", "0");
    check("POOL_UNUSED_RELEASE_TIMEOUT", "soon");
    check("KEEPALIVE_ENABLED", "yes");
    check("KEEPALIVE_TIME", "500ms");
    check("KEEPALIVE_INTERVAL", "10h");
    check("KEEPALIVE_RETRIES", "128");
    check("USER_TIMEOUT_ENABLED", "");
    check("PACKET_MARK", "0x539");
    check("ENABLE_ORIG_SRC", "auto");
    check("IPV6_ENABLED", "TRUE");
    check("SAME_NODE", "splice");
    check("SECRET_TTL", "0");
    check("LOG_FORMAT", "xml");
    check("CONNECTION_TERMINATION_DEADLINE", "-1s");
    check("TERMINATION_GRACE_PERIOD_SECONDS", "30s");
    check("ZTUNNEL_WORKER_THREADS", "many");
    check("ZTUNNEL_WORKER_THREADS", "1025");
    check("ZTUNNEL_WORKER_THREADS", "0%");
    check("ZTUNNEL_RESOURCE_CPU_LIMIT", "2 cores");
    check("ZTUNNEL_CPU_LIMIT", "0");
    check("PROXY_CONFIG", "concurrency: [1]");
    check("PROXY_CONFIG", "statsPort: 15000");
    check("DEV_CA_DIR", "relative/ca");
    // Parts that are not there.
    check("COMPLIANCE_POLICY", "fips-140-2");
    check("CRL_UNKNOWN", "perhaps");
    check("UNSTABLE_ENABLE_SOCKS5", "true");
    check("ENABLE_PROXY", "false");
    check("TLS12_ENABLED", "1.2");
    let both = read(&[("TLS12_ENABLED", "true"), ("COMPLIANCE_POLICY", "pqc")]);
    assert_eq!(wrong(both), ["TLS12_ENABLED"]);
    // One writer of the mesh.
    assert_eq!(wrong(read(&[("XDS_ADDRESS", "istiod:15012")])), ["LOCAL_XDS_PATH"]);
    let both = read(&[("LOCAL_XDS", "{}")]);
    assert_eq!(wrong(both), ["LOCAL_XDS_PATH"]);
}

#[test]
fn everything_wrong_is_told_at_once_and_with_its_value() {
    let more = [("IPV6_ENABLED", "no"), ("KEEPALIVE_TIME", "later"), ("XDS_ADDRESS", "")];
    let errors = read_on(8, true, None, &more);
    let errors: Vec<String> = errors.unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors.iter().any(|text| text == "IPV6_ENABLED: \"no\" is neither true nor false"));
    assert!(errors.iter().any(|text| text.starts_with("KEEPALIVE_TIME: \"later\"")));
    assert!(errors.iter().any(|text| text.starts_with("XDS_ADDRESS: is empty")));
    // A text that may hold secrets is never shown, and a long one never in full.
    let yaml = "proxyMetadata: {TOKEN: hunter2}\nconcurrency: hunter2";
    let errors = read(&[("PROXY_CONFIG", yaml), ("IPV6_ENABLED", &"x".repeat(9999))]).unwrap_err();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(texts[0].contains("line 2"), "{texts:?}");
    assert!(texts.iter().all(|text| !text.contains("hunter2") && text.len() < 200), "{texts:?}");
}

#[test]
fn a_development_root_is_only_for_those_who_have_no_other() {
    let check = |root: bool, variables: &[(&str, &str)], expected: Result<&str, &[&str]>| {
        let all = [variables, &[("LOCAL_XDS_PATH", "/mesh.yaml")]].concat();
        let got = read_on(8, root, None, &all);
        match expected {
            Ok(dir) => {
                let from = got.unwrap().identity.certificates_from;
                let Some(CertificateSource::Development(ca)) = from else { panic!("{from:?}") };
                assert_eq!(ca.dir, Path::new(dir), "{variables:?}");
            }
            Err(names) => assert_eq!(wrong(got), names, "{variables:?}"),
        }
    };
    const FAKE: (&str, &str) = ("FAKE_CA", "true");
    check(true, &[FAKE], Ok("/run/adit-dev-ca"));
    check(false, &[FAKE, ("XDG_RUNTIME_DIR", "/run/user/7")], Ok("/run/user/7/adit-dev-ca"));
    check(false, &[FAKE], Err(&["DEV_CA_DIR"]));
    check(false, &[FAKE, ("DEV_CA_DIR", "/ca")], Ok("/ca"));
    check(true, &[FAKE, ("CA_ADDRESS", "")], Ok("/run/adit-dev-ca"));
    check(true, &[FAKE, ("CA_ADDRESS", "istiod:15012")], Err(&["FAKE_CA"]));
    check(true, &[FAKE, ("KUBERNETES_SERVICE_HOST", "10.0.0.1")], Err(&["FAKE_CA"]));
    check(true, &[FAKE, ("KUBERNETES_SERVICE_HOST", "")], Err(&["FAKE_CA"]));
    check(true, &[("CA_ADDRESS", "")], Err(&["CA_ADDRESS"]));
    check(true, &[("FAKE_CA", "false"), ("CA_ADDRESS", "")], Err(&["CA_ADDRESS"]));
}

#[test]
fn certificates_come_from_the_authority_that_was_named_else_from_istiod() {
    const MESH: (&str, &str) = ("LOCAL_XDS_PATH", "/mesh.yaml");
    let ca = |more: &[(&str, &str)]| {
        let config = read_on(8, true, None, &[&[MESH], more].concat());
        config.unwrap().dump().pointer("/identity/ca").unwrap().clone()
    };
    let local = ca(&[]);
    assert_eq!(
        local,
        json!({
            "address": "https://localhost:15012",
            "root": "./var/run/secrets/istio/root-cert.pem",
            "alternativeName": null,
            "token": null,
            "headers": [],
        })
    );
    let cluster = ca(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
    assert_eq!(cluster["address"], "https://istiod.istio-system.svc:15012");
    assert_eq!(cluster["token"], json!({"path": "./var/run/secrets/tokens/istio-token"}));
    let named = ca(&[
        ("CA_ADDRESS", "ca.example:443"),
        ("CA_ROOT_CA", "SYSTEM"),
        ("ALT_CA_HOSTNAME", "istiod"),
        ("AUTH_TOKEN", "hunter2"),
        ("CA_HEADER_Tenant", "hunter3"),
    ]);
    assert_eq!(
        named,
        json!({
            "address": "https://ca.example:443",
            "root": "the system's trust anchors",
            "alternativeName": "istiod",
            "token": "text",
            "headers": ["tenant"],
        })
    );
    let wrongly = |more: &[(&str, &str)]| wrong(read_on(8, true, None, &[&[MESH], more].concat()));
    assert_eq!(wrongly(&[("CA_ADDRESS", "http://istiod:15010")]), ["CA_ADDRESS"]);
    assert_eq!(wrongly(&[("CA_HEADER_a", "1\n2")]), ["CA_HEADER_a"]);
}

/// What names no source of the mesh, and these variables.
fn asking(mesh_file: Option<&str>, more: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
    const CA: &[(&str, &str)] = &[("FAKE_CA", "true"), ("DEV_CA_DIR", "/ca")];
    read_on(8, true, mesh_file, &[CA, more].concat())
}

#[test]
fn the_mesh_comes_from_the_control_plane_that_was_named_else_from_istiod() {
    let file = "defaultConfig: {discoveryAddress: \"istiod.system.svc:15012\"}";
    let check = |file: Option<&str>, more: &[(&str, &str)], expected: &str| {
        let dump = asking(file, more).unwrap().dump();
        assert_eq!(dump.pointer("/xds/address"), Some(&json!(expected)), "{file:?} {more:?}");
    };
    const IN_CLUSTER: (&str, &str) = ("ISTIO_META_DNS_CAPTURE", "false");
    check(None, &[], "https://localhost:15012");
    check(Some(file), &[], "https://istiod.system.svc:15012");
    check(Some(file), &[("XDS_ADDRESS", "here:1")], "https://here:1");
    check(None, &[("XDS_ADDRESS", "http://127.0.0.1:15010")], "http://127.0.0.1:15010");
    let cluster = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("CA_ADDRESS", "x:1"), IN_CLUSTER];
    let config = read_on(8, true, None, &cluster).unwrap().dump();
    assert_eq!(config["xds"]["address"], "https://istiod.istio-system.svc:15012");
    assert_eq!(config["xds"]["token"], json!({"path": "./var/run/secrets/tokens/istio-token"}));
    let named = asking(
        None,
        &[
            ("XDS_ROOT_CA", "root-file"),
            ("ALT_XDS_HOSTNAME", "istiod"),
            ("XDS_HEADER_Tenant", "hunter2"),
        ],
    );
    let named = named.unwrap().dump()["xds"].clone();
    assert_eq!(named["root"], "root-file");
    assert_eq!(named["alternativeName"], "istiod");
    assert_eq!(named["headers"], json!(["tenant"]));
    // Nothing at all, or what cannot be an address, stops the start.
    assert_eq!(wrong(asking(Some(file), &[("XDS_ADDRESS", "")])), ["XDS_ADDRESS"]);
    assert_eq!(wrong(asking(None, &[("XDS_ADDRESS", "http://istiod:15010")])), ["XDS_ADDRESS"]);
    let broken = asking(Some("defaultConfig: {discoveryAddress: \"ftp://x\"}"), &[]);
    assert_eq!(wrong(broken), ["discoveryAddress"]);
    // A file goes before a control plane that nobody named, and before one that was silenced.
    let silenced = asking(Some(file), &[("LOCAL_XDS", "{}"), ("XDS_ADDRESS", "")]);
    assert_eq!(silenced.unwrap().dump()["xds"], json!(null));
    // A node's own pods come unasked only to who says which node it is.
    let on_demand =
        |more: &[(&str, &str)]| asking(None, &[&[("XDS_ON_DEMAND", "true")], more].concat());
    assert_eq!(wrong(on_demand(&[])), ["XDS_ON_DEMAND"]);
    assert_eq!(on_demand(&[("NODE_NAME", "n")]).unwrap().warnings, [""; 0]);
}

#[test]
fn what_the_control_plane_says_is_kept_in_a_cluster_or_where_it_is_told_to() {
    let check = |more: &[(&str, &str)], expected: serde_json::Value| {
        const CLUSTER: &[(&str, &str)] = &[("CA_ADDRESS", "x:1"), ("XDS_ADDRESS", "x:1")];
        let config = read_on(8, true, None, &[CLUSTER, more].concat()).unwrap();
        assert_eq!(config.dump()["xdsSnapshot"], expected, "{more:?}");
    };
    const IN: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let kept = |path: &str, age: &str| json!({"path": path, "maxAge": age});
    check(&[], json!(null));
    check(&[IN], kept("/var/run/ztunnel/adit-xds.snapshot", "86400s"));
    check(&[IN, ("INPOD_UDS", "/x/y.sock")], kept("/x/adit-xds.snapshot", "86400s"));
    check(&[IN, ("XDS_SNAPSHOT_PATH", "")], json!(null));
    let named = [("XDS_SNAPSHOT_PATH", "/s"), ("XDS_SNAPSHOT_MAX_AGE", "1h")];
    check(&named, kept("/s", "3600s"));
    let alone = [IN, ("PROXY_MODE", "dedicated"), ("PROXY_WORKLOAD_INFO", "a/b/c")];
    check(&alone, json!(null));
    assert_eq!(wrong(asking(None, &[("XDS_SNAPSHOT_PATH", "s")])), ["XDS_SNAPSHOT_PATH"]);
    assert_eq!(wrong(asking(None, &[("XDS_SNAPSHOT_MAX_AGE", "1s")])), ["XDS_SNAPSHOT_MAX_AGE"]);
}

#[test]
fn the_control_plane_is_told_who_asks() {
    let node = |file: Option<&str>, more: &[(&str, &str)]| {
        let Some(MeshSource::Server(xds)) = asking(file, more).unwrap().mesh_from else {
            panic!("{more:?}")
        };
        (xds.node.id.clone(), json!(xds.node.metadata))
    };
    let (id, metadata) = node(None, &[]);
    assert_eq!(id, "ztunnel~1.1.1.1~.~.svc.cluster.local");
    let base = json!({"NAME": "", "NAMESPACE": "", "INSTANCE_IPS": "1.1.1.1", "NODE_NAME": ""});
    assert_eq!(metadata, base);
    let file = "defaultConfig: {proxyMetadata: {ISTIO_META_A: file, B: file, C: file, D: file}}";
    let more = [
        ("POD_NAME", "z-1"),
        ("POD_NAMESPACE", "system"),
        ("INSTANCE_IP", "10.0.0.9"),
        ("NODE_NAME", "node-a"),
        ("CLUSTER_DOMAIN", "corp.example"),
        ("PROXY_CONFIG", "proxyMetadata: {B: variable, C: variable, D: variable}"),
        ("ISTIO_META_C", "env"),
        ("ISTIO_META_D", "env"),
        ("ISTIO_METAJSON_D", "{\"x\": [1]}"),
        ("ISTIO_METAJSON_E", "{"),
    ];
    let (id, metadata) = node(Some(file), &more);
    assert_eq!(id, "ztunnel~10.0.0.9~z-1.system~system.svc.cluster.local");
    assert_eq!(
        metadata,
        json!({
            "NAME": "z-1",
            "NAMESPACE": "system",
            "INSTANCE_IPS": "10.0.0.9",
            "NODE_NAME": "node-a",
            "A": "file",
            "B": "variable",
            "C": "env",
            "D": {"x": [1]},
        })
    );
    let warnings = asking(Some(file), &more).unwrap().warnings;
    assert!(warnings[0].starts_with("ISTIO_METAJSON_E: "), "{warnings:?}");
}

#[test]
fn one_pod_needs_its_name() {
    let check = |info: Option<&str>, expected: Option<[&str; 3]>| {
        let mut more = vec![("PROXY_MODE", "dedicated")];
        more.extend(info.map(|info| ("PROXY_WORKLOAD_INFO", info)));
        let Some([namespace, name, service_account]) = expected else {
            assert_eq!(wrong(read(&more)), ["PROXY_WORKLOAD_INFO"], "{info:?}");
            return;
        };
        let pod = PodName {
            name: name.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        };
        let config = good(&more);
        assert_eq!(config.mode, Mode::Dedicated { pod });
        assert_eq!(config.data_path.packet_mark, None);
    };
    check(Some("shop/cart-0/cart"), Some(["shop", "cart-0", "cart"]));
    check(Some("shop/cart-0/cart/x"), Some(["shop", "cart-0", "cart/x"]));
    check(None, None);
    check(Some(""), None);
    check(Some("shop/cart-0"), None);
    check(Some("shop//cart"), None);
}

#[test]
fn workers_follow_the_cpus() {
    let check = |cpus: usize, more: &[(&str, &str)], expected: usize| {
        let config = read_on(cpus, true, None, &[LEAST, more].concat()).unwrap();
        assert_eq!(config.workers, expected, "{cpus} CPUs, {more:?}");
    };
    const LIMIT: &str = "ZTUNNEL_RESOURCE_CPU_LIMIT";
    const REQUEST: &str = "ZTUNNEL_RESOURCE_CPU_REQUEST";
    const TOLD: &str = "ZTUNNEL_CPU_LIMIT";
    const ASKED: &str = "ZTUNNEL_WORKER_THREADS";
    check(1, &[], 2);
    check(8, &[], 2);
    check(9, &[], 3);
    check(64, &[], 16);
    check(64, &[(TOLD, "4")], 2);
    check(64, &[(TOLD, "13")], 4);
    check(8, &[(REQUEST, "3")], 3);
    check(8, &[(REQUEST, "2500m")], 3);
    check(8, &[(LIMIT, "4")], 4);
    check(8, &[(LIMIT, "1")], 1);
    check(8, &[(LIMIT, "500m")], 1);
    check(8, &[(LIMIT, "1.5"), (REQUEST, "3")], 3);
    check(8, &[(LIMIT, "0")], 2);
    check(8, &[(ASKED, "5")], 5);
    check(8, &[(ASKED, "0")], 8);
    check(8, &[(ASKED, "0"), (LIMIT, "3")], 3);
    check(8, &[(ASKED, "30%")], 3);
    check(8, &[(ASKED, "1%")], 1);
    check(8, &[("PROXY_CONFIG", "concurrency: 6")], 6);
    check(8, &[("PROXY_CONFIG", "concurrency: 0")], 8);
    check(8, &[("PROXY_CONFIG", "concurrency: 6"), (ASKED, "1")], 1);
}

#[test]
fn the_deadline_leaves_time_to_end() {
    let check = |more: &[(&str, &str)], expected: u64| {
        assert_eq!(good(more).termination_deadline, Duration::from_secs(expected), "{more:?}");
    };
    const GRACE: &str = "TERMINATION_GRACE_PERIOD_SECONDS";
    check(&[], 5);
    check(&[(GRACE, "30")], 25);
    check(&[(GRACE, "11")], 6);
    check(&[(GRACE, "10")], 9);
    check(&[(GRACE, "2")], 1);
    check(&[(GRACE, "1")], 1);
    check(&[(GRACE, "0")], 1);
    check(&[(GRACE, "30"), ("CONNECTION_TERMINATION_DEADLINE", "2m")], 120);
}

#[test]
fn the_variable_goes_before_the_mesh_file_and_the_environment_before_both() {
    let file = "rootNamespace: x\ndefaultConfig:\n  proxyAdminPort: 1\n  statsPort: 2\n  \
                concurrency: 3\n  proxyMetadata: {ISTIO_META_CLUSTER_ID: file, ISTIO_VERSION: v}";
    let check = |variable: &str, more: &[(&str, &str)], expected: (u16, u16, usize, &str)| {
        let all = [LEAST, &[("PROXY_CONFIG", variable)], more].concat();
        let config = read_on(8, true, Some(file), &all).unwrap();
        let servers = config.servers;
        let got =
            (servers.admin_port, servers.stats.port(), config.workers, &*config.node.cluster_id);
        assert_eq!(got, expected, "{variable:?} {more:?}");
        assert_eq!(config.istio_version.as_deref(), Some("v"));
    };
    check("", &[], (1, 2, 3, "file"));
    check("{}", &[], (1, 2, 3, "file"));
    check("statsPort: 4", &[], (1, 4, 3, "file"));
    check("proxyMetadata: {CLUSTER_ID: var}", &[], (1, 2, 3, "var"));
    let env = [("ISTIO_META_CLUSTER_ID", "env")];
    check("proxyMetadata: {CLUSTER_ID: var}", &env, (1, 2, 3, "env"));
    let broken = read_on(8, true, Some("defaultConfig: 7"), LEAST);
    assert_eq!(wrong(broken), ["./etc/istio/config/mesh"]);
    let asks = read_on(8, true, Some("defaultConfig: {discoveryAddress: istiod}"), LEAST);
    assert_eq!(wrong(asks), ["LOCAL_XDS_PATH"]);
}

#[test]
fn what_should_be_known_is_a_warning() {
    let check = |more: &[(&str, &str)], expected: &[&str]| {
        let warnings = good(more).warnings;
        let names: Vec<&str> =
            warnings.iter().filter_map(|text| Some(text.split_once(':')?.0)).collect();
        assert_eq!(names, expected, "{more:?}");
    };
    check(&[("PACKET_MARK", "1337")], &[]);
    // 0x2539: only the low 12 bits count.
    check(&[("PACKET_MARK", "9529")], &[]);
    check(&[("PACKET_MARK", "7")], &["PACKET_MARK"]);
    check(&[("XDS_ON_DEMAND", "true")], &[]);
    check(&[("ISTIO_META_DNS_CAPTURE", "True")], &["ISTIO_META_DNS_CAPTURE"]);
    check(&[("ISTIO_META_DNS_CAPTURE", "false")], &[]);
    check(&[("CRL_UNKNOWN", "refuse")], &["CRL_UNKNOWN"]);
    check(&[("CRL_UNKNOWN", "refuse"), ("CRL_PATH", "/crl.pem")], &[]);
    check(&[("PREFERED_SERVICE_NAMESPACE", "x")], &["PREFERED_SERVICE_NAMESPACE"]);
}
