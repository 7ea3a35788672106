//! Decisions of layer-4 steering: which node gets a new connection, and where the old ones are found. No I/O, no clock.
//!
//! Every node has the same [`Table`]: 65,536 buckets, each with a first hop, which takes new
//! connections, and a second hop, which is asked for those that the first does not know. A connection
//! lives as long as its node is one of the two hops of its bucket, in every table that is in use.
//! That leaves three steps that a bucket can make:
//!
//! * **swap**: the hops change places. Both stay, so it never cuts anything and needs no waiting.
//! * **stage**: a second hop without living connections makes room for another node. It gets no new
//!   connection before the swap, and the swap waits until every node has the staged table: a node that
//!   is one step behind still finds everybody.
//! * **replace**: the first hop has failed or is gone, and the second can't take over.
//!
//! A move is a stage and a swap: the old first becomes the second.
#![forbid(unsafe_code)]

mod cluster;
mod dwell;
mod encoding;
mod error;
mod explain;
mod flows;
mod health;
mod ids;
mod load;
mod member;
mod plan;
mod publication;
mod quota;
mod settings;
mod table;

pub use cluster::{Cluster, Policy};
pub use dwell::{Dwell, DwellPolicy};
pub use encoding::Seal;
pub use error::Error;
pub use explain::Explanation;
pub use flows::{Flows, Reports, Seen};
pub use health::{Health, HealthPolicy, Verdict};
pub use ids::{BUCKETS, BucketIndex, Generation, Millis, NODE_NUMBER_MAX, NodeId};
pub use load::{Damper, FACTOR_FULL, Load, LoadPolicy, Pressure};
pub use member::{Heartbeat, Intent, Member, State, WEIGHT_MAX, Weight};
pub use plan::{Cut, Plan, Situation, Standing, Step, StepKind, plan};
pub use publication::{PUBLICATION_BYTES_MAX, Place, Publication, Roster};
pub use quota::{Share, quotas};
pub use settings::{
    MTU, ModeWish, Prefix, STORE_PREFIX, Settings, SourceRule, StoreSettings, TUNNEL_PORT,
};
pub use table::{Bucket, Entry, MEMBERS_MAX, Table};
