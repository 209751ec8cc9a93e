//! What was built and how (spec operations 1).

use std::fmt::Write;

use super::dump::Version;

/// Version of this proxy.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const UNKNOWN: &str = "unknown";

/// What was built and how. `istio_version` is the version of the mesh it belongs to, as it was
/// told at start.
pub fn of_binary(istio_version: Option<&str>) -> Version {
    Version {
        version: VERSION.to_owned(),
        git_revision: option_env!("ADIT_GIT_REVISION").unwrap_or(UNKNOWN).to_owned(),
        rust_version: option_env!("ADIT_RUST_VERSION").unwrap_or(UNKNOWN).to_owned(),
        build_profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        build_status: option_env!("ADIT_BUILD_STATUS").unwrap_or(UNKNOWN).to_owned(),
        istio_version: istio_version.unwrap_or(UNKNOWN).to_owned(),
        crypto_provider: "aws-lc".to_owned(),
    }
}

/// The line that tools read (spec operations 1).
pub fn line(version: &Version) -> String {
    let fields = [
        ("Version", &version.version),
        ("GitRevision", &version.git_revision),
        ("RustVersion", &version.rust_version),
        ("BuildProfile", &version.build_profile),
        ("BuildStatus", &version.build_status),
        ("IstioVersion", &version.istio_version),
        ("CryptoProvider", &version.crypto_provider),
    ];
    let mut line = "version.BuildInfo{".to_owned();
    for (i, (name, value)) in fields.into_iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(line, "{comma}{name}:{value:?}");
    }
    line + "}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_form_that_tools_read() {
        let text = |text: &str| text.to_owned();
        let version = Version {
            version: text("1"),
            git_revision: text("2"),
            rust_version: text("3"),
            build_profile: text("4"),
            build_status: text("5"),
            istio_version: text("6"),
            crypto_provider: text("7"),
        };
        let expected = concat!(
            r#"version.BuildInfo{Version:"1", GitRevision:"2", RustVersion:"3", "#,
            r#"BuildProfile:"4", BuildStatus:"5", IstioVersion:"6", CryptoProvider:"7"}"#
        );
        assert_eq!(line(&version), expected);
    }
}
