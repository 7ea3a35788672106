//! Performance of the data plane: the load, the measurements, the cases, and who runs beside us.
#![deny(unsafe_code)]

pub mod cases;
pub mod load;
pub mod measure;
pub mod micro;
pub mod packets;
pub mod peers;
pub mod report;
pub mod run;
pub mod steering;
