//! Keys, the tree of replicas, who talks to whom, and the routing tables that make it so.
//!
//! [`ReplicaTree::build`] joins the used chips, [`nets_for`] lists what is sent, [`route`] writes the tables.
//! Nothing here knows what the words in the packets mean.

pub mod keys;
pub mod minimise;
pub mod nets;
pub mod tree;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use spinnaker_machine::{ChipXy, Link, Machine, ROUTING_ENTRIES_MAX, Route, RoutingEntry};
use thiserror::Error;

pub use keys::{ChannelKind, KeyError, key_base};
pub use nets::{CoreTarget, Net, nets_for};
pub use tree::ReplicaTree;

use minimise::Region;

/// What cannot be routed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// A key that cannot be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No chip at all.
    #[error("there is no chip to use: every chip of the machine is dead or has no working core")]
    NoChips,
    /// The list of chips is not in order, or names this one twice.
    #[error("the list of chips to use must ascend without repetition, but chip {0} comes too late")]
    NotAscending(ChipXy),
    /// The machine has no such chip.
    #[error("the machine has no working chip {0}")]
    NoChip(ChipXy),
    /// A packet is to go to a core that does not work.
    #[error("chip {0} has no working application core {1}, but packets are sent to it")]
    NoCore(ChipXy, u8),
    /// A chip with too few participating cores.
    #[error(
        "chip {chip} takes part with {cores} cores, but {needed} are needed: use fewer cores on every chip, or leave this chip out"
    )]
    TooFewCores {
        /// Chip.
        chip: ChipXy,
        /// Cores that take part.
        cores: usize,
        /// Cores needed.
        needed: usize,
    },
    /// A net that makes no sense.
    #[error("packets {key:08x}/{mask:08x} from chip {chip} cannot be routed: {reason}")]
    Net {
        /// Where they come from.
        chip: ChipXy,
        /// Key.
        key: u32,
        /// Mask.
        mask: u32,
        /// Why not.
        reason: &'static str,
    },
    /// Two nets have keys in common.
    #[error("packets {:08x}/{:08x} from chip {} and {:08x}/{:08x} from chip {} have keys in common", .0.1, .0.2, .0.0, .1.1, .1.2, .1.0)]
    Overlap(Box<(ChipXy, u32, u32)>, Box<(ChipXy, u32, u32)>),
    /// No way over working links.
    #[error("no working links lead from chip {from} to chip {to}")]
    Unreachable {
        /// From here.
        from: ChipXy,
        /// To there.
        to: ChipXy,
    },
    /// Too many entries on a chip.
    #[error(
        "chip {chip} needs {entries} routing entries, but its table has room for {ROUTING_ENTRIES_MAX}: use fewer chips or cores"
    )]
    TableFull {
        /// Chip.
        chip: ChipXy,
        /// Entries after minimisation.
        entries: usize,
    },
    /// The minimised table does not do what it must: an error in the compiler.
    #[error(
        "the minimised routing table of chip {chip} would send packets with key {key:08x} astray: this is an error in SpiDNN"
    )]
    NotEquivalent {
        /// Chip.
        chip: ChipXy,
        /// Key that is routed otherwise.
        key: u32,
    },
}

/// Routing tables of a machine, and what became of their length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tables {
    /// Table of each chip that needs one, first match first.
    pub tables: BTreeMap<ChipXy, Vec<RoutingEntry>>,
    /// Entries that each chip on the way of some net would have with one for every net.
    pub entries_before: BTreeMap<ChipXy, usize>,
}

impl Tables {
    /// Entries on the chip that has the most: after and before minimisation.
    pub fn entries_max(&self) -> (usize, usize) {
        let after = self.tables.values().map(Vec::len).max().unwrap_or(0);
        (after, self.entries_before.values().copied().max().unwrap_or(0))
    }

    /// Entries on all chips: after and before minimisation.
    pub fn entries_total(&self) -> (usize, usize) {
        (self.tables.values().map(Vec::len).sum(), self.entries_before.values().sum())
    }
}

/// Routing tables that carry every net's packets to its targets, each once, and nowhere else.
///
/// A net's way is a tree of shortest paths, longest dimension first, each from the nearest chip that the tree has
/// already; where something on a path is dead, the shortest working detour is taken instead. Entries that default routing
/// makes unnecessary are left out, and tables are shortened ([`minimise`]); that this changed nothing is checked for every
/// key of every net.
///
/// # Errors
/// [`RouteError::Net`] for a net without targets or with key bits outside its mask, [`RouteError::Overlap`] for nets with
/// common keys, [`RouteError::NoChip`], [`RouteError::NoCore`] and [`RouteError::Unreachable`] for targets that are not
/// there, [`RouteError::TableFull`] for a chip that needs more than 1,023 entries.
///
/// ```
/// use spidnn_compiler::route::{CoreTarget, Net, route};
/// use spinnaker_machine::{ChipXy, Machine};
/// let (from, to) = (ChipXy::new(0, 0), ChipXy::new(3, 3));
/// let net = Net { source: from, key: 0x1000, mask: 0xFFFF_F000, targets: vec![(to, CoreTarget::one(5))] };
/// let routes = route(&Machine::spin5(), &[net])?;
/// assert_eq!(routes.tables[&from][0].to_string(), "00001000/fffff000 -> NE");
/// // The two chips between need no entry: packets go straight on.
/// assert_eq!((routes.tables.len(), routes.entries_total()), (2, (2, 4)));
/// # Ok::<(), spidnn_compiler::route::RouteError>(())
/// ```
pub fn route(machine: &Machine, nets: &[Net]) -> Result<Tables, RouteError> {
    let mut regions: BTreeMap<ChipXy, Vec<Region>> = BTreeMap::new();
    // Streams of all slots of a chip go to the same chips: the way is sought once.
    let mut ways: BTreeMap<(ChipXy, Vec<ChipXy>), Vec<Hop>> = BTreeMap::new();
    check_overlap(nets)?;
    for net in nets {
        let mut cores: BTreeMap<ChipXy, CoreTarget> = BTreeMap::new();
        for &(chip, target) in &net.targets {
            let there = machine.chips.get(&chip).ok_or(RouteError::NoChip(chip))?;
            if let Some(core) = target.cores().find(|core| !there.cores.contains(core)) {
                return Err(RouteError::NoCore(chip, core));
            }
            let set = cores.entry(chip).or_default();
            *set = set.union(target);
        }
        cores.retain(|_, set| !set.is_empty());
        let &Net { source: chip, key, mask, .. } = net;
        if cores.is_empty() {
            return Err(RouteError::Net { chip, key, mask, reason: "nobody gets them" });
        }
        if key & !mask != 0 {
            return Err(RouteError::Net { chip, key, mask, reason: "the key has bits outside the mask" });
        }
        let chips: Vec<ChipXy> = cores.keys().copied().collect();
        let way = match ways.entry((chip, chips)) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let way = find_way(machine, chip, &entry.key().1)?;
                entry.insert(way)
            }
        };
        for hop in way.iter() {
            let here = cores.get(&hop.chip).map_or(Route::NONE, |set| set.route());
            let route = hop.onward.union(here);
            let by_default = hop.arrival.is_some_and(|link| route == Route::NONE.with_link(link.opposite()));
            regions.entry(hop.chip).or_default().push(Region { key, mask, route, by_default });
        }
    }
    let mut result = Tables::default();
    for (chip, regions) in regions {
        let table = minimise::minimise(&regions);
        if let Some(key) = minimise::first_difference(&table, &regions) {
            return Err(RouteError::NotEquivalent { chip, key });
        }
        if table.len() > ROUTING_ENTRIES_MAX {
            return Err(RouteError::TableFull { chip, entries: table.len() });
        }
        result.entries_before.insert(chip, regions.len());
        if !table.is_empty() {
            result.tables.insert(chip, table);
        }
    }
    Ok(result)
}

/// Fails if two nets have a key in common.
fn check_overlap(nets: &[Net]) -> Result<(), RouteError> {
    let masks: BTreeSet<u32> = nets.iter().map(|net| net.mask).collect();
    // Two sets of keys meet if they agree in the bits that both masks show: for each pair of masks, a look-up.
    for &mask in &masks {
        for &other_mask in masks.range(mask..) {
            let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
            let common = mask & other_mask;
            for (number, net) in nets.iter().enumerate().filter(|(_, net)| net.mask == mask) {
                let old = seen.insert(net.key & common, number);
                if let (Some(old), true) = (old, mask == other_mask) {
                    return Err(overlap(&nets[old], net));
                }
            }
            if mask != other_mask {
                for net in nets.iter().filter(|net| net.mask == other_mask) {
                    if let Some(&number) = seen.get(&(net.key & common)) {
                        return Err(overlap(&nets[number], net));
                    }
                }
            }
        }
    }
    Ok(())
}

fn overlap(a: &Net, b: &Net) -> RouteError {
    RouteError::Overlap(Box::new((a.source, a.key, a.mask)), Box::new((b.source, b.key, b.mask)))
}

/// A chip on the way of a net.
#[derive(Debug, Clone)]
struct Hop {
    chip: ChipXy,
    /// By which of its links packets come in; `None` at the source.
    arrival: Option<Link>,
    /// Links that packets leave by.
    onward: Route,
}

/// A tree of chips from `source` to all of `targets`, the source first.
fn find_way(machine: &Machine, source: ChipXy, targets: &[ChipXy]) -> Result<Vec<Hop>, RouteError> {
    if !machine.chips.contains_key(&source) {
        return Err(RouteError::NoChip(source));
    }
    let mut hops = vec![Hop { chip: source, arrival: None, onward: Route::NONE }];
    let mut place: BTreeMap<ChipXy, usize> = BTreeMap::from([(source, 0)]);
    let mut order: Vec<ChipXy> = targets.to_vec();
    order.sort_by_key(|&target| (machine.distance(source, target), target));
    for target in order {
        if place.contains_key(&target) {
            continue;
        }
        let nearest =
            hops.iter().map(|hop| hop.chip).min_by_key(|&chip| machine.distance(chip, target)).unwrap_or(source);
        let steps = match straight(machine, nearest, target) {
            Some(steps) => steps,
            None => detour(machine, &hops, target).ok_or(RouteError::Unreachable { from: source, to: target })?,
        };
        // The path leaves the tree at once and for good: it comes from the nearest chip of the tree, and every step is
        // one nearer to the target.
        for (from, link) in steps {
            let to = machine.neighbour(from, link).ok_or(RouteError::Unreachable { from, to: target })?;
            let at = place[&from];
            hops[at].onward = hops[at].onward.with_link(link);
            place.insert(to, hops.len());
            hops.push(Hop { chip: to, arrival: Some(link.opposite()), onward: Route::NONE });
        }
    }
    Ok(hops)
}

/// The shortest path, longest dimension first, if all of it works: chips and the links they are left by.
fn straight(machine: &Machine, from: ChipXy, to: ChipXy) -> Option<Vec<(ChipXy, Link)>> {
    let ways = |a: u8, b: u8, size: u16, wraps: bool| {
        let (d, size) = (i32::from(b) - i32::from(a), i32::from(size));
        if wraps { vec![d, d - size, d + size] } else { vec![d] }
    };
    let dys = ways(from.y, to.y, machine.height, machine.wraps.1);
    let (dx, dy) = ways(from.x, to.x, machine.width, machine.wraps.0)
        .into_iter()
        .flat_map(|dx| dys.iter().map(move |&dy| (dx, dy)))
        .min_by_key(|&(dx, dy)| spinnaker_machine::mesh_distance(dx, dy))?;
    // What both have in common goes along the diagonal.
    let diagonal = if (dx >= 0) == (dy >= 0) { dx.signum() * dx.abs().min(dy.abs()) } else { 0 };
    let one_of = |steps: i32, forth: Link, back: Link| (steps.unsigned_abs(), if steps > 0 { forth } else { back });
    let mut legs = [
        one_of(dx - diagonal, Link::E, Link::W),
        one_of(diagonal, Link::NE, Link::SW),
        one_of(dy - diagonal, Link::N, Link::S),
    ];
    legs.sort_by_key(|&(steps, link)| (std::cmp::Reverse(steps), link));
    let mut path = Vec::new();
    let mut at = from;
    for (steps, link) in legs {
        for _ in 0..steps {
            path.push((at, link));
            at = machine.neighbour(at, link)?;
        }
    }
    (at == to).then_some(path)
}

/// The shortest working path from any chip of the tree.
fn detour(machine: &Machine, hops: &[Hop], to: ChipXy) -> Option<Vec<(ChipXy, Link)>> {
    let mut queue: VecDeque<ChipXy> = hops.iter().map(|hop| hop.chip).collect();
    let mut seen: BTreeSet<ChipXy> = queue.iter().copied().collect();
    let mut came: BTreeMap<ChipXy, (ChipXy, Link)> = BTreeMap::new();
    while let Some(at) = queue.pop_front() {
        if at == to {
            let mut path = Vec::new();
            let mut at = to;
            while let Some(&step) = came.get(&at) {
                path.push(step);
                at = step.0;
            }
            path.reverse();
            return Some(path);
        }
        for link in Link::ALL {
            if let Some(next) = machine.neighbour(at, link)
                && seen.insert(next)
            {
                came.insert(next, (at, link));
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
