//! A pod of a laboratory as Kubernetes writes it, for `adit control`.

use super::mesh::Pod;
use super::redirect::Redirection;

/// A document for one pod, labelled `app: <its name>`; one that is not captured has opted out of
/// the mode of its namespace.
pub fn pod(pod: &Pod) -> String {
    let plan = &pod.plan;
    let out = match plan.redirection {
        Redirection::Off => "\n    istio.io/dataplane-mode: none",
        Redirection::Ambient | Redirection::Dedicated => "",
    };
    let ips: Vec<String> = pod.addresses().iter().map(|ip| format!("ip: \"{ip}\"")).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
         labels:\n    app: {name}{out}\nspec:\n  nodeName: {node}\n  \
         serviceAccountName: {account}\nstatus:\n  podIP: {ip}\n  podIPs: [{{{ips}}}]\n",
        name = plan.name,
        namespace = plan.namespace,
        node = plan.node,
        account = plan.service_account,
        ip = pod.ipv4,
        ips = ips.join("}, {"),
    )
}
