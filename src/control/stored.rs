//! What the control plane said, in a file that outlives the process.
//!
//! ```text
//! magic, 8 bytes | SHA-256 of the rest, 32 bytes | when, seconds since the epoch, 8 bytes |
//! the server, the node and the responses, each with its length before it
//! ```

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use prost::Message;

use crate::wire::xds::discovery::DeltaDiscoveryResponse;

const MAGIC: &[u8; 8] = b"adit-xds";
const TIME_BYTES: usize = 8;
/// The largest file that is read: two of the largest responses.
const BYTES_MAX: u64 = 400 << 20;
/// A wall clock may be this much behind that of the process that saved.
const AHEAD_MAX: Duration = Duration::from_secs(300);

/// What was said, when and to whom.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    /// When it was saved.
    pub(super) at: SystemTime,
    /// Who said it, and to which node: nothing of another place is used.
    pub(super) origin: Origin,
    /// One response of each type.
    pub(super) responses: Vec<DeltaDiscoveryResponse>,
}

/// Who said it, and to which node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The server's address.
    pub(super) server: String,
    /// The node's name.
    pub(super) node: String,
}

/// Why a file is not used.
#[derive(Debug)]
pub(super) enum StoredError {
    /// It cannot be read or written.
    File(io::Error),
    /// It is not what was written.
    Damaged,
    /// It was saved too long ago.
    Old(Duration),
    /// It was saved in the future.
    Future,
    /// It is about another server or node.
    Foreign(Origin),
}

impl Stored {
    /// The content of the file.
    fn encode(&self) -> Vec<u8> {
        let since_epoch = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut bytes = vec![0; MAGIC.len() + SHA256_OUTPUT_LEN];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes.extend(since_epoch.as_secs().to_be_bytes());
        for text in [&self.origin.server, &self.origin.node] {
            // A text is a message of one field to the encoder; a vector takes any length.
            let _ = text.encode_length_delimited(&mut bytes);
        }
        for response in &self.responses {
            let _ = response.encode_length_delimited(&mut bytes);
        }
        let (head, body) = bytes.split_at_mut(MAGIC.len() + SHA256_OUTPUT_LEN);
        head[MAGIC.len()..].copy_from_slice(digest(&SHA256, body).as_ref());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (sum, body) = rest.split_at_checked(SHA256_OUTPUT_LEN)?;
        if digest(&SHA256, body).as_ref() != sum {
            return None;
        }
        let (seconds, mut body) = body.split_first_chunk::<TIME_BYTES>()?;
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(u64::from_be_bytes(*seconds)))?;
        let server = String::decode_length_delimited(&mut body).ok()?;
        let node = String::decode_length_delimited(&mut body).ok()?;
        let mut responses = Vec::new();
        while !body.is_empty() {
            responses.push(DeltaDiscoveryResponse::decode_length_delimited(&mut body).ok()?);
        }
        Some(Self { at, origin: Origin { server, node }, responses })
    }

    /// Puts it in the place of what was there, at once, readable by this user alone.
    pub(super) fn write(&self, path: &Path) -> Result<(), StoredError> {
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.custom_flags(libc::O_NOFOLLOW);
            let mut file = options.open(&new)?;
            file.write_all(&self.encode())?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(|error| {
            // What is left of it takes room, perhaps the last there is.
            let _ = fs::remove_file(&new);
            StoredError::File(error)
        })
    }

    /// Reads it, if it is whole, of this origin and not older than `age_max`. None: there is none.
    pub(super) fn read(
        path: &Path,
        origin: &Origin,
        now: SystemTime,
        age_max: Duration,
    ) -> Result<Option<Self>, StoredError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoredError::File(error)),
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(StoredError::File)?;
        let stored = Self::decode(&bytes).ok_or(StoredError::Damaged)?;
        if stored.origin != *origin {
            return Err(StoredError::Foreign(stored.origin));
        }
        match now.duration_since(stored.at) {
            Ok(age) if age > age_max => Err(StoredError::Old(age)),
            Err(ahead) if ahead.duration() > AHEAD_MAX => Err(StoredError::Future),
            _ => Ok(Some(stored)),
        }
    }
}

impl fmt::Display for StoredError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Damaged => f.write_str("it is not as it was written"),
            Self::Old(age) => write!(f, "it was saved {} s ago", age.as_secs()),
            Self::Future => f.write_str("it was saved in the future: a clock is wrong"),
            Self::Foreign(Origin { server, node }) => {
                write!(f, "it is what {server:?} said to node {node:?}")
            }
        }
    }
}

impl std::error::Error for StoredError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::xds::discovery::Resource;

    const AGE_MAX: Duration = Duration::from_secs(3_600);

    fn origin() -> Origin {
        Origin { server: "https://istiod:15012".to_owned(), node: "node-a".to_owned() }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn stored() -> Stored {
        let resource = Resource { name: "a".to_owned(), ..Resource::default() };
        let response = |url: &str| DeltaDiscoveryResponse {
            type_url: url.to_owned(),
            resources: vec![resource.clone(); 3],
            ..DeltaDiscoveryResponse::default()
        };
        Stored { at: at(10_000), origin: origin(), responses: vec![response("x"), response("y")] }
    }

    /// A folder of its own, gone with the test.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = format!("adit-stored-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(folder);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = Folder::new("same");
        let path = folder.0.join("snapshot");
        let read = |now| Stored::read(&path, &origin(), now, AGE_MAX);
        assert_eq!(read(at(10_000)).unwrap(), None);
        stored().write(&path).unwrap();
        let twice = Stored { at: at(10_001), ..stored() };
        twice.write(&path).unwrap();
        for moment in [at(10_001), at(13_601), at(9_800)] {
            assert_eq!(read(moment).unwrap(), Some(twice.clone()), "{moment:?}");
        }
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_old_damaged_or_of_somebody_else_is_not_used() {
        let folder = Folder::new("bad");
        let path = folder.0.join("snapshot");
        stored().write(&path).unwrap();
        let error = |origin: &Origin, now| {
            Stored::read(&path, origin, now, AGE_MAX).unwrap_err().to_string()
        };
        assert_eq!(error(&origin(), at(13_601)), "it was saved 3601 s ago");
        let future = "it was saved in the future: a clock is wrong";
        assert_eq!(error(&origin(), at(9_699)), future);
        let other = Origin { node: "node-b".to_owned(), ..origin() };
        let foreign = "it is what \"https://istiod:15012\" said to node \"node-a\"";
        assert_eq!(error(&other, at(10_000)), foreign);
        let other = Origin { server: "https://istiod:1".to_owned(), ..origin() };
        assert_eq!(error(&other, at(10_000)), foreign);
        // Every cut and every changed byte is seen.
        let whole = fs::read(&path).unwrap();
        for at_byte in 0..whole.len() {
            let cut = &whole[..at_byte];
            let mut changed = whole.clone();
            changed[at_byte] ^= 1;
            for bytes in [cut, &changed] {
                fs::write(&path, bytes).unwrap();
                assert_eq!(error(&origin(), at(10_000)), "it is not as it was written");
            }
        }
        let nowhere = folder.0.join("absent/snapshot");
        assert!(matches!(stored().write(&nowhere), Err(StoredError::File(_))));
        let read = Stored::read(&folder.0, &origin(), at(10_000), AGE_MAX);
        assert!(matches!(read, Err(StoredError::File(_))));
    }
}
