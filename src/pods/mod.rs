//! Which pods live here: what the node agent says, reconciled with what is served.

mod dedicated;
mod feed;
mod roster;

pub use dedicated::serve_one;
pub use feed::{Feed, Host, Listing};
pub use roster::{PodsStatus, Tally};
