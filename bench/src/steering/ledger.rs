//! What the simulated week came to.

/// One scheme's account.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    pub name: &'static str,
    /// Sessions on machines that crashed.
    pub lost_with_node: u64,
    /// Sessions on machines that were taken for failed for so long that their place was given away.
    pub given_up: u64,
    /// Sessions on sound machines.
    pub cut_elsewhere: u64,
    pub moves: u64,
    /// Parts of the table that were not where the weights wanted them, a sample each half hour.
    pub misplaced: Vec<f64>,
    /// By how much single nodes were off their shares.
    pub node_errors: Vec<f64>,
}

/// All accounts, and what only a table like ours can tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    pub ours: Tally,
    pub peers: Vec<Tally>,
    pub sessions: u64,
    pub sessions_at_peak: u64,
    pub tables: u64,
    /// Changes of second hops.
    pub stages: u64,
    /// Nodes that came, and that left when they were empty.
    pub joined: u64,
    pub left: u64,
    pub crashes: u64,
    /// Times that nobody heard a node, and that no table came to one.
    pub silences: u64,
    pub delays: u64,
    /// Drains that were begun.
    pub drains: u64,
    /// Seconds until a draining node got a fiftieth of the new sessions that it had got.
    pub drain_relieved_s: Vec<f64>,
    /// Seconds until it got none any more.
    pub drain_closed_s: Vec<f64>,
    /// Hours until it was empty.
    pub drain_empty_h: Vec<f64>,
    /// Seconds until a node without room had lost two thirds of its share.
    pub overload_s: Vec<f64>,
    /// Seconds that first packets found nobody, for each session that waited.
    pub waited: u64,
    pub waited_s_max: f64,
    /// Most buckets between two nodes that drain, where nothing could be done.
    pub withheld_max: usize,
    pub seconds: f64,
}

/// The value at a part of the way through the values; 0 of none.
#[must_use]
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (part * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
