//! adit: a per-node proxy for ambient meshes.
//!
//! The modules are listed in reading order; each may import only from those above it
//! (`integration/tidy.rs` proves it). `ARCHITECTURE.md` has the picture.
//!
//! ```text
//!  pod app ─► path/accept ─► path/outbound ─► model::View ─► decide::route
//!                                │
//!                                ▼
//!                 path/tunnel ◄─ creds ── mutual TLS, HBONE ──► other node
//!
//!  wire ─► path/accept ─► path/tunnel/server ─► decide::admit ─► decide::authorize ─► Permit
//!          ─► path/session ─► path/dial ─► pod app ;  path/pipe ;  report
//! ```

pub mod sys;
pub mod wire;

pub mod hbone;

pub mod config;
pub mod model;

pub mod decide;
pub mod report;

pub mod creds;

pub mod control;

pub mod path;

pub mod pods;

pub mod lifecycle;

pub mod app;
pub mod standalone;

pub mod cli;
