//! The effective configuration for the config dump (spec operations 6). It holds no secrets.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    CertificateSource, Config, DataPathConfig, IdentityConfig, LocalSource, MeshSource, Mode,
    OriginalSource, SameNode, TlsPolicy, Token, UnknownRevocation, Upstream, XdsSnapshot,
};

impl Config {
    /// The effective configuration, with the limits.
    pub fn dump(&self) -> Value {
        let (local, xds) = match &self.mesh_from {
            None => (None, None),
            Some(MeshSource::Local(source)) => (Some(source), None),
            Some(MeshSource::Server(xds)) => (None, Some(xds)),
        };
        json!({
            "network": *self.node.network,
            "nodeName": self.node.node_name.as_deref(),
            "clusterId": *self.node.cluster_id,
            "clusterDomain": *self.node.cluster_domain,
            "mode": mode(&self.mode),
            "dataPath": data_path(&self.data_path),
            "identity": identity(&self.identity),
            "localSource": local.map(local_source),
            "xds": xds.map(|xds| upstream(&xds.server)),
            "xdsSnapshot": xds.and_then(|xds| xds.snapshot.as_ref()).map(snapshot),
            "workers": self.workers,
            "log": {
                "filter": self.log.filter,
                "json": self.log.json,
                "policyDecisionsAtInfo": self.log.policy_decisions_at_info,
            },
            "servers": {
                "adminPort": self.servers.admin_port,
                "stats": self.servers.stats.to_string(),
                "readiness": self.servers.readiness.to_string(),
            },
            "terminationDeadline": text(self.termination_deadline),
            "limits": self.limits,
            "warnings": self.warnings,
        })
    }
}

fn mode(mode: &Mode) -> Value {
    match mode {
        Mode::Shared { agent_socket } => {
            json!({ "kind": "shared", "agentSocket": agent_socket.display().to_string() })
        }
        Mode::Dedicated { pod } => json!({
            "kind": "dedicated",
            "namespace": *pod.namespace,
            "name": *pod.name,
            "serviceAccount": *pod.service_account,
        }),
    }
}

fn data_path(config: &DataPathConfig) -> Value {
    let original_source = match config.original_source {
        OriginalSource::Auto => "auto",
        OriginalSource::Always => "always",
        OriginalSource::Never => "never",
    };
    json!({
        "streamWindow": config.stream_window,
        "connectionWindow": config.connection_window,
        "frameSize": config.frame_size,
        "poolStreamsMax": config.pool_streams_max,
        "poolUnusedRelease": text(config.pool_unused_release),
        "keepalive": config.keepalive.map(|keepalive| json!({
            "idle": text(keepalive.idle),
            "interval": text(keepalive.interval),
            "retries": keepalive.retries,
        })),
        "userTimeout": config.user_timeout.map(text),
        "packetMark": config.packet_mark,
        "originalSource": original_source,
        "portReuse": config.port_reuse,
        "localhostAppTunnel": config.localhost_app_tunnel,
        "sameNode": match config.same_node {
            SameNode::Tunnel => "tunnel",
            SameNode::Direct => "direct",
        },
        "responseBaggage": config.response_baggage,
        "ipv6": config.ipv6,
    })
}

fn identity(config: &IdentityConfig) -> Value {
    let (development, server) = match &config.certificates_from {
        None => (None, None),
        Some(CertificateSource::Development(ca)) => (Some(ca.dir.display().to_string()), None),
        Some(CertificateSource::Server(server)) => (None, Some(upstream(server))),
    };
    json!({
        "developmentCaDir": development,
        "ca": server,
        "certificateTtl": text(config.certificate_ttl),
        "pqcOnly": config.tls == TlsPolicy::PostQuantum,
        "tls12": config.tls == TlsPolicy::Tls12,
        "revocation": config.revocation.as_ref().map(|config| json!({
            "path": config.path.display().to_string(),
            "unknown": match config.unknown {
                UnknownRevocation::Allow => "allow",
                UnknownRevocation::Refuse => "refuse",
            },
        })),
    })
}

/// Of what is secret, only that it is there.
fn upstream(server: &Upstream) -> Value {
    let token = server.token.as_ref().map(|token| match token {
        Token::File(path) => json!({ "path": path.display().to_string() }),
        Token::Text(_) => json!("text"),
    });
    let headers: Vec<&str> = server.headers.iter().map(|(name, _)| name.as_str()).collect();
    json!({
        "address": server.address.to_string(),
        "root": server.root.to_string(),
        "alternativeName": server.alternative_name,
        "token": token,
        "headers": headers,
    })
}

/// A text that was given inline is not repeated: it may be long, and the mesh is dumped beside.
fn local_source(source: &LocalSource) -> Value {
    match source {
        LocalSource::Path(path) => json!({ "path": path.display().to_string() }),
        LocalSource::Inline(text) => json!({ "inlineBytes": text.len() }),
    }
}

fn snapshot(snapshot: &XdsSnapshot) -> Value {
    json!({ "path": snapshot.path.display().to_string(), "maxAge": text(snapshot.age_max) })
}

fn text(duration: Duration) -> String {
    format!("{duration:?}")
}
