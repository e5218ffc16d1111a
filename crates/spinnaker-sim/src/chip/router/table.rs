//! The multicast table of 1,024 entries, with remembered look-ups.

/// Entries of the table.
pub(crate) const ENTRIES: usize = 1024;

/// A remembered look-up: every key with `key & mask == base` meets this entry, or none.
#[derive(Clone, Copy)]
struct Cached {
    mask: u32,
    base: u32,
    entry: Option<u16>,
}

const CACHE: usize = 64;
/// Matches no key: a base outside of its mask.
const UNUSED: Cached = Cached { mask: 0, base: 1, entry: None };

/// Keys, masks and routes. An entry matches if `key & mask` is its key; a key bit outside of the mask never does. The
/// lowest entry that matches counts.
pub(crate) struct Table {
    keys: Box<[u32; ENTRIES]>,
    masks: Box<[u32; ENTRIES]>,
    routes: Box<[u32; ENTRIES]>,
    /// Entries that can match at all, ascending; rebuilt when a key or mask has changed.
    live: Vec<u16>,
    stale: bool,
    cache: Box<[Cached; CACHE]>,
}

impl Table {
    /// All entries unused. (After power on the content is undefined; the boot ROM clears it.)
    pub fn new() -> Self {
        Self {
            keys: Box::new([u32::MAX; ENTRIES]),
            masks: Box::new([0; ENTRIES]),
            routes: Box::new([0; ENTRIES]),
            live: Vec::new(),
            stale: false,
            cache: Box::new([UNUSED; CACHE]),
        }
    }

    pub fn route(&self, entry: usize) -> u32 {
        self.routes[entry % ENTRIES]
    }

    pub fn set_route(&mut self, entry: usize, route: u32) {
        self.routes[entry % ENTRIES] = route;
    }

    pub fn set_key(&mut self, entry: usize, key: u32) {
        self.stale |= self.keys[entry % ENTRIES] != key;
        self.keys[entry % ENTRIES] = key;
    }

    pub fn set_mask(&mut self, entry: usize, mask: u32) {
        self.stale |= self.masks[entry % ENTRIES] != mask;
        self.masks[entry % ENTRIES] = mask;
    }

    /// The entry that a key meets.
    pub fn look_up(&mut self, key: u32) -> Option<usize> {
        if self.stale {
            self.live.clear();
            self.live.extend((0..ENTRIES as u16).filter(|&i| self.keys[i as usize] & !self.masks[i as usize] == 0));
            *self.cache = [UNUSED; CACHE];
            self.stale = false;
        }
        let slot = ((key >> 12 ^ key).wrapping_mul(0x9E37_79B1) >> 26) as usize;
        let cached = self.cache[slot];
        if key & cached.mask == cached.base {
            return cached.entry.map(usize::from);
        }
        let found = self.search(key);
        self.cache[slot] = found;
        found.entry.map(usize::from)
    }

    fn search(&self, key: u32) -> Cached {
        // How many low bits may change without changing the outcome.
        let mut free_bits = 32;
        for &i in &self.live {
            let (entry_key, mask) = (self.keys[i as usize], self.masks[i as usize]);
            let differing = (key & mask) ^ entry_key;
            if differing == 0 {
                return Self::cached(key, free_bits.min(mask.trailing_zeros()), Some(i));
            }
            free_bits = free_bits.min(31 - differing.leading_zeros());
        }
        Self::cached(key, free_bits, None)
    }

    fn cached(key: u32, free_bits: u32, entry: Option<u16>) -> Cached {
        let mask = u32::MAX.checked_shl(free_bits).unwrap_or(0);
        Cached { mask, base: key & mask, entry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever was asked before, a look-up is a plain search for the first match.
        #[test]
        fn look_ups_equal_a_plain_search(
            entries in prop::collection::vec((0u32..64, 0u32..64), 0..12),
            keys in prop::collection::vec(0u32..64, 1..60),
        ) {
            let spread = |x: u32| x & 7 | (x & 0x38) << 11;
            let mut table = Table::new();
            for (i, &(key, mask)) in entries.iter().enumerate() {
                table.set_key(i, spread(key));
                table.set_mask(i, spread(mask));
            }
            for key in keys {
                let plain = entries.iter().position(|&(k, m)| spread(key) & spread(m) == spread(k));
                prop_assert_eq!(table.look_up(spread(key)), plain);
            }
        }
    }

    #[test]
    fn writes_take_effect_at_once() {
        let mut table = Table::new();
        assert_eq!(table.look_up(0x100), None);
        table.set_key(7, 0x100);
        assert_eq!(table.look_up(0x100), None);
        table.set_mask(7, 0xFFFF_FFF0);
        assert_eq!(table.look_up(0x10F), Some(7));
        table.set_key(3, 0x100);
        table.set_mask(3, 0xFFFF_FFFF);
        assert_eq!((table.look_up(0x100), table.look_up(0x101)), (Some(3), Some(7)));
        table.set_key(7, u32::MAX);
        table.set_mask(7, 0);
        assert_eq!(table.look_up(0x101), None);
    }
}
