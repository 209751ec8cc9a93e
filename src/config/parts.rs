//! One reader for each part of the configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::env::Env;
use super::mesh_file::ProxyConfig;
use super::revocation::revocation;
use super::values::{duration, duration_within, number};
use super::{
    CertificateSource, DataPathConfig, IdentityConfig, Keepalive, LogConfig, Mode, NodeConfig,
    OriginalSource, SameNode, ServersConfig, TlsPolicy,
};
use crate::model::PodName;

const CLUSTER_ID_DEFAULT: &str = "Kubernetes";
const CLUSTER_DOMAIN_DEFAULT: &str = "cluster.local";
const AGENT_SOCKET_DEFAULT: &str = "/var/run/ztunnel/ztunnel.sock";
const LOG_FILTER_DEFAULT: &str = "info";
const ADMIN_PORT_DEFAULT: u16 = 15_000;
const STATS_PORT_DEFAULT: u16 = 15_020;
const READINESS_PORT: u16 = 15_021;
/// What the rules in pods let pass untouched (spec redirection 2).
const PACKET_MARK_DEFAULT: u32 = 1337;
const PACKET_MARK_MASK: u32 = 0xfff;
const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(180);
const KEEPALIVE_RETRIES_DEFAULT: u32 = 9;
/// What the kernel takes for TCP_KEEPIDLE and TCP_KEEPINTVL.
const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);
/// What the kernel takes for TCP_KEEPCNT.
const KEEPALIVE_RETRIES_MAX: u32 = 127;
/// What the kernel takes for TCP_USER_TIMEOUT: milliseconds in a signed number.
const USER_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX.unsigned_abs() as u64);
/// Largest HTTP/2 window (RFC 9113 6.9.1).
const WINDOW_MAX: u32 = 0x7fff_ffff;
const TERMINATION_DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
const GRACE_SECONDS_MAX: u64 = 365 * 24 * 3600;
const CERTIFICATE_TTL_DEFAULT: Duration = Duration::from_secs(24 * 3600);
const CERTIFICATE_TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) fn node(env: &mut Env<'_>, proxy: &ProxyConfig) -> NodeConfig {
    let cluster_id = proxy.metadata(env, "CLUSTER_ID").or_else(|| env.text("CLUSTER_ID"));
    let or = |text: Option<String>, default: &str| text.unwrap_or_else(|| default.to_owned());
    NodeConfig {
        network: or(env.text("NETWORK"), "").into(),
        node_name: env.text("NODE_NAME").map(Arc::from),
        cluster_id: or(cluster_id, CLUSTER_ID_DEFAULT).into(),
        cluster_domain: or(env.text("CLUSTER_DOMAIN"), CLUSTER_DOMAIN_DEFAULT).into(),
    }
}

pub(super) fn mode(env: &mut Env<'_>) -> Mode {
    let agent_socket = env.text("INPOD_UDS").unwrap_or_else(|| AGENT_SOCKET_DEFAULT.to_owned());
    let dedicated = env.value("PROXY_MODE", |text| match text {
        "shared" => Ok(false),
        "dedicated" => Ok(true),
        _ => Err("is neither shared nor dedicated".to_owned()),
    });
    if dedicated != Some(true) {
        return Mode::Shared { agent_socket: agent_socket.into() };
    }
    const POD: &str = "PROXY_WORKLOAD_INFO";
    if !env.is_set(POD) {
        env.wrong(POD, "is required when PROXY_MODE is dedicated");
    }
    let pod = env.value(POD, |text| {
        let mut parts = text.splitn(3, '/').filter(|part| !part.is_empty()).map(Arc::from);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some(name), Some(service_account)) => {
                Ok(PodName { name, namespace, service_account })
            }
            _ => Err("is not namespace/name/service-account".to_owned()),
        }
    });
    let empty = || Arc::from("");
    Mode::Dedicated {
        pod: pod.unwrap_or_else(|| PodName {
            name: empty(),
            namespace: empty(),
            service_account: empty(),
        }),
    }
}

pub(super) fn data_path(env: &mut Env<'_>, shared: bool) -> DataPathConfig {
    let (keepalive, user_timeout) = liveness(env);
    let window = || number(1..=WINDOW_MAX);
    let original_source = match env.value("ENABLE_ORIG_SRC", super::values::switch) {
        None => OriginalSource::Auto,
        Some(true) => OriginalSource::Always,
        Some(false) => OriginalSource::Never,
    };
    DataPathConfig {
        stream_window: env.value("HTTP2_STREAM_WINDOW_SIZE", window()).unwrap_or(4 << 20),
        connection_window: env.value("HTTP2_CONNECTION_WINDOW_SIZE", window()).unwrap_or(16 << 20),
        // RFC 9113 6.5.2.
        frame_size: env.value("HTTP2_FRAME_SIZE", number(16_384..=16_777_215)).unwrap_or(1 << 20),
        pool_streams_max: env
            .value("POOL_MAX_STREAMS_PER_CONNECTION", number(1..=u16::MAX))
            .unwrap_or(100),
        pool_unused_release: env
            .value("POOL_UNUSED_RELEASE_TIMEOUT", duration)
            .unwrap_or(Duration::from_secs(300)),
        keepalive,
        user_timeout,
        packet_mark: packet_mark(env, shared),
        original_source,
        port_reuse: env.switch("INPOD_PORT_REUSE", true),
        localhost_app_tunnel: env.switch("LOCALHOST_APP_TUNNEL", true),
        same_node: env.value("SAME_NODE", same_node).unwrap_or(SameNode::Tunnel),
        response_baggage: env.switch("ENABLE_RESPONSE_BAGGAGE", true),
        ipv6: env.switch("IPV6_ENABLED", true),
    }
}

fn same_node(text: &str) -> Result<SameNode, String> {
    match text {
        "tunnel" => Ok(SameNode::Tunnel),
        "direct" => Ok(SameNode::Direct),
        _ => Err("is neither tunnel nor direct".to_owned()),
    }
}

/// Keepalive and user timeout, within what the kernel takes: it would refuse them on every socket.
fn liveness(env: &mut Env<'_>) -> (Option<Keepalive>, Option<Duration>) {
    let time = || duration_within(Duration::from_secs(1)..=KEEPALIVE_MAX);
    let enabled = env.switch("KEEPALIVE_ENABLED", true);
    let keepalive = Keepalive {
        idle: env.value("KEEPALIVE_TIME", time()).unwrap_or(KEEPALIVE_DEFAULT),
        interval: env.value("KEEPALIVE_INTERVAL", time()).unwrap_or(KEEPALIVE_DEFAULT),
        retries: env
            .value("KEEPALIVE_RETRIES", number(1..=KEEPALIVE_RETRIES_MAX))
            .unwrap_or(KEEPALIVE_RETRIES_DEFAULT),
    };
    // As long as keepalive takes to give up (spec hbone 9).
    let user_timeout = keepalive.idle + keepalive.interval * keepalive.retries;
    let user_timeout = user_timeout.min(USER_TIMEOUT_MAX);
    let user_timeout_enabled = env.switch("USER_TIMEOUT_ENABLED", false);
    (enabled.then_some(keepalive), user_timeout_enabled.then_some(user_timeout))
}

fn packet_mark(env: &mut Env<'_>, shared: bool) -> Option<u32> {
    const NAME: &str = "PACKET_MARK";
    let default = shared.then_some(PACKET_MARK_DEFAULT);
    let mark = env.value(NAME, number(0..=u32::MAX)).or(default);
    let passes = |mark: u32| mark & PACKET_MARK_MASK == PACKET_MARK_DEFAULT & PACKET_MARK_MASK;
    if shared && !mark.is_some_and(passes) {
        env.warn(NAME, "the rules in pods let pass 1337 only, unless the node agent is told so");
    }
    mark
}

pub(super) fn identity(
    env: &mut Env<'_>,
    certificates_from: Option<CertificateSource>,
) -> IdentityConfig {
    let ttl = duration_within(Duration::from_secs(1)..=CERTIFICATE_TTL_MAX);
    IdentityConfig {
        certificates_from,
        certificate_ttl: env.value("SECRET_TTL", ttl).unwrap_or(CERTIFICATE_TTL_DEFAULT),
        tls: tls(env),
        revocation: revocation(env),
    }
}

fn tls(env: &mut Env<'_>) -> TlsPolicy {
    let policy = env.value("COMPLIANCE_POLICY", |text| match text {
        "" => Ok(TlsPolicy::Tls13),
        "pqc" => Ok(TlsPolicy::PostQuantum),
        // Going on without what was asked for would be a broken promise.
        _ => Err("is not a policy that is known here: only pqc is".to_owned()),
    });
    let policy = policy.unwrap_or_default();
    match (env.switch("TLS12_ENABLED", false), policy) {
        (false, policy) => policy,
        (true, TlsPolicy::PostQuantum) => {
            // TLS 1.2 has no such key exchange: one of the two would be a broken promise.
            env.wrong("TLS12_ENABLED", "COMPLIANCE_POLICY=pqc allows TLS 1.3 only");
            policy
        }
        (true, _) => TlsPolicy::Tls12,
    }
}

pub(super) fn log(env: &mut Env<'_>) -> LogConfig {
    let json = env.value("LOG_FORMAT", |text| match text {
        "json" => Ok(true),
        "" | "plain" => Ok(false),
        _ => Err("is neither json nor plain".to_owned()),
    });
    LogConfig {
        filter: env.text("RUST_LOG").unwrap_or_else(|| LOG_FILTER_DEFAULT.to_owned()),
        json: json.unwrap_or(false),
        policy_decisions_at_info: env.switch("AUTHZ_POLICY_INFO_LOGGING", false),
    }
}

pub(super) fn servers(env: &mut Env<'_>, proxy: &ProxyConfig, ipv6: bool) -> ServersConfig {
    let wildcard: IpAddr =
        if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let admin_port = proxy.proxy_admin_port.unwrap_or(ADMIN_PORT_DEFAULT);
    let stats_port = proxy.stats_port.unwrap_or(STATS_PORT_DEFAULT);
    let ports = [admin_port, stats_port, READINESS_PORT];
    if ports.iter().enumerate().any(|(at, port)| *port != 0 && ports[..at].contains(port)) {
        let text = format!(
            "{admin_port} for admin and {stats_port} for stats: the ports of the \
            servers must differ, and {READINESS_PORT} is for readiness"
        );
        env.wrong("PROXY_CONFIG", text);
    }
    ServersConfig {
        admin_port,
        stats: SocketAddr::new(wildcard, stats_port),
        readiness: SocketAddr::new(wildcard, READINESS_PORT),
    }
}

/// The deadline that was named, else what the grace period leaves (spec operations 9).
pub(super) fn termination_deadline(env: &mut Env<'_>) -> Duration {
    let named = env.value("CONNECTION_TERMINATION_DEADLINE", duration);
    let grace = env.value("TERMINATION_GRACE_PERIOD_SECONDS", number(0..=GRACE_SECONDS_MAX));
    let left = |grace: u64| {
        let margin = if grace > 10 { 5 } else { 1 };
        Duration::from_secs(grace.saturating_sub(margin).max(1))
    };
    named.or_else(|| grace.map(left)).unwrap_or(TERMINATION_DEADLINE_DEFAULT)
}

pub(super) fn istio_version(env: &mut Env<'_>, proxy: &ProxyConfig) -> Option<String> {
    proxy.metadata(env, "ISTIO_VERSION")
}

/// Parts that this version does not have: an error where going on would break what was asked for,
/// else a warning.
pub(super) fn absent(env: &mut Env<'_>, proxy: &ProxyConfig) {
    if !env.switch("ENABLE_PROXY", true) {
        env.wrong("ENABLE_PROXY", "without the proxy there is nothing to run");
    }
    if env.switch("UNSTABLE_ENABLE_SOCKS5", false) {
        env.wrong("UNSTABLE_ENABLE_SOCKS5", "this version has no SOCKS5 listener");
    }
    let dns = proxy.metadata(env, "DNS_CAPTURE");
    let dns_on = dns.as_ref().map(|text| text.eq_ignore_ascii_case("true"));
    if dns_on == Some(true) || (dns_on.is_none() && env.is_set("KUBERNETES_SERVICE_HOST")) {
        let text = "this version answers no DNS on port 15053: pods whose rules redirect it there \
            resolve nothing. Turn DNS capture off in the node agent (AMBIENT_DNS_CAPTURE=false)";
        env.warn("ISTIO_META_DNS_CAPTURE", text);
    }
    if env.text("PREFERED_SERVICE_NAMESPACE").is_some() {
        env.warn("PREFERED_SERVICE_NAMESPACE", "this version answers no DNS; it has no effect");
    }
}
