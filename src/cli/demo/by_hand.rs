//! What a person can try while the mesh is kept.

use std::os::fd::AsRawFd;

use super::mesh::{CLIENT_NODE, CONTROL, HEALTH_PORT, Mesh, SERVER_NODE};

/// Commands that need nothing but util-linux and bash.
pub(super) fn text(mesh: &Mesh) -> String {
    let enter = |pod: &str| entry(mesh.pod(pod).ok().map(|pod| pod.netns.fd().as_raw_fd()));
    let node = |node: &str| entry(mesh.lab.node(node).map(|node| node.netns.fd().as_raw_fd()));
    let service = mesh.service();
    let talk = |address: std::net::IpAddr, port: u16| {
        format!("bash -c 'exec 3<>/dev/tcp/{address}/{port}; echo hello >&3; timeout 2 cat <&3'")
    };
    let get = |port: u16, path: &str| {
        format!(
            "bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; \
             printf \"GET {path} HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n\" >&3; \
             cat <&3'"
        )
    };
    let health = mesh.health().map(|health| talk(health.ip(), HEALTH_PORT)).unwrap_or_default();
    let api = talk(service.ip(), service.port());
    let (dir, config) = (mesh.dir().display(), mesh.config().display());
    let logs = format!("{dir}/{CLIENT_NODE}.log {dir}/{SERVER_NODE}.log {dir}/{CONTROL}.log");
    format!(
        "\nThe mesh goes on running. Ctrl-C ends it and removes everything.\n\n\
         # as the allowed client, through both proxies (batch is no longer allowed)\n\
         {frontend} {api}\n\n\
         # as the intruder\n\
         {intruder} {api}\n\n\
         # plaintext from outside the mesh\n\
         {legacy} {health}\n\n\
         # pods, service and policies: edit, save, and see live connections go\n\
         \"${{EDITOR:-vi}}\" {config}\n\n\
         # what the proxies and the control plane say\n\
         tail -f {logs}\n\n\
         # metrics and configuration of the server's proxy\n\
         {server} {metrics}\n\
         {server} {dump}\n\n\
         # a shell in a pod\n\
         {frontend} bash\n\n",
        frontend = enter("frontend"),
        intruder = enter("intruder"),
        legacy = enter("legacy"),
        server = node(SERVER_NODE),
        metrics = get(15_020, "/metrics"),
        dump = get(15_000, "/config_dump"),
    )
}

/// How to get into a namespace that has no name.
fn entry(fd: Option<i32>) -> String {
    let process = std::process::id();
    let fd = fd.unwrap_or(-1);
    if nix::unistd::geteuid().is_root() && !super::userns::is_inside() {
        return format!("nsenter --net=/proc/{process}/fd/{fd}");
    }
    format!(
        "nsenter --preserve-credentials --user --target {process} --net=/proc/{process}/fd/{fd}"
    )
}
