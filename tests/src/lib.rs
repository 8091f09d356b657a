//! Test support: the generic machine harness and tools to drive real clients.
