//! Raw operating system: sockets, network namespaces, descriptor passing, clock.
//!
//! The only room that may contain `unsafe` code. It imports nothing of ours.

pub mod child;
pub mod clock;
pub mod netns;
pub mod opener;
pub mod packet;
pub mod pipe;
pub mod private_dir;
pub mod process;
pub mod seqpacket;
pub mod socket;
