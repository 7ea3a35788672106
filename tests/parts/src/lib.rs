//! Real parts that the tests and the demo start, each ended by whoever started it: processes,
//! X displays, RDP servers, etcd.
#![forbid(unsafe_code)]

pub mod client;
pub mod demo_desktop;
pub mod display;
pub mod etcd;
pub mod port;
pub mod process;
pub mod program;
pub mod shadow;
pub mod wait;
pub mod xrdp;

pub use demo_desktop::DemoDesktop;
pub use display::Display;
pub use etcd::Etcd;
pub use process::Process;
pub use shadow::Shadow;
pub use xrdp::Xrdp;
