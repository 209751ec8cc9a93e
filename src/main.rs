//! Parses the verb and runs it.

fn main() {}
