//! The node agent's protocol: packets to typed values and back (spec node-and-pods 2).
//!
//! The proxy says [`Hello`] once; then the agent sends [`Request`]s, and each is answered by one
//! [`Ack`]. The agent's stand-in uses the other direction of each.

use std::fmt;
use std::sync::Arc;

use prost::Message;

use self::proto::workload_request::Payload;
use self::proto::workload_response::Payload as ResponsePayload;

/// Size of both sides' read buffers, bytes; a longer packet arrives cut (spec node-and-pods 1).
pub const PACKET_BYTES_MAX: usize = 1024;
/// Longest error text of an acknowledgement, bytes. The fields around it take at most 6.
const ERROR_BYTES_MAX: usize = 1000;

/// What the agent asks of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Serve this pod; its network namespace comes as the packet's one descriptor.
    Add {
        /// Kubernetes pod uid.
        uid: Arc<str>,
        /// Pod name.
        name: Arc<str>,
        /// Pod namespace.
        namespace: Arc<str>,
        /// Service account; may be empty.
        service_account: Arc<str>,
    },
    /// This pod still exists: go on serving it if you do.
    Keep {
        /// Kubernetes pod uid.
        uid: Arc<str>,
    },
    /// Stop serving this pod.
    Del {
        /// Kubernetes pod uid.
        uid: Arc<str>,
    },
    /// Everything that exists was named; what was not is gone.
    SnapshotSent,
}

/// The proxy's first packet: version 1 of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello;

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// What went wrong, if anything.
    pub error: Option<String>,
}

/// Why a packet is not a message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZdsError {
    /// It is not the protobuf message it should be.
    Malformed(prost::DecodeError),
    /// It carries no payload that we know.
    NoPayload,
    /// A pod without `workload_info`.
    NoInfo {
        /// Which pod.
        uid: Arc<str>,
    },
    /// A pod without uid.
    NoUid,
    /// A pod without name or namespace, so that no record could ever be found for it.
    NoName {
        /// Which pod.
        uid: Arc<str>,
    },
    /// A hello of a version that is not 1.
    Version(i32),
}

impl Request {
    /// Reads a packet from the agent.
    pub fn decode(bytes: &[u8]) -> Result<Self, ZdsError> {
        let message = proto::WorkloadRequest::decode(bytes).map_err(ZdsError::Malformed)?;
        match message.payload.ok_or(ZdsError::NoPayload)? {
            Payload::Add(add) => {
                let uid = some_uid(add.uid)?;
                let Some(info) = add.workload_info else { return Err(ZdsError::NoInfo { uid }) };
                if info.name.is_empty() || info.namespace.is_empty() {
                    return Err(ZdsError::NoName { uid });
                }
                Ok(Self::Add {
                    uid,
                    name: info.name.into(),
                    namespace: info.namespace.into(),
                    service_account: info.service_account.into(),
                })
            }
            Payload::Keep(keep) => Ok(Self::Keep { uid: some_uid(keep.uid)? }),
            Payload::Del(del) => Ok(Self::Del { uid: some_uid(del.uid)? }),
            Payload::SnapshotSent(proto::SnapshotSent {}) => Ok(Self::SnapshotSent),
        }
    }

    /// Writes the packet the agent would send.
    pub fn encode(&self) -> Vec<u8> {
        let payload = match self {
            Self::Add { uid, name, namespace, service_account } => {
                Payload::Add(proto::AddWorkload {
                    uid: uid.to_string(),
                    workload_info: Some(proto::WorkloadInfo {
                        name: name.to_string(),
                        namespace: namespace.to_string(),
                        service_account: service_account.to_string(),
                    }),
                })
            }
            Self::Keep { uid } => Payload::Keep(proto::KeepWorkload { uid: uid.to_string() }),
            Self::Del { uid } => Payload::Del(proto::DelWorkload { uid: uid.to_string() }),
            Self::SnapshotSent => Payload::SnapshotSent(proto::SnapshotSent {}),
        };
        proto::WorkloadRequest { payload: Some(payload) }.encode_to_vec()
    }
}

impl Hello {
    /// Writes the packet the proxy sends.
    pub fn encode(self) -> Vec<u8> {
        proto::ZdsHello { version: proto::Version::V1.into() }.encode_to_vec()
    }

    /// Reads a packet as the agent would.
    pub fn decode(bytes: &[u8]) -> Result<Self, ZdsError> {
        let message = proto::ZdsHello::decode(bytes).map_err(ZdsError::Malformed)?;
        if message.version == i32::from(proto::Version::V1) {
            Ok(Self)
        } else {
            Err(ZdsError::Version(message.version))
        }
    }
}

impl Ack {
    /// The request was carried out.
    pub fn ok() -> Self {
        Self { error: None }
    }

    /// It was not.
    pub fn error(text: impl Into<String>) -> Self {
        Self { error: Some(text.into()) }
    }

    /// Writes the packet the proxy sends: at most [`PACKET_BYTES_MAX`], long texts are cut.
    pub fn encode(&self) -> Vec<u8> {
        let text = match self.error.as_deref() {
            None => "",
            // An empty text would say that all went well.
            Some("") => "unknown error",
            Some(text) => &text[..text.floor_char_boundary(ERROR_BYTES_MAX)],
        };
        let ack = proto::Ack { error: text.to_owned() };
        proto::WorkloadResponse { payload: Some(ResponsePayload::Ack(ack)) }.encode_to_vec()
    }

    /// Reads a packet as the agent would.
    pub fn decode(bytes: &[u8]) -> Result<Self, ZdsError> {
        let message = proto::WorkloadResponse::decode(bytes).map_err(ZdsError::Malformed)?;
        let ResponsePayload::Ack(ack) = message.payload.ok_or(ZdsError::NoPayload)?;
        Ok(Self { error: Some(ack.error).filter(|text| !text.is_empty()) })
    }
}

impl fmt::Display for ZdsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "not a message of this protocol: {error}"),
            Self::NoPayload => f.write_str("message without a known payload"),
            Self::NoInfo { uid } => write!(f, "add of {uid} without workload info"),
            Self::NoUid => f.write_str("message without a pod uid"),
            Self::NoName { uid } => write!(f, "add of {uid} without name or namespace"),
            Self::Version(version) => write!(f, "hello of unknown version {version}"),
        }
    }
}

impl std::error::Error for ZdsError {}

fn some_uid(uid: String) -> Result<Arc<str>, ZdsError> {
    if uid.is_empty() { Err(ZdsError::NoUid) } else { Ok(uid.into()) }
}

/// What the protobuf compiler makes of `proto/zds.proto`.
mod proto {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/istio.workload.zds.rs"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(uid: &str, name: &str, namespace: &str, service_account: &str) -> Request {
        Request::Add {
            uid: uid.into(),
            name: name.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }

    #[test]
    fn requests_have_the_bytes_of_the_field_tables() {
        let check = |request: Request, bytes: &[u8]| {
            assert_eq!(request.encode(), bytes, "{request:?}");
            assert_eq!(Request::decode(bytes), Ok(request));
        };
        check(add("u1", "a", "b", "c"), b"\x0a\x0f\x0a\x02u1\x12\x09\x0a\x01a\x12\x01b\x1a\x01c");
        check(add("u1", "a", "b", ""), b"\x0a\x0c\x0a\x02u1\x12\x06\x0a\x01a\x12\x01b");
        check(Request::Keep { uid: "u1".into() }, b"\x2a\x04\x0a\x02u1");
        check(Request::Del { uid: "u1".into() }, b"\x12\x04\x12\x02u1");
        check(Request::SnapshotSent, b"\x1a\x00");
    }

    #[test]
    fn bad_requests_each_have_their_own_error() {
        let check = |bytes: &[u8], expected: ZdsError| {
            assert_eq!(Request::decode(bytes), Err(expected), "{bytes:?}");
        };
        check(b"", ZdsError::NoPayload);
        // Field 4 is none of ours.
        check(b"\x22\x04\x0a\x02u1", ZdsError::NoPayload);
        check(b"\x0a\x04\x0a\x02u1", ZdsError::NoInfo { uid: "u1".into() });
        check(b"\x0a\x08\x12\x06\x0a\x01a\x12\x01b", ZdsError::NoUid);
        check(b"\x0a\x09\x0a\x02u1\x12\x03\x0a\x01a", ZdsError::NoName { uid: "u1".into() });
        check(b"\x0a\x09\x0a\x02u1\x12\x03\x12\x01b", ZdsError::NoName { uid: "u1".into() });
        check(b"\x2a\x00", ZdsError::NoUid);
        // A del has its uid in field 2; one in field 1 is unknown and so missing.
        check(b"\x12\x04\x0a\x02u1", ZdsError::NoUid);
        for malformed in
            [&b"\x0a\x0f\x0a\x02u1"[..], b"\x0a", b"\xff\xff", b"\x2a\x04\x0a\x02\xff\xfe"]
        {
            let got = Request::decode(malformed);
            assert!(matches!(got, Err(ZdsError::Malformed(_))), "{malformed:?}: {got:?}");
        }
    }

    #[test]
    fn the_hello_says_version_one() {
        assert_eq!(Hello.encode(), b"\x08\x01");
        assert_eq!(Hello::decode(b"\x08\x01"), Ok(Hello));
        assert_eq!(Hello::decode(b""), Err(ZdsError::Version(0)));
        assert_eq!(Hello::decode(b"\x08\x02"), Err(ZdsError::Version(2)));
    }

    #[test]
    fn a_good_ack_is_two_bytes_and_a_bad_one_always_fits() {
        assert_eq!(Ack::ok().encode(), b"\x0a\x00");
        assert_eq!(Ack::decode(b"\x0a\x00"), Ok(Ack::ok()));
        assert_eq!(Ack::error("no").encode(), b"\x0a\x04\x0a\x02no");
        assert_eq!(Ack::decode(b"\x0a\x04\x0a\x02no"), Ok(Ack::error("no")));
        assert_eq!(Ack::decode(b""), Err(ZdsError::NoPayload));
        assert_ne!(Ack::error("").encode(), Ack::ok().encode());
        // Characters of three bytes: the cut must not fall inside one.
        let long = Ack::error("\u{20ac}".repeat(2000)).encode();
        assert_eq!(long.len(), 999 + 6);
        assert!(long.len() <= PACKET_BYTES_MAX);
        assert_eq!(Ack::decode(&long), Ok(Ack::error("\u{20ac}".repeat(333))));
    }
}
