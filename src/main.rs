//! Hands the command line and the environment over; everything else is in the library.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[expect(clippy::disallowed_methods, reason = "the environment is read here")]
fn main() -> ExitCode {
    // A name that is not text is none of ours.
    let names = || std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    adit::cli::run(std::env::args(), |name| std::env::var(name).ok(), names)
}
