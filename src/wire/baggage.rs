//! The `baggage` header: what a workload says of itself, for telemetry only (spec hbone 3.2).

use std::sync::Arc;

/// Longest header that is looked at, all its lines together, in bytes (the limit of W3C baggage).
pub const BYTES_MAX: usize = 8_192;
/// Most members that are looked at (the limit of W3C baggage).
pub const MEMBERS_MAX: usize = 180;
/// Longest value that is sent, in bytes; Kubernetes names end at 253. Eight of them and their keys
/// stay below [`BYTES_MAX`].
pub const VALUE_BYTES_MAX: usize = 512;

/// What a header has room for before it grows.
const TYPICAL_BYTES: usize = 256;

/// The `<type>` values of `k8s.<type>.name` that exist.
const WORKLOAD_TYPES: [&str; 4] = ["deployment", "cronjob", "pod", "job"];

/// What a workload says of itself. Nothing of it is ever an input to a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    /// `k8s.cluster.name`
    pub cluster: Option<Arc<str>>,
    /// `k8s.namespace.name`
    pub namespace: Option<Arc<str>>,
    /// `k8s.<type>.name`
    pub workload_name: Option<Arc<str>>,
    /// The `<type>` of the above.
    pub workload_type: Option<Arc<str>>,
    /// `service.name`
    pub service_name: Option<Arc<str>>,
    /// `service.version`
    pub service_version: Option<Arc<str>>,
    /// `cloud.region`
    pub region: Option<Arc<str>>,
    /// `cloud.availability_zone`
    pub zone: Option<Arc<str>>,
}

impl Baggage {
    /// The header's value; empty when there is nothing to say.
    ///
    /// A value that the header cannot carry as it is (a separator, anything but printable ASCII,
    /// more than [`VALUE_BYTES_MAX`]) is left out: there is no escaping in this format.
    pub fn emit(&self) -> String {
        let mut header = String::with_capacity(TYPICAL_BYTES);
        member(&mut header, "k8s.cluster.name", &self.cluster);
        member(&mut header, "k8s.namespace.name", &self.namespace);
        let workload_type = self.workload_type.as_deref().unwrap_or_default();
        if WORKLOAD_TYPES.contains(&workload_type) {
            member(&mut header, &format!("k8s.{workload_type}.name"), &self.workload_name);
        }
        member(&mut header, "service.name", &self.service_name);
        member(&mut header, "service.version", &self.service_version);
        member(&mut header, "cloud.region", &self.region);
        member(&mut header, "cloud.availability_zone", &self.zone);
        header
    }

    /// Reads the header's lines.
    ///
    /// `None` if there is no line, or if all of it is to be ignored: it is over [`BYTES_MAX`] or
    /// [`MEMBERS_MAX`], or has anything but printable ASCII in it (a tab or line feed would forge
    /// fields of a log).
    pub fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut found = None;
        let (mut bytes, mut members) = (0_usize, 0_usize);
        for line in lines {
            bytes = bytes.saturating_add(line.len());
            if bytes > BYTES_MAX || !line.iter().all(|byte| (b' '..=b'~').contains(byte)) {
                return None;
            }
            let line = std::str::from_utf8(line).ok()?;
            let baggage: &mut Self = found.get_or_insert_default();
            for member in line.split(',') {
                members += 1;
                if members > MEMBERS_MAX {
                    return None;
                }
                baggage.read_member(member);
            }
        }
        found
    }

    /// Takes one `key=value` over; what follows a second `=` is dropped.
    fn read_member(&mut self, member: &str) {
        let mut parts = member.split('=');
        let (Some(key), Some(value)) = (parts.next(), parts.next()) else { return };
        let field = match key {
            "k8s.cluster.name" => &mut self.cluster,
            "k8s.namespace.name" => &mut self.namespace,
            "service.name" => &mut self.service_name,
            "service.version" => &mut self.service_version,
            "cloud.region" => &mut self.region,
            "cloud.availability_zone" => &mut self.zone,
            _ => {
                let middle = key.strip_prefix("k8s.").and_then(|rest| rest.strip_suffix(".name"));
                let Some(known) = WORKLOAD_TYPES.iter().find(|known| middle == Some(known)) else {
                    return;
                };
                let named = !value.is_empty();
                self.workload_type = named.then(|| Arc::from(*known));
                &mut self.workload_name
            }
        };
        *field = (!value.is_empty()).then(|| Arc::from(value));
    }
}

fn member(header: &mut String, key: &str, value: &Option<Arc<str>>) {
    let Some(value) = value.as_deref() else { return };
    let legal = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=';
    if value.is_empty() || value.len() > VALUE_BYTES_MAX || !value.bytes().all(legal) {
        return;
    }
    if !header.is_empty() {
        header.push(',');
    }
    header.push_str(key);
    header.push('=');
    header.push_str(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arc(text: &str) -> Option<Arc<str>> {
        Some(Arc::from(text))
    }

    fn full() -> Baggage {
        Baggage {
            cluster: arc("k1"),
            namespace: arc("shop"),
            workload_name: arc("cart"),
            workload_type: arc("deployment"),
            service_name: arc("cart-svc"),
            service_version: arc("v2"),
            region: arc("r"),
            zone: arc("z"),
        }
    }

    /// Parses `lines` and compares what it would send again.
    fn check(lines: &[&[u8]], expected: Option<&str>) {
        let got = Baggage::parse(lines.iter().copied()).map(|baggage| baggage.emit());
        assert_eq!(got.as_deref(), expected, "{lines:?}");
    }

    #[test]
    fn emits_in_the_order_of_the_table_and_skips_what_is_empty() {
        let all = "k8s.cluster.name=k1,k8s.namespace.name=shop,k8s.deployment.name=cart,\
                   service.name=cart-svc,service.version=v2,cloud.region=r,\
                   cloud.availability_zone=z";
        assert_eq!(full().emit(), all);
        assert_eq!(Baggage::parse([all.as_bytes()].into_iter()), Some(full()));
        let some = Baggage { cluster: arc(""), region: None, ..full() };
        assert!(some.emit().starts_with("k8s.namespace.name=shop,"));
        assert!(!some.emit().contains("cloud.region"));
        assert_eq!(Baggage::default().emit(), "");
    }

    #[test]
    fn a_value_that_would_break_the_header_is_left_out() {
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        for odd in
            ["a,k8s.namespace.name=admin", "a,b", "a=b", "a\r\nb", "caf\u{e9}", "a\tb", &long]
        {
            let baggage = Baggage { cluster: arc(odd), namespace: arc("n"), ..Baggage::default() };
            assert_eq!(baggage.emit(), "k8s.namespace.name=n", "{odd:?}");
        }
        let longest = Some(Arc::from("x".repeat(VALUE_BYTES_MAX)));
        let baggage = Baggage {
            cluster: longest.clone(),
            namespace: longest.clone(),
            workload_name: longest.clone(),
            service_name: longest.clone(),
            service_version: longest.clone(),
            region: longest.clone(),
            zone: longest,
            workload_type: arc("deployment"),
        };
        assert!(baggage.emit().len() <= BYTES_MAX);
    }

    #[test]
    fn reads_as_upstream_does() {
        check(&[], None);
        check(&[b""], Some(""));
        check(&[b"service.name=a", b"service.version=b"], Some("service.name=a,service.version=b"));
        check(&[b"service.name=a,service.name=b"], Some("service.name=b"));
        check(&[b"service.name=a,service.name="], Some(""));
        check(&[b"service.name=a=b=c"], Some("service.name=a"));
        check(&[b"service.name=a, cloud.region=r"], Some("service.name=a"));
        check(&[b"service.name= a"], Some("service.name= a"));
        check(&[b"service.name=a,service.name"], Some("service.name=a"));
        check(&[b"k8s.pod.name=p,k8s.job.name=j"], Some("k8s.job.name=j"));
        check(&[b"k8s.pod.name=p,k8s.pod.name="], Some(""));
        check(&[b"k8s.daemonset.name=p,k8s..name=q,k8s.name=r,unknown=s,==,,"], Some(""));
    }

    #[test]
    fn is_ignored_as_a_whole_when_it_is_malformed_or_too_big() {
        check(&[b"service.name=a", "cloud.region=\u{e9}".as_bytes()], None);
        check(&[b"service.name=a\xff"], None);
        check(&[b"service.name=a\n"], None);
        let at = |size: usize| format!("service.name=a,{}", "x".repeat(size - 15)).into_bytes();
        check(&[&at(BYTES_MAX)], Some("service.name=a"));
        check(&[&at(BYTES_MAX + 1)], None);
        check(&[&at(BYTES_MAX), b"x"], None);
        let many = |count: usize| format!("service.name=a{}", ",".repeat(count - 1)).into_bytes();
        check(&[&many(MEMBERS_MAX)], Some("service.name=a"));
        check(&[&many(MEMBERS_MAX + 1)], None);
    }

    #[test]
    fn any_bytes_are_read_or_ignored() {
        let mut rng = fastrand::Rng::with_seed(3);
        let pieces: [&[u8]; 8] =
            [b"k8s.", b"pod", b".name", b"=", b",", b"service.name=x", b"\xff", b""];
        for _ in 0..20_000 {
            let pick = |rng: &mut fastrand::Rng| pieces[rng.usize(..pieces.len())];
            let line: Vec<u8> = (0..rng.u8(..8)).flat_map(|_| pick(&mut rng)).copied().collect();
            if let Some(read) = Baggage::parse([&*line].into_iter()) {
                let again = Baggage::parse([read.emit().as_bytes()].into_iter());
                assert_eq!(again, Some(read), "{}", String::from_utf8_lossy(&line));
            }
        }
    }
}
