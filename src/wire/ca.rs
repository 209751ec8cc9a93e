//! The Istio CA's protocol: messages, and client and server of the service (spec identity 2).

/// Field of the request's metadata that names the workload a node proxy asks for.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// What the protobuf compiler makes of `proto/ca.proto`.
pub mod auth {
    #![allow(missing_docs, missing_debug_implementations, unreachable_pub, unused_qualifications)]
    #![allow(clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.rs"));
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::auth::{IstioCertificateRequest, IstioCertificateResponse};

    #[test]
    fn the_wire_form_is_that_of_the_field_tables() {
        let request = IstioCertificateRequest {
            csr: "x".to_owned(),
            validity_duration: 60,
            metadata: Some(prost_types::Struct::default()),
        };
        assert_eq!(request.encode_to_vec(), [0x0a, 1, b'x', 0x18, 60, 0x22, 0]);
        let response = IstioCertificateResponse { cert_chain: vec!["a".into(), "b".into()] };
        assert_eq!(response.encode_to_vec(), [0x0a, 1, b'a', 0x0a, 1, b'b']);
    }
}
