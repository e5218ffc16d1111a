//! Entries of the multicast routing table.

use core::fmt;

use crate::Link;

/// Where a router sends a packet: a set of links and of cores of its own chip. Bits 0 to 5 are the links, bit `6 + n` is
/// core `n` (virtual numbers: 0 the monitor, 1 to 17 the application cores).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Route(pub u32);

impl Route {
    /// Nowhere: the packet is thrown away on purpose.
    pub const NONE: Route = Route(0);

    /// Adds a link.
    #[must_use]
    pub const fn with_link(self, link: Link) -> Route {
        Route(self.0 | 1 << link as u32)
    }

    /// Adds a core.
    ///
    /// # Panics
    /// If `core` is above 17: no chip has such a core.
    #[must_use]
    pub const fn with_core(self, core: u8) -> Route {
        assert!(core < 18, "cores are numbered 0 to 17");
        Route(self.0 | 1 << (6 + core as u32))
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Route) -> Route {
        Route(self.0 | other.0)
    }

    /// Whether the link is in the set.
    pub const fn has_link(self, link: Link) -> bool {
        self.0 >> link as u32 & 1 == 1
    }

    /// Whether the core is in the set.
    pub const fn has_core(self, core: u8) -> bool {
        core < 18 && self.0 >> (6 + core as u32) & 1 == 1
    }

    /// Links in the set, ascending.
    pub fn links(self) -> impl Iterator<Item = Link> {
        Link::ALL.into_iter().filter(move |&link| self.has_link(link))
    }

    /// Cores in the set, ascending.
    pub fn cores(self) -> impl Iterator<Item = u8> {
        (0..18).filter(move |&core| self.has_core(core))
    }

    /// The cores alone: bit `n` is core `n`.
    pub const fn core_bits(self) -> u32 {
        self.0 >> 6 & 0x3FFFF
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<String> = self.links().map(|link| link.to_string()).collect();
        names.extend(self.cores().map(|core| core.to_string()));
        if names.is_empty() { f.write_str("-") } else { f.write_str(&names.join(" ")) }
    }
}

/// One entry of a routing table. It matches a packet when `packet key & mask == key`; the first that matches counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoutingEntry {
    /// Key, no bit set outside the mask (such an entry matches nothing).
    pub key: u32,
    /// Which bits of the key count.
    pub mask: u32,
    /// Where the packet goes.
    pub route: Route,
}

impl RoutingEntry {
    /// Whether a packet with this key matches.
    pub const fn matches(&self, key: u32) -> bool {
        key & self.mask == self.key
    }
}

impl fmt::Display for RoutingEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}/{:08x} -> {}", self.key, self.mask, self.route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        let route = Route::NONE.with_link(Link::N).with_core(1).with_core(17);
        assert_eq!(route.to_string(), "N 1 17");
        assert_eq!(route.core_bits(), 1 << 1 | 1 << 17);
        assert!(!route.has_core(18) && !route.has_link(Link::E));
        assert_eq!(Route::NONE.to_string(), "-");
        assert_eq!(route.union(Route::NONE.with_link(Link::S)).links().collect::<Vec<_>>(), [Link::N, Link::S]);
    }

    #[test]
    fn a_bit_outside_the_mask_matches_nothing() {
        let entry = RoutingEntry { key: 0x10, mask: 0xF0, route: Route::NONE };
        assert!(entry.matches(0x1F) && !entry.matches(0x2F));
        let entry = RoutingEntry { key: 0x11, mask: 0xF0, route: Route::NONE };
        assert!((0..=255).all(|key| !entry.matches(key)));
    }
}
