//! The ways of packets on a board: a tree of its chips, with the gate's at the root.

use std::collections::{BTreeMap, VecDeque};

use spinnaker_wire::ChipAddress;
use spinnaker_wire::bulk::{HANDS_MAX, KEY_MASK, key};
use spinnaker_wire::router::Route;

use crate::{FoundMachine, RouteEntry};

/// Where a link leads: east, north-east, north, west, south-west, south.
const LINKS: [(i16, i16); 6] = [(1, 0), (1, 1), (0, 1), (-1, 0), (-1, -1), (0, -1)];

/// A chip that is reached from the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub chip: ChipAddress,
    /// Its core, as the monitor counts.
    pub core: u8,
    /// 0 for the gate.
    pub hand: u16,
    pub routes: Vec<RouteEntry>,
}

/// The chips of the board of `ethernet` that have a core in `cores`, with their numbers and routes; the gate first. None if the Ethernet chip
/// has no core.
pub(super) fn members(machine: &FoundMachine, ethernet: ChipAddress, cores: &BTreeMap<(u8, u8), u8>) -> Vec<Member> {
    let place = |chip: ChipAddress| (chip.x(), chip.y());
    let board: BTreeMap<(u8, u8), u8> = machine
        .chips
        .iter()
        .filter(|found| found.info.ethernet_chip == ethernet && cores.contains_key(&place(found.chip)))
        .map(|found| (place(found.chip), found.info.links))
        .collect();
    let root = place(ethernet);
    if !board.contains_key(&root) {
        return Vec::new();
    }
    // By each chip the link to it and its parent; in the order in which they were found.
    let mut order = vec![root];
    let mut parents: BTreeMap<(u8, u8), ((u8, u8), usize)> = BTreeMap::new();
    let mut queue = VecDeque::from([root]);
    while let Some(chip) = queue.pop_front() {
        for (link, delta) in LINKS.iter().enumerate() {
            let next = neighbour(machine, chip, *delta);
            let (Some(here), Some(there)) = (board.get(&chip), board.get(&next)) else { continue };
            let works = here >> link & 1 != 0 && there >> ((link + 3) % 6) & 1 != 0;
            if works && next != root && !parents.contains_key(&next) && order.len() <= usize::from(HANDS_MAX) {
                parents.insert(next, (chip, link));
                order.push(next);
                queue.push_back(next);
            }
        }
    }
    let mut routes: BTreeMap<(u8, u8), Vec<RouteEntry>> = BTreeMap::new();
    for (number, &chip) in order.iter().enumerate() {
        let mut add = |chip, route, hand| {
            routes.entry(chip).or_default().push(RouteEntry { route, key: key(hand), mask: KEY_MASK });
        };
        let core = Route::new(0, 1 << cores[&chip]);
        match parents.get(&chip) {
            None => add(chip, core, 0),
            Some((_, link)) => {
                add(chip, Route::new(1 << ((link + 3) % 6), 0), 0);
                add(chip, core, number as u16);
                let mut at = chip;
                while let Some(&(parent, link)) = parents.get(&at) {
                    add(parent, Route::new(1 << link, 0), number as u16);
                    at = parent;
                }
            }
        }
    }
    let member = |(number, place): (usize, (u8, u8))| Member {
        chip: ChipAddress::new(place.0, place.1),
        core: cores[&place],
        hand: number as u16,
        routes: routes.remove(&place).unwrap_or_default(),
    };
    order.into_iter().enumerate().map(member).collect()
}

fn neighbour(machine: &FoundMachine, (x, y): (u8, u8), (dx, dy): (i16, i16)) -> (u8, u8) {
    let wrap = |at: u8, by: i16, size: u8| (i16::from(at) + by).rem_euclid(i16::from(size.max(1))) as u8;
    (wrap(x, dx, machine.width), wrap(y, dy, machine.height))
}
