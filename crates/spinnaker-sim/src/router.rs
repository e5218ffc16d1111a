//! A chip's router: the multicast table with a cache of look-ups, and the state of its links.

use spinnaker_machine::{Route, RoutingEntry};

/// A remembered look-up: every key with `key & mask == base` goes the same way.
#[derive(Clone, Copy)]
struct Cached {
    mask: u32,
    base: u32,
    route: Option<Route>,
}

const CACHE: usize = 64;
/// Matches no key: a base outside of its mask.
const UNUSED: Cached = Cached { mask: 0, base: 1, route: None };

/// The multicast table: the first entry that matches counts.
pub(crate) struct Table {
    entries: Vec<RoutingEntry>,
    cache: Box<[Cached; CACHE]>,
}

impl Table {
    pub fn new() -> Self {
        Self { entries: Vec::new(), cache: Box::new([UNUSED; CACHE]) }
    }

    pub fn load(&mut self, entries: &[RoutingEntry]) {
        self.entries = entries.to_vec();
        *self.cache = [UNUSED; CACHE];
    }

    /// Where a packet with this key goes (`None`: no entry matches), and how many keys from this one on go the same way
    /// for certain.
    pub fn route(&mut self, key: u32) -> (Option<Route>, u32) {
        // Keys of one channel differ in their low bits and share a slot.
        let slot = ((key >> 12).wrapping_mul(0x9E37_79B1) >> 26) as usize;
        let cached = self.cache[slot];
        let cached = if key & cached.mask == cached.base {
            cached
        } else {
            let found = self.look_up(key);
            self.cache[slot] = found;
            found
        };
        (cached.route, (!cached.mask - (key & !cached.mask)).saturating_add(1))
    }

    fn look_up(&self, key: u32) -> Cached {
        // How many low bits may change without changing the outcome.
        let mut free_bits = 32;
        for entry in &self.entries {
            if entry.matches(key) {
                let bits = free_bits.min(entry.mask.trailing_zeros());
                return Self::cached(key, bits, Some(entry.route));
            }
            // It stays a mismatch while the highest differing bit stays; one outside the mask stays always.
            if entry.key & !entry.mask == 0 {
                let differing = (key & entry.mask) ^ entry.key;
                free_bits = free_bits.min(31 - differing.leading_zeros());
            }
        }
        Self::cached(key, free_bits, None)
    }

    fn cached(key: u32, free_bits: u32, route: Option<Route>) -> Cached {
        let mask = u32::MAX.checked_shl(free_bits).unwrap_or(0);
        Cached { mask, base: key & mask, route }
    }
}

/// One direction of a link: what leaves a chip by it.
#[derive(Clone, Copy)]
pub(crate) struct LinkState {
    /// Chip at the other end, by index; `None` for a dead link.
    pub to: Option<u32>,
    /// When it has sent all that it was given.
    pub free_ns: u64,
    /// When it has sent what fills it: words that their senders space leave room for others between them.
    pub filled_ns: u64,
    /// Until when the router at the other end takes nothing.
    pub blocked_ns: u64,
    /// Packets so far: numbers the draws of losses.
    pub packets: u64,
    /// Time of a packet without payload, and with.
    pub short_ns: u64,
    pub long_ns: u64,
}

/// A router with its links.
pub(crate) struct Router {
    pub table: Table,
    pub links: [LinkState; 6],
    /// When it has forwarded all that it was given, half nanoseconds.
    pub work_half_ns: u64,
    /// Until when a packet that nobody takes blocks it.
    pub stalled_ns: u64,
    /// Packets of the chip's own cores, and of others.
    pub routed: [u64; 2],
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use spinnaker_machine::Link;

    fn entry(key: u32, mask: u32, core: u8) -> RoutingEntry {
        RoutingEntry { key, mask, route: Route::NONE.with_core(core) }
    }

    #[test]
    fn the_first_match_counts() {
        let mut table = Table::new();
        assert_eq!(table.route(5), (None, u32::MAX - 4));
        table.load(&[entry(0x100, 0xFFFF_FF0F, 1), entry(0x100, 0xFFFF_FF00, 2), entry(0x17, 0xF0, 3)]);
        let core = |table: &mut Table, key| table.route(key).0.map(|route| route.cores().next());
        assert_eq!(core(&mut table, 0x120), Some(Some(1)));
        assert_eq!(core(&mut table, 0x121), Some(Some(2)));
        assert_eq!(core(&mut table, 0x110), Some(Some(1)));
        // An entry with a key bit outside its mask matches nothing.
        assert_eq!(core(&mut table, 0x17), None);
        table.load(&[RoutingEntry { key: 0, mask: 0, route: Route::NONE.with_link(Link::N) }]);
        assert_eq!(table.route(0), (Some(Route::NONE.with_link(Link::N)), u32::MAX));
    }

    proptest! {
        /// The cache and the promised runs agree with a plain search, whatever was asked before.
        #[test]
        fn look_ups_equal_a_plain_search(
            entries in prop::collection::vec((0u32..64, 0u32..64, 0u8..18), 0..12),
            keys in prop::collection::vec(0u32..64, 1..60),
        ) {
            let spread = |x: u32| x & 7 | (x & 0x38) << 11;
            let entries: Vec<_> =
                entries.into_iter().map(|(key, mask, core)| entry(spread(key), spread(mask), core)).collect();
            let mut table = Table::new();
            table.load(&entries);
            let plain = |key: u32| entries.iter().find(|entry| entry.matches(key)).map(|entry| entry.route);
            for key in keys {
                let key = spread(key);
                let (route, run) = table.route(key);
                prop_assert_eq!(route, plain(key));
                for next in 0..run.min(40) {
                    prop_assert_eq!(plain(key + next), route);
                }
            }
        }
    }
}
