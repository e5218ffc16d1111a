//! Packets: trains in flight, arrivals at a core.

use std::cell::RefCell;
use std::rc::Rc;

/// Payloads of packets: none, one, or a shared run of them.
#[derive(Debug, Clone)]
pub struct Words(Kind);

#[derive(Debug, Clone)]
enum Kind {
    None,
    One([u32; 1]),
    Shared { words: Block, start: u32, end: u32 },
}

/// Words of a block from the pool. Longer runs are not pooled.
const POOLED_WORDS: usize = 128;
/// Blocks that the pool keeps.
const POOL_MAX: usize = 8192;

thread_local! {
    /// Blocks that nobody holds any more: millions are needed one after the other, and the latest is in the host's caches.
    static POOL: RefCell<Vec<Rc<[u32]>>> = const { RefCell::new(Vec::new()) };
}

/// A shared run of words, at least as long as its content.
#[derive(Debug, Clone)]
struct Block(Rc<[u32]>);

impl Block {
    fn new(words: &[u32]) -> Self {
        if words.len() > POOLED_WORDS {
            return Block(words.into());
        }
        let pooled = POOL.with_borrow_mut(Vec::pop);
        let mut block = pooled.unwrap_or_else(|| Rc::new([0; POOLED_WORDS]));
        match Rc::get_mut(&mut block) {
            Some(place) => {
                place[..words.len()].copy_from_slice(words);
                Block(block)
            }
            // What is in the pool is held by nobody else.
            None => Block(words.into()),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.0.len() == POOLED_WORDS && Rc::strong_count(&self.0) == 1 {
            // (When the thread ends there may be no pool any more.)
            let _ = POOL.try_with(|pool| {
                let pool = &mut *pool.borrow_mut();
                if pool.len() < POOL_MAX {
                    pool.push(Rc::clone(&self.0));
                }
            });
        }
    }
}

impl Words {
    pub(crate) const NONE: Words = Words(Kind::None);

    pub(crate) fn one(word: u32) -> Self {
        Words(Kind::One([word]))
    }

    pub(crate) fn shared(words: &[u32]) -> Self {
        match words {
            [] => Self::NONE,
            [word] => Self::one(*word),
            _ => Words(Kind::Shared { words: Block::new(words), start: 0, end: words.len() as u32 }),
        }
    }

    /// `count` payloads from number `first` on; none of none.
    pub(crate) fn part(&self, first: u32, count: u32) -> Self {
        match &self.0 {
            Kind::None => Self::NONE,
            Kind::One(word) => {
                debug_assert!(first == 0 && count == 1);
                Self::one(word[0])
            }
            Kind::Shared { words, start, .. } => {
                let start = start + first;
                if count == 1 {
                    Self::one(words.0[start as usize])
                } else {
                    Words(Kind::Shared { words: words.clone(), start, end: start + count })
                }
            }
        }
    }
}

impl AsRef<[u32]> for Words {
    fn as_ref(&self) -> &[u32] {
        match &self.0 {
            Kind::None => &[],
            Kind::One(word) => word,
            Kind::Shared { words, start, end } => &words.0[*start as usize..*end as usize],
        }
    }
}

impl PartialEq for Words {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl Eq for Words {}

/// Packets that arrived: one, or a run with consecutive keys from one sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Key of the first packet; the others follow with step 1.
    pub key: u32,
    /// Payloads in key order; empty for one packet without payload.
    pub words: Words,
}

impl Arrival {
    /// Number of packets.
    pub fn packets(&self) -> usize {
        self.words.as_ref().len().max(1)
    }
}

/// A train: packets with consecutive keys, evenly spaced in time from `head_ns` to `tail_ns`.
#[derive(Debug, Clone)]
pub(crate) struct Train {
    pub key: u32,
    pub count: u32,
    pub words: Words,
    /// When the first packet is where the train's event is.
    pub head_ns: u64,
    /// When the last is.
    pub tail_ns: u64,
    /// Chip of the event, by index.
    pub chip: u32,
    /// Arrival: 0 to 5 the link of `chip` it came by, [`LOCAL`] for a core's own.
    pub from: u8,
    /// Sender (arrival [`LOCAL`]), or the set of receiving cores.
    pub cores: u32,
}

/// Arrival from a core of the chip itself.
pub(crate) const LOCAL: u8 = 7;

impl Train {
    pub fn long(&self) -> bool {
        !matches!(self.words.0, Kind::None)
    }

    /// `count` packets from number `first` on.
    pub fn part(&self, first: u32, count: u32) -> Train {
        let steps = u64::from(self.count.max(2) - 1);
        let at = |i: u32| self.head_ns + (self.tail_ns - self.head_ns) * u64::from(i) / steps;
        Train {
            key: self.key.wrapping_add(first),
            count,
            words: self.words.part(first, count),
            head_ns: at(first),
            tail_ns: at(first + count - 1),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_keys_payloads_and_spacing() {
        let words = Words::shared(&[10, 11, 12, 13, 14]);
        let train = Train { key: 100, count: 5, words, head_ns: 1000, tail_ns: 1400, chip: 0, from: LOCAL, cores: 3 };
        let part = train.part(1, 3);
        assert_eq!((part.key, part.words.as_ref(), part.head_ns, part.tail_ns), (101, &[11, 12, 13][..], 1100, 1300));
        let last = part.part(2, 1);
        assert_eq!((last.key, last.words.as_ref(), last.head_ns, last.tail_ns), (103, &[13][..], 1300, 1300));
        assert!(last.long() && !Train { words: Words::NONE, ..last }.long());
    }
}
