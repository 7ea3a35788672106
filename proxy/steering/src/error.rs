//! Why a value that came from elsewhere is refused.

use crate::{Generation, NodeId};

/// Nothing of a refused value is used; the last table stays.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("not a steering table")]
    Magic,
    #[error("layout {0} of a steering table is not known here")]
    Layout(u16),
    #[error("a steering table of {found} bytes, where {expected} belong")]
    Length { found: usize, expected: usize },
    #[error("the steering table's seal is not one of this cluster")]
    Seal,
    #[error("a steering table without a member")]
    NoMembers,
    #[error("{0} members are more than a steering table has")]
    TooManyMembers(usize),
    #[error("members of a steering table are not in order at {0}")]
    MemberOrder(NodeId),
    #[error("node 0 is nobody, and can't be a member or a first hop")]
    Nobody,
    #[error("{0} has no address in the publication")]
    NoPlace(NodeId),
    #[error("bucket {bucket} names {node}, which is not a member of the table")]
    UnknownNode { bucket: u16, node: NodeId },
    #[error("bucket {bucket} has {node} as both hops")]
    SameHops { bucket: u16, node: NodeId },
    #[error("{node} of the table is not a node of this cluster")]
    ForeignNode { node: NodeId },
    #[error("{offered} is not newer than {current}")]
    NotNewer {
        offered: Generation,
        current: Generation,
    },
    #[error("the key says {key}, the table in it {table}")]
    KeyMismatch { key: Generation, table: Generation },
    #[error("a plan for {planned} does not follow {current}")]
    StalePlan {
        planned: Generation,
        current: Generation,
    },
    #[error("{0} is not a member")]
    NotAMember(NodeId),
    #[error("{0} is a member already")]
    AlreadyAMember(NodeId),
    #[error("a weight is between 1 and {max}, not {found}", max = crate::WEIGHT_MAX)]
    Weight { found: u32 },
    #[error("a load is a number that is not negative, not {0}")]
    Load(f64),
    #[error("a report of flows is not in order at bucket {0}")]
    ReportOrder(u16),
}
