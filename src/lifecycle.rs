//! Start, ready, drain, stop.
