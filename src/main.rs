//! Hands the command line and the environment over; everything else is in the library.

use std::process::ExitCode;

#[expect(clippy::disallowed_methods, reason = "the environment is read here")]
fn main() -> ExitCode {
    adit::cli::run(std::env::args(), |name| std::env::var(name).ok())
}
