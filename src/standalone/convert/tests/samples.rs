//! The meshes under `deploy/samples`: all of them load together, and mean what they say.

use std::path::Path;

use super::decisions::allowed;
use super::{notes, service, workload};
use crate::standalone::convert::{Resources, convert};
use crate::standalone::manifest::read;

fn samples() -> Resources {
    loaded("deploy/samples")
}

fn loaded(path: &str) -> Resources {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let manifests = read(&path).unwrap_or_else(|error| panic!("{error}")).unwrap();
    convert(&manifests, "cluster.local")
}

#[test]
fn everything_in_the_samples_is_served() {
    assert_eq!(notes(&samples()), [""; 0]);
    assert_eq!(notes(&loaded("deploy/samples/demo/mesh.yaml")), [""; 0]);
    let two_nodes = notes(&loaded("deploy/samples/two-nodes"));
    assert!(
        matches!(&two_nodes[..], [one] if one.contains("served as a dry run")),
        "{two_nodes:?}"
    );
}

#[test]
fn the_samples_mean_what_they_say() {
    let resources = samples();
    let check = |pod: &str, peer: (Option<&str>, &str, u16), expected: bool| {
        let principal = peer.0.map(|name| format!("cluster.local/ns/{name}"));
        let got = allowed(&resources, pod, (principal.as_deref(), peer.1, peer.2));
        assert_eq!(got, expected, "{pod} {peer:?}");
    };
    let (inside, guest) = ("10.244.1.99", "198.51.100.7");
    // The mesh asks for an identity; nothing else is asked in `shop`.
    check("shop/web-0", (Some("other/sa/any"), inside, 80), true);
    check("shop/web-0", (None, inside, 80), false);
    check("payments/payments-0", (Some("payments/sa/checkout"), inside, 8080), true);
    check("payments/payments-0", (Some("payments/sa/checkout"), inside, 9090), false);
    check("payments/payments-0", (Some("shop/sa/web"), inside, 8080), false);
    check("payments/checkout-0", (Some("shop/sa/web"), inside, 8080), true);
    check("production/orders-0", (Some("production/sa/any"), inside, 80), true);
    check("production/orders-0", (Some("shop/sa/web"), inside, 80), false);
    check("production/orders-0", (None, inside, 80), false);
    check("ecommerce/stock-0", (Some("ecommerce/sa/frontend"), inside, 80), true);
    check("ecommerce/stock-0", (Some("shop/sa/frontend"), inside, 80), false);
    check("ecommerce/frontend-0", (Some("shop/sa/web"), inside, 80), true);
    check("baseline/store-0", (Some("shop/sa/web"), inside, 80), true);
    check("baseline/store-0", (Some("shop/sa/web"), inside, 9000), false);
    check("baseline/store-0", (Some("baseline/sa/any"), inside, 9000), true);
    check("baseline/store-0", (Some("baseline/sa/any"), guest, 80), false);
    check("migrating/report-0", (None, inside, 80), true);
    check("migrating/ledger-0", (None, inside, 80), false);
    check("migrating/ledger-0", (None, inside, 9090), true);
    check("catalog/catalog-0", (Some("catalog/sa/waypoint"), inside, 8080), true);
    check("catalog/catalog-0", (Some("shop/sa/web"), inside, 8080), false);
    assert!(service(&resources, "catalog/catalog.catalog.svc.cluster.local").waypoint.is_some());
    let legacy = workload(&resources, "Kubernetes//Pod/shop/legacy-0");
    assert_eq!(legacy.tunnel_protocol, 0);
}
