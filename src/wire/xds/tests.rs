use prost::Message;

use super::*;

#[test]
fn kinds_are_told_by_their_exact_url() {
    for kind in ResourceType::ALL {
        assert_eq!(ResourceType::from_url(kind.url()), Some(kind));
        assert_eq!(ResourceType::from_url(&kind.url()[1..]), None);
    }
    assert_eq!(ResourceType::from_url("type.googleapis.com/istio.workload.Workload"), None);
}

#[test]
fn addresses_are_4_or_16_bytes() {
    let check = |bytes: &[u8], length: u32, expected: Result<&str, AddressError>| {
        let expected = expected.map(|text| text.parse::<IpNet>().unwrap());
        assert_eq!(range(bytes, length), expected, "{bytes:?}/{length}");
    };
    check(&[10, 1, 2, 3], 32, Ok("10.1.2.3/32"));
    check(&[10, 1, 2, 3], 16, Ok("10.1.0.0/16"));
    check(&[10, 1, 2, 3], 0, Ok("0.0.0.0/0"));
    check(&[0xff; 16], 8, Ok("ff00::/8"));
    check(&[10, 1, 2, 3], 33, Err(AddressError::Prefix(33)));
    check(&[0; 16], 129, Err(AddressError::Prefix(129)));
    check(&[0; 16], 256, Err(AddressError::Prefix(256)));
    check(&[], 0, Err(AddressError::Length(0)));
    check(&[1; 5], 1, Err(AddressError::Length(5)));
    check(&[1; 17], 1, Err(AddressError::Length(17)));
    for text in ["10.1.2.3", "2001:db8::7"] {
        let address: IpAddr = text.parse().unwrap();
        assert_eq!(ip(&ip_bytes(address)), Ok(address));
    }
}

/// Field `number` of wire type `kind`.
fn key(number: u32, kind: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | kind), &mut bytes);
    bytes
}

/// The numbers and wire types of the fields in `bytes`, in order.
fn fields(mut bytes: &[u8]) -> Vec<(u32, u32)> {
    use prost::encoding::{DecodeContext, decode_key, skip_field};
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (number, kind) = decode_key(&mut bytes).unwrap();
        skip_field(kind, number, &mut bytes, DecodeContext::default()).unwrap();
        found.push((number, kind as u32));
    }
    found
}

#[test]
fn a_workload_has_the_numbers_of_the_field_table() {
    let text = || "x".to_owned();
    let gateway = || Some(workload::GatewayAddress { hbone_mtls_port: 1, ..Default::default() });
    let full = workload::Workload {
        name: text(),
        namespace: text(),
        addresses: vec![vec![1; 4]],
        network: text(),
        tunnel_protocol: 1,
        trust_domain: text(),
        service_account: text(),
        waypoint: gateway(),
        node: text(),
        canonical_name: text(),
        canonical_revision: text(),
        workload_type: 1,
        workload_name: text(),
        native_tunnel: true,
        authorization_policies: vec![text()],
        status: 1,
        cluster_id: text(),
        network_gateway: gateway(),
        uid: text(),
        hostname: text(),
        services: [(text(), workload::PortList::default())].into(),
        application_tunnel: Some(workload::ApplicationTunnel::default()),
        locality: Some(workload::Locality::default()),
        network_mode: 1,
        extensions: vec![workload::Extension::default()],
        capacity: Some(3),
    };
    let numbers = fields(&full.encode_to_vec());
    let varints = [5, 12, 14, 17, 25];
    let expected = (1..=27).filter(|number| *number != 15);
    let expected: Vec<_> =
        expected.map(|number| (number, if varints.contains(&number) { 0 } else { 2 })).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn a_service_has_the_numbers_of_the_field_table() {
    let text = || "x".to_owned();
    let full = workload::Service {
        name: text(),
        namespace: text(),
        hostname: text(),
        addresses: vec![workload::NetworkAddress { length: Some(0), ..Default::default() }],
        ports: vec![workload::Port::default()],
        subject_alt_names: vec![text()],
        waypoint: Some(workload::GatewayAddress::default()),
        load_balancing: Some(workload::LoadBalancing::default()),
        ip_families: 1,
        extensions: vec![workload::Extension::default()],
        canonical: true,
        ingress_use_waypoint: true,
        weighted_waypoints: vec![workload::WeightedWaypoint::default()],
        visibility: 1,
    };
    let numbers = fields(&full.encode_to_vec());
    let varints = [9, 11, 12, 14];
    let expected: Vec<_> =
        (1..=14).map(|number| (number, if varints.contains(&number) { 0 } else { 2 })).collect();
    assert_eq!(numbers, expected);
    // Explicit presence: a prefix length of 0 is not the same as none.
    assert_eq!(full.addresses[0].encode_to_vec(), [key(3, 0), vec![0]].concat());
}

#[test]
fn a_policy_has_the_numbers_of_the_field_table() {
    use security::{Address, Authorization, Group, Match, Rules, ServiceAccountMatch, StringMatch};
    let strings = || vec![StringMatch::default()];
    let accounts = || vec![ServiceAccountMatch::default()];
    let ranges = || vec![Address::default()];
    let full = Match {
        namespaces: strings(),
        not_namespaces: strings(),
        principals: strings(),
        not_principals: strings(),
        source_ips: ranges(),
        not_source_ips: ranges(),
        destination_ips: ranges(),
        not_destination_ips: ranges(),
        destination_ports: vec![80],
        not_destination_ports: vec![81],
        service_accounts: accounts(),
        not_service_accounts: accounts(),
        extensions: vec![workload::Extension::default()],
    };
    let expected: Vec<_> = (1..=13).map(|number| (number, 2)).collect();
    assert_eq!(fields(&full.encode_to_vec()), expected);
    let policy = Authorization {
        name: "n".to_owned(),
        namespace: "s".to_owned(),
        scope: 2,
        action: 1,
        groups: vec![Group { rules: vec![Rules { matches: vec![Match::default()] }] }],
        dry_run: true,
        extensions: Vec::new(),
    };
    // Group 5 holds rules 1, which hold matches 2.
    let expected = [10, 1, b'n', 18, 1, b's', 24, 2, 32, 1, 42, 4, 10, 2, 18, 0, 48, 1];
    assert_eq!(policy.encode_to_vec(), expected);
    let presence = security::string_match::MatchType::Presence(());
    let presence = StringMatch { match_type: Some(presence) };
    assert_eq!(presence.encode_to_vec(), [34, 0]);
}

#[test]
fn discovery_has_the_numbers_of_the_field_table() {
    use discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status};
    let text = || "x".to_owned();
    let request = DeltaDiscoveryRequest {
        node: Some(Node { id: text(), ..Default::default() }),
        type_url: text(),
        resource_names_subscribe: vec![text()],
        resource_names_unsubscribe: vec![text()],
        initial_resource_versions: [(text(), text())].into(),
        response_nonce: text(),
        error_detail: Some(Status { code: 0, message: text(), details: Vec::new() }),
    };
    let expected: Vec<_> = (1..=7).map(|number| (number, 2)).collect();
    assert_eq!(fields(&request.encode_to_vec()), expected);
    let response = DeltaDiscoveryResponse {
        system_version_info: text(),
        resources: vec![Resource {
            version: text(),
            resource: Some(prost_types::Any::default()),
            name: text(),
            aliases: vec![text()],
            ttl: Some(prost_types::Duration::default()),
            cache_control: Some(discovery::resource::CacheControl { do_not_cache: true }),
        }],
        type_url: text(),
        nonce: text(),
        removed_resources: vec![text()],
    };
    let numbers = |bytes: &[u8]| fields(bytes).into_iter().map(|(number, _)| number);
    assert!(numbers(&response.encode_to_vec()).eq([1, 2, 4, 5, 6]));
    assert!(numbers(&response.resources[0].encode_to_vec()).eq([1, 2, 3, 4, 6, 7]));
    // What the public protocol has besides is skipped: control_plane, field 7.
    let more = [response.encode_to_vec(), key(7, 2), vec![2, 10, 0]].concat();
    assert_eq!(DeltaDiscoveryResponse::decode(&*more).unwrap(), response);
}
