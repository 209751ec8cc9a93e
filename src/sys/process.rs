//! This process: resource limits, CPUs, descriptors.
