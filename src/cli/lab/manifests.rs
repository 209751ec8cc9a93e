//! The pods of a laboratory as Kubernetes writes them, for `adit control`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::mesh::Lab;
use super::redirect::Redirection;

/// Namespaces in ambient mode and their pods, each labelled `app: <its name>`; those that are not
/// captured have opted out. YAML that more documents can be appended to.
pub fn pods(lab: &Lab) -> String {
    let namespaces: BTreeSet<&str> = lab.pods().map(|pod| &*pod.plan.namespace).collect();
    let mut yaml = String::new();
    for name in namespaces {
        let _ = write!(
            yaml,
            "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    \
             istio.io/dataplane-mode: ambient\n"
        );
    }
    for pod in lab.pods() {
        let plan = &pod.plan;
        let out = match plan.redirection {
            Redirection::Off => "\n    istio.io/dataplane-mode: none",
            Redirection::Ambient | Redirection::Dedicated => "",
        };
        let ips: Vec<String> = pod.addresses().iter().map(|ip| format!("ip: \"{ip}\"")).collect();
        let _ = write!(
            yaml,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  \
             namespace: {namespace}\n  labels:\n    app: {name}{out}\nspec:\n  nodeName: {node}\n  \
             serviceAccountName: {account}\nstatus:\n  podIP: {ip}\n  podIPs: [{{{ips}}}]\n",
            name = plan.name,
            namespace = plan.namespace,
            node = plan.node,
            account = plan.service_account,
            ip = pod.ipv4,
            ips = ips.join("}, {"),
        );
    }
    yaml
}
