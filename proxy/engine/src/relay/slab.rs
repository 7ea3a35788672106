//! Flows by key: an index that is used again, a generation that is not.

use super::machine::Key;

/// Generations are this wide, so that a driver can pack a key and more into 64 bits.
pub const GENERATION_BITS: u32 = 24;

/// Things that are named by [`Key`]s. The place that was left last is taken first.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    content: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, content: T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                content: None,
            });
            // The list of free places never grows when one is left.
            self.free.reserve(self.slots.len());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.content = Some(content);
        Key {
            index,
            generation: slot.generation,
        }
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        slot.content
            .as_ref()
            .filter(|_| slot.generation == key.generation)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        slot.content
            .as_mut()
            .filter(|_| slot.generation == key.generation)
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let slot = &mut self.slots[key.index as usize];
        slot.generation = (slot.generation + 1) & ((1 << GENERATION_BITS) - 1);
        self.free.push(key.index);
        slot.content.take()
    }

    /// The key of what stands at `index`.
    pub fn key_at(&self, index: u32) -> Option<Key> {
        let slot = self.slots.get(index as usize)?;
        slot.content.as_ref()?;
        Some(Key {
            index,
            generation: slot.generation,
        })
    }

    /// Every place, taken or free.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Things that are there.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_nothing_after_its_content_left() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn generations_stay_within_their_bits() {
        let mut slab = Slab::default();
        let key = slab.insert(());
        slab.slots[key.index as usize].generation = (1 << GENERATION_BITS) - 1;
        let last = slab.key_at(key.index).unwrap();
        slab.remove(last);
        assert_eq!(slab.insert(()).generation, 0);
    }
}
