//! The harness of the system tests: a gateway with real parts around it, and clients that misbehave.
#![forbid(unsafe_code)]
