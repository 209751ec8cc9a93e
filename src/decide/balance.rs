//! Which endpoint of a service (spec discovery-and-balancing 4).
