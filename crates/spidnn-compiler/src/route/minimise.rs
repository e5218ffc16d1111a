//! Fewer routing entries for the same packets.
//!
//! Ordered covering (A. Mundy, J. Heathcote, J. D. Garside, "On-chip order-exploiting routing table minimization for a
//! multicast supercomputer network", HPSR 2016): a table is kept in order of generality, and entries with the same route
//! are merged into one that is more general, as long as it stands below everything that it must not catch first and
//! covers nothing that stands below it. The largest possible merge is taken again and again until none is left.
//!
//! What is done differently from the paper: every entry remembers the *regions* (keys in use) that it stands for, and all
//! conditions are about these, so that keys nobody sends never stand in the way; regions that go the same way may
//! shadow each other; and regions that are left to default routing are obstacles that no entry may cover.

use std::collections::BTreeMap;

use spinnaker_machine::{Route, RoutingEntry};

/// Keys `k` with `k & mask == key`, and what a table must do with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Key, no bit set outside the mask.
    pub key: u32,
    /// Which bits count.
    pub mask: u32,
    /// Where the packets go.
    pub route: Route,
    /// Whether default routing does the same: the packets come in by one link and leave by the opposite one only.
    pub by_default: bool,
}

/// Whether two sets of keys have one in common.
pub fn intersect(key: u32, mask: u32, other_key: u32, other_mask: u32) -> bool {
    (key ^ other_key) & mask & other_mask == 0
}

/// A short table that routes all `regions` (which must not overlap) as they ask. Where default routing does, the
/// table may have no entry.
pub fn minimise(regions: &[Region]) -> Vec<RoutingEntry> {
    // Leaving out what default routing does saves these entries but hinders others from growing over them; keeping
    // them until the end lets them merge. Neither is always better.
    let left_out = Table::new(regions, |region| !region.by_default).minimised();
    if !regions.iter().any(|region| region.by_default) {
        return left_out;
    }
    let mut kept = Table::new(regions, |_| true);
    kept.merge_all();
    kept.drop_default();
    if kept.entries.len() < left_out.len() { kept.into_entries() } else { left_out }
}

/// A key that `table` does not route as `regions` ask; `None` if all are right, for every key of every region.
pub fn first_difference(table: &[RoutingEntry], regions: &[Region]) -> Option<u32> {
    regions.iter().find_map(|region| differs(table, region.key, region.mask, region))
}

/// Looks at the keys of `key`/`mask`, a part of `region` that no entry before `table` matches.
fn differs(table: &[RoutingEntry], key: u32, mut mask: u32, region: &Region) -> Option<u32> {
    let Some((at, entry)) = table.iter().enumerate().find(|(_, entry)| {
        // An entry with a key bit outside its mask matches nothing.
        entry.key & !entry.mask == 0 && intersect(entry.key, entry.mask, key, mask)
    }) else {
        return if region.by_default { None } else { Some(key) };
    };
    if entry.route != region.route {
        return Some(key | entry.key & !mask);
    }
    // The part that the entry matches is right; the others split off where the entry first decides otherwise.
    let mut key = key;
    let mut open = entry.mask & !mask;
    while open != 0 {
        let bit = open & open.wrapping_neg();
        open &= !bit;
        mask |= bit;
        let here = entry.key & bit;
        if let Some(found) = differs(&table[at + 1..], key | (here ^ bit), mask, region) {
            return Some(found);
        }
        key |= here;
    }
    None
}

#[derive(Debug, Clone)]
struct Entry {
    key: u32,
    mask: u32,
    route: Route,
    /// Numbers of the regions that it stands for.
    regions: Vec<usize>,
}

impl Entry {
    /// Number of bits that do not count.
    fn generality(&self) -> u32 {
        self.mask.count_zeros()
    }
}

struct Merge {
    /// Places of the entries in the table, ascending.
    members: Vec<usize>,
    key: u32,
    mask: u32,
    /// Where the merged entry goes: before the entry that is there now.
    place: usize,
}

/// What a merged entry would cover.
enum Coverage {
    /// Nothing wrong.
    Right,
    /// Something wrong, unless all members have this bit and it has this value (0 or the bit itself).
    Unless { bit: u32, value: u32 },
    /// Something wrong, with any two of the members.
    Hopeless,
}

/// A table in order of generality. What always holds: no entry above that of a region catches a key of the region
/// and sends it elsewhere; no entry at all catches a key of an obstacle.
struct Table<'a> {
    regions: &'a [Region],
    entries: Vec<Entry>,
    obstacles: Vec<&'a Region>,
}

impl<'a> Table<'a> {
    fn new(regions: &'a [Region], has_entry: impl Fn(&Region) -> bool) -> Self {
        let mut entries = Vec::new();
        let mut obstacles = Vec::new();
        for (number, region) in regions.iter().enumerate() {
            if has_entry(region) {
                let &Region { key, mask, route, .. } = region;
                entries.push(Entry { key, mask, route, regions: vec![number] });
            } else {
                obstacles.push(region);
            }
        }
        entries.sort_by_key(Entry::generality);
        Table { regions, entries, obstacles }
    }

    fn minimised(mut self) -> Vec<RoutingEntry> {
        self.merge_all();
        self.into_entries()
    }

    fn into_entries(self) -> Vec<RoutingEntry> {
        self.entries.into_iter().map(|Entry { key, mask, route, .. }| RoutingEntry { key, mask, route }).collect()
    }

    fn merge_all(&mut self) {
        loop {
            let mut by_route: BTreeMap<Route, Vec<usize>> = BTreeMap::new();
            for (place, entry) in self.entries.iter().enumerate() {
                by_route.entry(entry.route).or_default().push(place);
            }
            let mut groups: Vec<Vec<usize>> = by_route.into_values().filter(|group| group.len() > 1).collect();
            // Large groups first: what is smaller than the best merge so far need not be looked at.
            groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
            let mut best: Option<Merge> = None;
            for group in groups {
                let size = best.as_ref().map_or(1, |best| best.members.len());
                if group.len() <= size {
                    break;
                }
                if let Some(merge) = self.refine(group, size) {
                    best = Some(merge);
                }
            }
            let Some(merge) = best else { break };
            self.apply(&merge);
        }
    }

    /// The members of a group that can be merged, if they are more than `size_min`: takes members away until what the merged
    /// entry covers is right.
    fn refine(&self, mut members: Vec<usize>, size_min: usize) -> Option<Merge> {
        loop {
            if members.len() <= size_min {
                return None;
            }
            let first = &self.entries[members[0]];
            let (mut mask, mut differing) = (u32::MAX, 0);
            for &member in &members {
                let entry = &self.entries[member];
                mask &= entry.mask;
                differing |= entry.key ^ first.key;
            }
            mask &= !differing;
            let key = first.key & mask;
            let place = self.entries.partition_point(|entry| entry.generality() <= mask.count_zeros());
            // Moving down must not bring a member below an entry that catches its keys.
            let before = members.len();
            let entries = &self.entries;
            members.retain(|&member| {
                let route = entries[member].route;
                entries[member + 1..place].iter().filter(|other| other.route != route).all(|other| {
                    entries[member].regions.iter().all(|&region| {
                        let region = &self.regions[region];
                        !intersect(other.key, other.mask, region.key, region.mask)
                    })
                })
            });
            if members.len() < before {
                continue;
            }
            match self.coverage(&members, key, mask, place) {
                Coverage::Right => return Some(Merge { members, key, mask, place }),
                Coverage::Unless { bit, value } => members.retain(|&member| {
                    let entry = &self.entries[member];
                    entry.mask & bit != 0 && entry.key & bit == value
                }),
                Coverage::Hopeless => return None,
            }
        }
    }

    /// Whether the merged entry covers what it must not, and which bit it would need to avoid the hardest of that: the
    /// case in which the fewest members have such a bit. Of several such bits, the one that most members have.
    fn coverage(&self, members: &[usize], key: u32, mask: u32, place: usize) -> Coverage {
        // Members with each bit clear and set.
        let mut clear = [0_usize; 32];
        let mut set = [0_usize; 32];
        for &member in members {
            let entry = &self.entries[member];
            for bit in 0..32 {
                let fixed = (entry.mask >> bit & 1) as usize;
                let one = (entry.key >> bit & 1) as usize;
                set[bit] += fixed & one;
                clear[bit] += fixed & (one ^ 1);
            }
        }
        let route = self.entries[members[0]].route;
        let below = self.entries[place..].iter().filter(|entry| entry.route != route);
        let below = below.flat_map(|entry| entry.regions.iter().map(|&region| &self.regions[region]));
        let mut hardest: Option<(usize, u32, u32)> = None;
        for region in below.chain(self.obstacles.iter().copied()) {
            if !intersect(key, mask, region.key, region.mask) {
                continue;
            }
            let mut best = (0, 0, 0);
            let mut open = region.mask & !mask;
            while open != 0 {
                let bit = open & open.wrapping_neg();
                open &= !bit;
                let number = bit.trailing_zeros() as usize;
                let staying = if region.key & bit == 0 { set[number] } else { clear[number] };
                if staying > best.0 {
                    best = (staying, bit, !region.key & bit);
                }
            }
            if best.0 == 0 {
                return Coverage::Hopeless;
            }
            if hardest.is_none_or(|hardest| best.0 < hardest.0) {
                hardest = Some(best);
            }
        }
        hardest.map_or(Coverage::Right, |(_, bit, value)| Coverage::Unless { bit, value })
    }

    fn apply(&mut self, merge: &Merge) {
        let mut regions = Vec::new();
        for &member in &merge.members {
            regions.append(&mut self.entries[member].regions);
        }
        let route = self.entries[merge.members[0]].route;
        self.entries.insert(merge.place, Entry { key: merge.key, mask: merge.mask, route, regions });
        // Members stand above the place, so their numbers are still right.
        for &member in merge.members.iter().rev() {
            self.entries.remove(member);
        }
    }

    /// Takes away entries whose packets all go by default routing, if no entry below would catch them.
    fn drop_default(&mut self) {
        for place in (0..self.entries.len()).rev() {
            let mut regions = self.entries[place].regions.iter().map(|&region| &self.regions[region]);
            let others = &self.entries[place + 1..];
            if regions.all(|region| {
                region.by_default
                    && others.iter().all(|other| !intersect(other.key, other.mask, region.key, region.mask))
            }) {
                self.entries.remove(place);
            }
        }
    }
}
