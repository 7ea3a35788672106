//! The conductor: the role that installs the kernel's programs and keeps their tables, with the other nodes' conductors.
#![forbid(unsafe_code)]

mod store;
