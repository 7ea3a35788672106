//! Sessions that live, by bucket and by the tick at which they end.

use super::hashing::SCHEMES;
use postern_steering::{BUCKETS, BucketIndex, Flows, Millis, NodeId, Seen};

/// No session.
const NONE: u32 = u32::MAX;

/// One session; it has a node of its own under each scheme.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    pub hash: u64,
    /// Under our table; `None` while its first packets find nobody.
    pub node: Option<NodeId>,
    /// Under each of the hashes; 0 is nobody.
    pub hashed: [u16; SCHEMES],
    pub lives: bool,
    ends_at: u64,
    before: u32,
    after: u32,
}

impl Session {
    pub fn bucket(&self) -> BucketIndex {
        BucketIndex((self.hash >> 48) as u16)
    }
}

#[derive(Debug)]
pub struct Sessions {
    all: Vec<Session>,
    free: Vec<u32>,
    /// The last session of each bucket.
    heads: Vec<u32>,
    /// Sessions that end at each tick.
    ends: Vec<Vec<u32>>,
    /// Sessions on each node, under our table.
    pub on_node: Vec<u32>,
    pub now: Millis,
}

impl Sessions {
    pub fn new(nodes: u16, ticks: u64) -> Self {
        Self {
            all: Vec::new(),
            free: Vec::new(),
            heads: vec![NONE; BUCKETS],
            ends: vec![Vec::new(); ticks as usize],
            on_node: vec![0; usize::from(nodes) + 1],
            now: Millis(0),
        }
    }

    pub fn open(&mut self, hash: u64, hashed: [u16; SCHEMES], ends_at: u64) -> u32 {
        let head = &mut self.heads[(hash >> 48) as usize];
        let session = Session {
            hash,
            node: None,
            hashed,
            lives: true,
            ends_at,
            before: *head,
            after: NONE,
        };
        let number = if let Some(number) = self.free.pop() {
            self.all[number as usize] = session;
            number
        } else {
            self.all.push(session);
            u32::try_from(self.all.len() - 1).expect("fewer sessions live than a u32 counts")
        };
        let before = std::mem::replace(head, number);
        if before != NONE {
            self.all[before as usize].after = number;
        }
        if let Some(ends) = self.ends.get_mut(ends_at as usize) {
            ends.push(number);
        }
        number
    }

    /// Ends what ends at `tick`.
    pub fn end(&mut self, tick: u64) {
        for number in std::mem::take(&mut self.ends[tick as usize]) {
            self.settle(number, None);
            let Session {
                hash,
                before,
                after,
                ..
            } = self.all[number as usize];
            if before != NONE {
                self.all[before as usize].after = after;
            }
            if after == NONE {
                self.heads[(hash >> 48) as usize] = before;
            } else {
                self.all[after as usize].before = before;
            }
            self.all[number as usize].lives = false;
            self.free.push(number);
        }
    }

    /// Puts a session on a node, or on none.
    pub fn settle(&mut self, number: u32, node: Option<NodeId>) {
        let before = std::mem::replace(&mut self.all[number as usize].node, node);
        if let Some(before) = before {
            self.on_node[usize::from(before.get())] -= 1;
        }
        if let Some(node) = node {
            self.on_node[usize::from(node.get())] += 1;
        }
    }

    pub fn get(&self, number: u32) -> &Session {
        &self.all[number as usize]
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.all.iter_mut().filter(|session| session.lives)
    }

    /// Numbers of the sessions on a node.
    pub fn of_node(&self, node: NodeId) -> Vec<u32> {
        let numbers = (0..).zip(&self.all);
        numbers
            .filter(|(_, session)| session.lives && session.node == Some(node))
            .map(|(number, _)| number)
            .collect()
    }

    pub fn of_bucket(&self, bucket: BucketIndex) -> impl Iterator<Item = u32> {
        let mut number = self.heads[usize::from(bucket.0)];
        std::iter::from_fn(move || {
            let found = (number != NONE).then_some(number)?;
            number = self.all[number as usize].before;
            Some(found)
        })
    }

    /// True while a session goes on after `tick`.
    pub fn is_current(&self, number: u32, tick: u64) -> bool {
        let session = self.get(number);
        session.lives && session.ends_at > tick
    }
}

/// What the nodes would report in this moment.
impl Flows for Sessions {
    fn at(&self, node: NodeId, bucket: BucketIndex) -> Option<Seen> {
        let mut flows = 0;
        for number in self.of_bucket(bucket) {
            flows += u32::from(self.get(number).node == Some(node));
        }
        Some(Seen {
            flows,
            taken_at: self.now,
        })
    }
}
