//! Unix sockets that keep packets apart and carry descriptors (spec node-and-pods 1).
