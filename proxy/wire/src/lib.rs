//! Bytes ↔ values: the codecs that touch hostile bytes. No I/O, no clock, no panic on peer input.
#![forbid(unsafe_code)]

pub mod http1;
pub mod proxy_protocol;
pub mod rdcleanpath;
pub mod websocket;
pub mod x224;
