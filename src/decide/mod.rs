//! The three questions an auditor asks: where does it go, is it ours, is it allowed.
//!
//! Everything here is pure: a snapshot and facts in, an answer out. Nothing awaits, nothing does
//! I/O, and randomness is an argument.

mod admit;
mod authorize;
mod balance;
mod facts;
mod route;

pub use admit::{Delivery, NotAdmitted, admit};
pub use authorize::{Denial, DryRunFinding, Permit, Verdict, allow_policies, authorize};
pub use facts::{Client, Facts, Outbound, is_own_port};
pub use route::{Refusal, Route, TunnelRoute, route};
