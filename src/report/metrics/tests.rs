use super::*;
use crate::model::{Delta, Publisher};
use crate::report::fixtures::{client, connection};
use crate::report::{Report, Transport};
use crate::sys::clock::Clock;

/// The lines of an exposition that begin with one of these, in order.
pub(in crate::report) fn lines(metrics: &Metrics, prefixes: &[&str]) -> Vec<String> {
    let text = metrics.render().unwrap();
    assert!(text.ends_with("# EOF\n"));
    let wanted = |line: &&str| prefixes.iter().any(|prefix| line.starts_with(prefix));
    text.lines().filter(wanted).map(str::to_owned).collect()
}

fn report() -> (Report, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new("1.30.0"));
    (Report::new(Arc::clone(&metrics), Clock::system()), metrics)
}

#[test]
fn the_exposition_of_a_proxy_that_has_done_nothing() {
    let (_, metrics) = report();
    let text = metrics.render().unwrap();
    let varies = |line: &&str| !line.starts_with("process_") && !line.contains("reason=");
    let lines: Vec<_> = text.lines().filter(varies).filter(|l| !l.starts_with("# HELP")).collect();
    let expected = "\
# TYPE istio_build gauge
istio_build{component=\"ztunnel\",tag=\"1.30.0\"} 1
# TYPE workload_manager_proxies_started counter
workload_manager_proxies_started_total 0
# TYPE workload_manager_proxies_stopped counter
workload_manager_proxies_stopped_total 0
# TYPE adit_agent_errors counter
adit_agent_errors_total 0
# TYPE adit_config_file_errors counter
adit_config_file_errors_total 0
# TYPE adit_certificates_issued counter
adit_certificates_issued_total 0
# TYPE adit_policy_unknown counter
adit_policy_unknown_total 0
# TYPE adit_dry_run_findings counter
adit_dry_run_findings_total 0
# TYPE adit_panics counter
adit_panics_total 0
# TYPE adit_crl_lists gauge
adit_crl_lists 0
# TYPE adit_crl_last_load_timestamp_seconds gauge
adit_crl_last_load_timestamp_seconds 0
# TYPE adit_crl_load_errors counter
adit_crl_load_errors_total 0
# TYPE adit_xds_lookups gauge
adit_xds_lookups 0
# TYPE adit_xds_connected gauge
adit_xds_connected 0
# TYPE adit_xds_last_response_timestamp_seconds gauge
adit_xds_last_response_timestamp_seconds 0
# TYPE adit_xds_snapshot_saved_timestamp_seconds gauge
adit_xds_snapshot_saved_timestamp_seconds 0
# TYPE adit_xds_snapshot_errors counter
adit_xds_snapshot_errors_total 0
# TYPE workload_manager_active_proxy_count gauge
workload_manager_active_proxy_count 0
# TYPE workload_manager_pending_proxy_count gauge
workload_manager_pending_proxy_count 0
# TYPE adit_config_file_last_success_timestamp_seconds gauge
adit_config_file_last_success_timestamp_seconds 0
# TYPE adit_development_ca gauge
adit_development_ca 0
# TYPE adit_traffic_labels_overflowed counter
adit_traffic_labels_overflowed_total 0
# TYPE adit_refusals counter
# TYPE istio_tcp_sockets_open gauge
istio_tcp_sockets_open{reporter=\"source\"} 0
istio_tcp_sockets_open{reporter=\"destination\"} 0
# TYPE adit_same_node_connections counter
adit_same_node_connections_total{reporter=\"source\"} 0
adit_same_node_connections_total{reporter=\"destination\"} 0
# TYPE adit_tls12_tunnels counter
adit_tls12_tunnels_total{reporter=\"source\"} 0
adit_tls12_tunnels_total{reporter=\"destination\"} 0
# TYPE adit_malformed_headers counter
adit_malformed_headers_total{header=\"baggage\"} 0
adit_malformed_headers_total{header=\"forwarded\"} 0
adit_malformed_headers_total{header=\"traceparent\"} 0
# TYPE process_open_fds gauge
# TYPE process_max_fds gauge
# EOF";
    assert_eq!(lines, expected.lines().collect::<Vec<_>>());
}

#[test]
fn every_reason_is_exposed_under_its_own_word() {
    let (_, metrics) = report();
    for reason in Reason::ALL {
        metrics.failed(*reason, Direction::Inbound);
        let one = format!(
            "adit_refusals_total{{reason=\"{}\",reporter=\"destination\"}}",
            reason.as_str()
        );
        assert_eq!(lines(&metrics, &[&one]), [format!("{one} 1")]);
    }
    assert_eq!(lines(&metrics, &["adit_refusals_total"]).len(), 2 * Reason::ALL.len());
}

#[test]
fn the_traffic_of_one_failed_connection() {
    let (report, metrics) = report();
    let mut plain = connection(Direction::Inbound, Transport::Plaintext);
    plain.destination.workload = None;
    plain.service = None;
    let live = report.opened("uid", plain);
    live.request_bytes(7);
    live.request_bytes(3);
    live.response_bytes(5);
    let labels = |flag: &str| {
        format!(
            "{{reporter=\"destination\",source_workload=\"web\",source_canonical_service=\"web\",\
             source_canonical_revision=\"v1\",source_workload_namespace=\"shop\",\
             source_principal=\"unknown\",source_app=\"web\",source_version=\"v1\",\
             source_cluster=\"c1\",destination_service=\"unknown\",\
             destination_service_namespace=\"unknown\",destination_service_name=\"unknown\",\
             destination_workload=\"unknown\",destination_canonical_service=\"unknown\",\
             destination_canonical_revision=\"unknown\",\
             destination_workload_namespace=\"unknown\",\
             destination_principal=\"spiffe://cluster.local/ns/shop/sa/cart\",\
             destination_app=\"unknown\",destination_version=\"unknown\",\
             destination_cluster=\"unknown\",request_protocol=\"tcp\",response_flags=\"{flag}\",\
             connection_security_policy=\"unknown\"}}"
        )
    };
    let opened = [
        format!("istio_tcp_connections_opened_total{} 1", labels("-")),
        format!("istio_tcp_received_bytes_total{} 10", labels("-")),
        format!("istio_tcp_sent_bytes_total{} 5", labels("-")),
    ];
    assert_eq!(
        lines(&metrics, &["istio_tcp_connections", "istio_tcp_re", "istio_tcp_sen"]),
        opened
    );
    live.finish(Err(Reason::PolicyDenied.into()));
    let closed = [
        format!("istio_tcp_connections_opened_total{} 1", labels("-")),
        format!("istio_tcp_connections_closed_total{} 1", labels("DENY")),
        format!("istio_tcp_received_bytes_total{} 10", labels("-")),
        format!("istio_tcp_sent_bytes_total{} 5", labels("-")),
        format!("istio_tcp_connections_failed_total{} 1", labels("DENY")),
    ];
    assert_eq!(
        lines(&metrics, &["istio_tcp_connections", "istio_tcp_re", "istio_tcp_sen"]),
        closed
    );
}

#[test]
fn label_values_from_peers_are_escaped() {
    let (report, metrics) = report();
    let mut hostile = connection(Direction::Inbound, Transport::Hbone);
    hostile.source.workload = None;
    hostile.source.claimed = Some(Arc::new(crate::wire::baggage::Baggage {
        workload_name: Some("a\"} 1\n# EOF\nb\\".into()),
        ..Default::default()
    }));
    report.opened("uid", hostile).finish(Ok(()));
    let opened = lines(&metrics, &["istio_tcp_connections_opened_total"]);
    assert_eq!(opened.len(), 1);
    assert!(opened[0].contains(r#"source_workload="a\"} 1\n# EOF\nb\\","#), "{opened:?}");
}

/// How many label sets there are, of what was opened.
fn opened(metrics: &Metrics) -> Vec<String> {
    lines(metrics, &["istio_tcp_connections_opened_total"])
}

#[test]
fn claims_cannot_grow_the_exposition_without_bound() {
    let (report, metrics) = report();
    let claiming = |name: String| {
        let mut claiming = connection(Direction::Inbound, Transport::Hbone);
        claiming.source.workload = None;
        claiming.source.claimed = Some(Arc::new(crate::wire::baggage::Baggage {
            workload_name: Some(name.into()),
            ..Default::default()
        }));
        claiming
    };
    for i in 0..2_600 {
        report.opened("uid", claiming(format!("claim-{i}"))).finish(Ok(()));
    }
    let claims = opened(&metrics);
    assert_eq!(claims.len(), 2_501);
    let honest = claims.iter().find(|line| line.contains("source_workload=\"unknown\"")).unwrap();
    assert!(honest.ends_with(" 100"), "{honest}");
    let overflowed = ["adit_traffic_labels_overflowed_total 100"];
    assert_eq!(lines(&metrics, &["adit_traffic_labels_overflowed_total"]), overflowed);
    // Records still get labels of their own.
    report.opened("uid", connection(Direction::Inbound, Transport::Hbone)).finish(Ok(()));
    assert_eq!(opened(&metrics).len(), 2_502);
}

#[test]
fn records_cannot_grow_the_exposition_without_bound() {
    let (report, metrics) = report();
    for i in 0..10_010 {
        let mut one = connection(Direction::Outbound, Transport::Hbone);
        let name = format!("workload-{i}").into();
        let workload = crate::model::Workload { workload_name: name, ..client() };
        one.source.workload = Some(Arc::new(workload));
        report.opened("uid", one).finish(Ok(()));
    }
    let all = opened(&metrics);
    assert_eq!(all.len(), 10_001);
    let rest = all.iter().find(|line| line.contains("source_workload=\"unknown\"")).unwrap();
    assert!(rest.ends_with(" 10"), "{rest}");
}

#[test]
fn computed_metrics_appear_once_they_have_a_source() {
    let metrics = Metrics::new("unknown");
    let prefixes = [
        "adit_snapshot",
        "adit_workloads",
        "adit_services",
        "adit_policies",
        "adit_certificate_expiry",
    ];
    assert_eq!(lines(&metrics, &prefixes), [""; 0]);
    let (mut publisher, view) = Publisher::new();
    metrics.watch_mesh(view);
    publisher.publish(Delta { workloads: vec![client()], ..Delta::default() });
    let identity = client().identity();
    metrics.watch_certificates(move || {
        vec![CertificateExpiry { identity: identity.clone(), not_after_seconds: 1_787_184_000 }]
    });
    let expected = [
        "adit_snapshot_generation 1",
        "adit_workloads 1",
        "adit_services 0",
        "adit_policies 0",
        "adit_certificate_expiry_timestamp_seconds\
         {identity=\"spiffe://cluster.local/ns/shop/sa/web\"} 1787184000",
    ];
    assert_eq!(lines(&metrics, &prefixes), expected);
    crate::report::log::tests::capture("info", false, |log| metrics.watch_log(log.clone()));
    let dropped = lines(&metrics, &["adit_log_lines_dropped"]);
    assert_eq!(dropped, ["adit_log_lines_dropped_total 0"]);
    let process = lines(&metrics, &["process_"]);
    let value = |line: &String| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(process.len(), 2);
    assert!(process.iter().all(|line| value(line) > 0), "{process:?}");
}

#[test]
fn typed_handles_are_exposed() {
    let metrics = Metrics::new("unknown");
    metrics.pods.active.set(3);
    metrics.pods.pending.set(2);
    metrics.pods.started.inc_by(5);
    metrics.pods.stopped.inc();
    metrics.pods.agent_errors.inc_by(7);
    metrics.config_file.errors.inc();
    metrics.config_file.last_success_seconds.set(99);
    metrics.development_ca.set(1);
    metrics.policy_unknown.inc();
    metrics.dry_run_findings.inc_by(4);
    metrics.panics.inc();
    metrics.certificates.issued.inc_by(6);
    metrics.certificates.failed("denied");
    metrics.malformed_header("baggage");
    let prefixes = [
        "workload_manager",
        "adit_agent",
        "adit_config",
        "adit_certificate",
        "adit_dev",
        "adit_policy",
        "adit_dry",
        "adit_panics",
        "adit_malformed_headers_total{header=\"b",
    ];
    let expected = [
        "workload_manager_proxies_started_total 5",
        "workload_manager_proxies_stopped_total 1",
        "adit_agent_errors_total 7",
        "adit_config_file_errors_total 1",
        "adit_certificates_issued_total 6",
        "adit_policy_unknown_total 1",
        "adit_dry_run_findings_total 4",
        "adit_panics_total 1",
        "adit_certificate_failures_total{kind=\"denied\"} 1",
        "workload_manager_active_proxy_count 3",
        "workload_manager_pending_proxy_count 2",
        "adit_config_file_last_success_timestamp_seconds 99",
        "adit_development_ca 1",
        "adit_malformed_headers_total{header=\"baggage\"} 1",
    ];
    assert_eq!(lines(&metrics, &prefixes), expected);
}
