//! The deadlines of a core's flows: one entry a flow, however often its deadline moves.
//!
//! A heap that knows where each flow stands in it. Deadlines of busy flows move later with every message;
//! such an entry is left where it is, comes out too early and is put back where it belongs then.

use postern_relay::Moment;

/// Where a flow without a deadline stands.
const NOWHERE: u32 = u32::MAX;

/// The next deadlines, soonest first.
#[derive(Debug, Default)]
pub struct Timers {
    heap: Vec<Entry>,
    /// By flow: its place in `heap`. INVARIANT: `heap[places[f]].flow == f` or `places[f] == NOWHERE`.
    places: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Moment,
    flow: u32,
}

impl Timers {
    /// Makes room for flows 0..`flows`, so that nothing is allocated later.
    pub fn reserve(&mut self, flows: usize) {
        if self.places.len() < flows {
            self.places.resize(flows, NOWHERE);
        }
        self.heap.reserve(flows.saturating_sub(self.heap.len()));
    }

    /// The flow comes out at `at` or before: an entry that is sooner stays.
    pub fn arm(&mut self, flow: u32, at: Moment) {
        let place = self.places[flow as usize];
        if place == NOWHERE {
            let last = self.heap.len();
            self.heap.push(Entry { at, flow });
            self.places[flow as usize] = last as u32;
            self.rise(last);
        } else if at < self.heap[place as usize].at {
            self.heap[place as usize].at = at;
            self.rise(place as usize);
        }
    }

    pub fn disarm(&mut self, flow: u32) {
        let place = self.places[flow as usize];
        if place != NOWHERE {
            self.take(place as usize);
        }
    }

    /// Takes the soonest flow out when its moment has come.
    pub fn pop_due(&mut self, now: Moment) -> Option<u32> {
        (self.next()? <= now).then(|| self.take(0).flow)
    }

    /// The soonest moment.
    #[must_use]
    pub fn next(&self) -> Option<Moment> {
        self.heap.first().map(|entry| entry.at)
    }

    fn take(&mut self, place: usize) -> Entry {
        let taken = self.heap.swap_remove(place);
        self.places[taken.flow as usize] = NOWHERE;
        if place < self.heap.len() {
            self.places[self.heap[place].flow as usize] = place as u32;
            self.rise(place);
            self.sink(place);
        }
        taken
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].at <= self.heap[place].at {
                return;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            let Some(soonest) = children.min_by_key(|&child| self.heap[child].at) else {
                return;
            };
            if self.heap[place].at <= self.heap[soonest].at {
                return;
            }
            self.swap(place, soonest);
            place = soonest;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.places[self.heap[a].flow as usize] = a as u32;
        self.places[self.heap[b].flow as usize] = b as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_deadline_that_moves_later_keeps_its_entry() {
        let mut timers = Timers::default();
        timers.reserve(1);
        timers.arm(0, Moment(10));
        timers.arm(0, Moment(20));
        assert_eq!(timers.next(), Some(Moment(10)));
        assert_eq!(timers.heap.len(), 1);
    }

    #[test]
    fn nothing_comes_out_before_its_moment() {
        let mut timers = Timers::default();
        timers.reserve(1);
        timers.arm(0, Moment(10));
        assert_eq!(timers.pop_due(Moment(9)), None);
        assert_eq!(timers.pop_due(Moment(10)), Some(0));
        assert_eq!(timers.next(), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arm(u32, u64),
        Disarm(u32),
        Pop(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20_u32, 0..1000_u64).prop_map(|(flow, at)| Step::Arm(flow, at)),
            (0..20_u32).prop_map(Step::Disarm),
            (0..1000_u64).prop_map(Step::Pop),
        ]
    }

    proptest! {
        #[test]
        fn flows_come_out_as_from_a_sorted_map(steps in prop::collection::vec(step(), 0..200)) {
            let mut timers = Timers::default();
            timers.reserve(20);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Arm(flow, at) => {
                        timers.arm(flow, Moment(at));
                        let entry = model.entry(flow).or_insert(at);
                        *entry = (*entry).min(at);
                    }
                    Step::Disarm(flow) => {
                        timers.disarm(flow);
                        model.remove(&flow);
                    }
                    Step::Pop(now) => {
                        let soonest = model.values().min().copied();
                        match timers.pop_due(Moment(now)) {
                            Some(flow) => {
                                prop_assert_eq!(model.remove(&flow), soonest);
                                prop_assert!(soonest <= Some(now));
                            }
                            None => prop_assert!(soonest.is_none_or(|at| at > now)),
                        }
                    }
                }
                prop_assert_eq!(timers.next().map(|at| at.0), model.values().min().copied());
            }
        }
    }
}
