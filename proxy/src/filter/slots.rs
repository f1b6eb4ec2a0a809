//! How many requests of a key are in progress.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use foldhash::fast::RandomState;

use super::bucket::{KeyHash, MAX_KEYS, lock};

const SHARDS: usize = 16;
/// What keys that find no room share.
const OVERFLOW: KeyHash = 2;

/// The requests in progress of one limit, by key.
#[derive(Debug, Default)]
pub struct Slots {
    shards: [Mutex<HashMap<KeyHash, u32, RandomState>>; SHARDS],
}

/// One request in progress; dropped, it is over.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    slots: Arc<Slots>,
    key: KeyHash,
}

impl Slots {
    /// Admits a request unless `most` of its key are in progress.
    pub fn enter(self: &Arc<Self>, key: KeyHash, most: u32) -> Option<Permit> {
        self.enter_within(key, most, MAX_KEYS / SHARDS)
    }

    fn enter_within(self: &Arc<Self>, key: KeyHash, most: u32, room: usize) -> Option<Permit> {
        let mut shard = lock(self.shard(key));
        let full = shard.len() >= room;
        match shard.entry(key) {
            Entry::Vacant(_) if full && key != OVERFLOW => {
                drop(shard);
                return self.enter_within(OVERFLOW, most, room);
            }
            Entry::Vacant(vacant) => {
                vacant.insert(1);
            }
            Entry::Occupied(count) if *count.get() >= most => return None,
            Entry::Occupied(mut count) => *count.get_mut() += 1,
        }
        Some(Permit {
            slots: Arc::clone(self),
            key,
        })
    }

    /// Keys that have a request in progress.
    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Requests in progress, of all keys.
    pub fn in_progress(&self) -> u64 {
        let mut sum = 0;
        for shard in &self.shards {
            sum += lock(shard).values().map(|&n| u64::from(n)).sum::<u64>();
        }
        sum
    }

    fn shard(&self, key: KeyHash) -> &Mutex<HashMap<KeyHash, u32, RandomState>> {
        &self.shards[(key >> 124) as usize % SHARDS]
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut shard = lock(self.slots.shard(self.key));
        if let Entry::Occupied(mut count) = shard.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_makes_room() {
        let slots = Arc::new(Slots::default());
        let held: Vec<_> = (0..3).filter_map(|_| slots.enter(9, 2)).collect();
        assert_eq!((held.len(), slots.in_progress()), (2, 2));
        assert!(slots.enter(10, 2).is_some(), "another key");
        drop(held);
        assert_eq!(slots.in_progress(), 0);
        assert!(slots.enter(9, 2).is_some());
    }

    #[test]
    fn a_smaller_limit_counts_those_of_the_larger() {
        let slots = Arc::new(Slots::default());
        let _held: Vec<_> = (0..5).filter_map(|_| slots.enter(9, 5)).collect();
        assert!(slots.enter(9, 2).is_none());
    }

    #[test]
    fn keys_without_room_share_one() {
        let slots = Arc::new(Slots::default());
        let held: Vec<_> = (10..200)
            .filter_map(|key| slots.enter_within(key, 3, 20))
            .collect();
        assert_eq!(held.len(), 20 + 3);
        drop(held);
        assert_eq!(slots.in_progress(), 0);
    }
}
