use super::*;
use crate::report::Transport;
use crate::report::fixtures::{connection, side};
use crate::report::log::tests::{capture, untimed};
use crate::report::metrics::tests::lines;

fn report() -> Report {
    Report::new(Arc::new(Metrics::new("unknown")), Clock::system())
}

/// What is counted under a prefix, summed over all labels.
fn count(report: &Report, prefix: &str) -> u64 {
    let values = lines(report.metrics(), &[prefix]);
    values.iter().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// Opened, closed, failed, and connections in the list.
fn counts(report: &Report) -> (u64, u64, u64, usize) {
    let listed = report.connections().values().map(PodConnections::count).sum();
    (
        count(report, "istio_tcp_connections_opened_total{"),
        count(report, "istio_tcp_connections_closed_total{"),
        count(report, "istio_tcp_connections_failed_total{"),
        listed,
    )
}

#[test]
fn a_connection_is_counted_at_its_opening_and_at_its_end() {
    let report = report();
    let live = report.opened("a", connection(Direction::Outbound, Transport::Hbone));
    assert_eq!(counts(&report), (1, 0, 0, 1));
    live.request_bytes(10);
    live.response_bytes(1);
    assert_eq!(count(&report, "istio_tcp_received_bytes_total{"), 10);
    live.finish(Ok(()));
    assert_eq!(counts(&report), (1, 1, 0, 0));
    let again = report.opened("a", connection(Direction::Outbound, Transport::Hbone));
    again.request_bytes(5);
    assert_eq!(count(&report, "istio_tcp_received_bytes_total{"), 15);
    assert_eq!(count(&report, "istio_tcp_sent_bytes_total{"), 1);
    again.finish(Err(Reason::PeerReset.into()));
    assert_eq!(counts(&report), (2, 2, 1, 0));
    assert_eq!(count(&report, "istio_tcp_received_bytes_total{"), 15);
    assert_eq!(count(&report, "adit_refusals_total{reason=\"peer_reset\""), 1);
}

#[test]
fn the_flag_is_that_of_the_reason_and_an_opened_connection_always_has_one() {
    let check = |reason: Reason, flag: &str| {
        let report = report();
        let live = report.opened("a", connection(Direction::Outbound, Transport::Hbone));
        live.finish(Err(reason.into()));
        let failed = lines(report.metrics(), &["istio_tcp_connections_failed_total{"]);
        assert_eq!(failed.len(), 1);
        let label = format!("response_flags=\"{flag}\"");
        assert!(failed[0].contains(&label), "{reason:?}: {failed:?}");
    };
    check(Reason::PolicyChanged, "DENY");
    check(Reason::Dial, "CONNECT");
    check(Reason::TunnelDialTimeout, "NETWORK_POLICY");
    check(Reason::TunnelTls, "TLS_FAILURE");
    check(Reason::TunnelHttp2, "H2_HANDSHAKE_FAILURE");
    check(Reason::NoCertificate, "IDENTITY_ERROR");
    check(Reason::TooManyConnections, "CONNECT");
}

#[test]
fn an_early_refusal_is_in_no_traffic_counter() {
    let report = report();
    let addr = "10.0.0.1:1".parse().unwrap();
    let early = Early { direction: Direction::Inbound, source: addr, destination: addr };
    report.refused(early, &Reason::TlsHandshake.into());
    assert_eq!(counts(&report), (0, 0, 0, 0));
    let refused = "adit_refusals_total{reason=\"tls_handshake\",reporter=\"destination\"}";
    assert_eq!(count(&report, refused), 1);
}

#[test]
fn what_is_dropped_unfinished_is_logged_once_with_a_reason() {
    let report = report();
    let open = || report.opened("a", connection(Direction::Inbound, Transport::Hbone));
    let text = capture("info", false, |_| drop(open()));
    let dropped = untimed(&text);
    assert_eq!(dropped.len(), 1);
    assert!(dropped[0].contains("error=\"drain_deadline\""), "{text}");
    let text = capture("info", false, |_| {
        let live = open();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _live = live;
            std::panic::resume_unwind(Box::new("a test"));
        }));
        assert!(panicked.is_err());
    });
    assert!(text.contains("error=\"panic\""), "{text}");
    let text = capture("info", false, |_| open().finish(Ok(())));
    assert_eq!(text.lines().count(), 1);
    assert_eq!(counts(&report), (3, 3, 2, 0));
}

#[test]
fn bytes_are_logged_as_the_pod_sees_them_with_the_time_it_took() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let text = capture("info", false, |_| {
        runtime.unwrap().block_on(async {
            let report = report();
            let live = report.opened("a", connection(Direction::Inbound, Transport::Hbone));
            live.request_bytes(3);
            live.response_bytes(4);
            tokio::time::advance(std::time::Duration::from_millis(1_234)).await;
            live.finish(Ok(()));
        });
    });
    assert!(text.contains(" bytes_sent=4 bytes_recv=3 duration=\"1234ms\"\n"), "{text}");
}

#[test]
fn sockets_are_counted_while_their_guards_live() {
    let report = report();
    let open = || {
        let values = lines(report.metrics(), &["istio_tcp_sockets_open{"]);
        values.iter().map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    let first = report.socket(Direction::Outbound);
    let second = report.socket(Direction::Outbound);
    let inbound = report.socket(Direction::Inbound);
    assert_eq!(open(), ["2", "1"]);
    drop((first, inbound));
    assert_eq!(open(), ["1", "0"]);
    drop(second);
    assert_eq!(open(), ["0", "0"]);
}

#[test]
fn open_connections_are_listed_by_pod_sorted_and_bounded() {
    let report = report();
    let mut open = Vec::new();
    for port in (1..=1_003).rev() {
        let mut one = connection(Direction::Inbound, Transport::Hbone);
        one.source = side(&format!("10.0.0.1:{port}"), None);
        open.push(report.opened("busy", one));
    }
    open.push(report.opened("busy", connection(Direction::Outbound, Transport::Plaintext)));
    open.push(report.opened("other", connection(Direction::Outbound, Transport::Hbone)));
    let listed = report.connections();
    assert_eq!(listed.keys().map(|uid| &**uid).collect::<Vec<_>>(), ["busy", "other"]);
    let busy = &listed["busy"];
    assert_eq!((busy.inbound.len(), busy.outbound.len(), busy.omitted), (1_000, 1, 3));
    assert_eq!(busy.count(), 1_004);
    assert!(busy.inbound.is_sorted_by_key(|c| c.source.addr));
    drop(open);
    assert!(report.connections().is_empty());
}
