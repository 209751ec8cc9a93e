//! Files of other people's that are small.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The bytes of a file that is small; nothing but a plain file is opened.
pub(super) fn small_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    // One byte more tells a whole file from a part.
    let read = File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read > bytes_max) {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// The text of such a file.
pub(super) fn small_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(small_file(path, bytes_max)?)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}
