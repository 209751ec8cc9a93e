//! Tunnels against independent peers.
