//! The headers of a CONNECT and of its answer (spec hbone 3).

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};

use crate::decide::TunnelRoute;
use crate::model::{ClientAddr, Workload};
use crate::wire::authority::Authority;
use crate::wire::baggage::Baggage;
use crate::wire::forwarded;
use crate::wire::traceparent::TraceParent;

/// What a workload says of itself.
pub(super) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// Who the client was and which service it meant.
pub(super) const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
/// The network the client is in, when it came through a gateway.
pub(super) const FORWARDED_NETWORK: HeaderName = HeaderName::from_static("x-forwarded-network");
/// Trace context.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a CONNECT says besides its target.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) baggage: Baggage,
    pub(super) forwarded: String,
    pub(super) traceparent: TraceParent,
    pub(super) network: Option<Arc<str>>,
}

/// What a workload says of itself, from its record.
pub(super) fn baggage_of(workload: &Workload) -> Baggage {
    let some = |text: &Arc<str>| (!text.is_empty()).then(|| Arc::clone(text));
    Baggage {
        cluster: some(&workload.cluster_id),
        namespace: some(&workload.namespace),
        workload_name: some(&workload.workload_name),
        workload_type: some(&workload.workload_type),
        service_name: some(&workload.canonical_name),
        service_version: some(&workload.canonical_revision),
        region: some(&workload.locality.region),
        zone: some(&workload.locality.zone),
    }
}

/// What the CONNECT of one captured connection says.
pub(super) fn spoken(
    source: &Workload,
    client: ClientAddr,
    route: &TunnelRoute,
    traceparent: TraceParent,
) -> Spoken {
    let host = route.service.as_ref().map(|service| &*service.key.hostname);
    Spoken {
        baggage: baggage_of(source),
        forwarded: forwarded::build(client.0, host),
        traceparent,
        network: None,
    }
}

/// A CONNECT for `authority`.
pub(super) fn connect(authority: &Authority, spoken: &Spoken) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    // An authority that we formed ourselves is always one that the type accepts.
    if let Ok(uri) = Uri::try_from(authority.to_string()) {
        *request.uri_mut() = uri;
    }
    let headers = request.headers_mut();
    put(headers, BAGGAGE, &spoken.baggage.emit());
    put(headers, FORWARDED, &spoken.forwarded);
    put(headers, TRACEPARENT, &spoken.traceparent.to_string());
    if let Some(network) = &spoken.network {
        put(headers, FORWARDED_NETWORK, network);
    }
    request
}

/// Adds a header, unless it would be empty or cannot be one: telemetry is never worth a failure.
pub(super) fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// The values of a header, line by line.
pub(super) fn values<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}
