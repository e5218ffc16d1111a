//! The point-to-point tables that network set-up leaves, SC&MP 4.0.0: every chip knows the ways to the Ethernet chips and
//! to those chips whose way to the root or to their own Ethernet chip leads across it. (protocols reference, 14.2)

use std::collections::{BTreeMap, VecDeque};

use spinnaker_wire::ChipAddress;
use spinnaker_wire::router::{P2pRoute, p2p_table};

/// A chip's table: words of eight entries, those in which every entry is "drop" left out.
#[derive(Debug, Clone, Default)]
pub(super) struct P2pTable {
    words: BTreeMap<u16, u32>,
}

impl P2pTable {
    /// The word with a number: entries of the eight chips from address 8 * number on.
    pub fn word(&self, number: u16) -> u32 {
        self.words.get(&number).copied().unwrap_or(p2p_table::WORD_DROP)
    }

    /// Writes a word.
    pub fn set_word(&mut self, number: u16, value: u32) {
        self.words.insert(number & 0x1FFF, value & 0x00FF_FFFF);
    }

    /// The entry of a chip.
    pub fn entry(&self, chip: ChipAddress) -> P2pRoute {
        p2p_table::entry(self.word(chip.0 / 8), chip)
    }

    fn set(&mut self, chip: ChipAddress, route: P2pRoute) {
        let word = p2p_table::with_entry(self.word(chip.0 / 8), chip, route);
        self.set_word(chip.0 / 8, word);
    }

    /// Chips that it knows a way to, itself included.
    pub fn known(&self) -> u16 {
        let known = |word: &u32| (0..8).filter(|n| word >> (3 * n) & 7 != 6).count();
        self.words.values().map(known).sum::<usize>().min(usize::from(u16::MAX)) as u16
    }
}

/// A chip as the set-up sees it.
pub(super) struct Node {
    pub address: ChipAddress,
    pub neighbours: [Option<usize>; 6],
    /// Its board's Ethernet chip.
    pub ethernet: usize,
}

/// The tables of all chips. `root` is the chip that was booted.
pub(super) fn tables(nodes: &[Node], root: usize) -> Vec<P2pTable> {
    let mut tables = vec![P2pTable::default(); nodes.len()];
    for (table, node) in tables.iter_mut().zip(nodes) {
        table.set(node.address, P2pRoute::Monitor);
    }
    let mut targets: Vec<usize> = nodes.iter().map(|node| node.ethernet).collect();
    targets.push(root);
    targets.sort_unstable();
    targets.dedup();
    for &target in &targets {
        let address = nodes[target].address;
        for (index, way) in ways(nodes, target).into_iter().enumerate() {
            if let Some(link) = way.filter(|_| index != target) {
                tables[index].set(address, P2pRoute::from_raw(link));
            }
        }
    }
    for (index, node) in nodes.iter().enumerate() {
        for target in [root, node.ethernet] {
            lead_back(nodes, &mut tables, index, target);
        }
    }
    tables
}

/// For each chip the link by which a target is nearest.
fn ways(nodes: &[Node], target: usize) -> Vec<Option<u8>> {
    let mut ways = vec![None; nodes.len()];
    let mut queue = VecDeque::from([target]);
    while let Some(at) = queue.pop_front() {
        for (link, neighbour) in nodes[at].neighbours.iter().enumerate() {
            if let Some(neighbour) = *neighbour
                && neighbour != target
                && ways[neighbour].is_none()
            {
                ways[neighbour] = Some((link as u8 + 3) % 6);
                queue.push_back(neighbour);
            }
        }
    }
    ways
}

/// The chips on a chip's way to a target learn the way back.
fn lead_back(nodes: &[Node], tables: &mut [P2pTable], from: usize, target: usize) {
    let mut at = from;
    for _ in 0..nodes.len() {
        let Some(link) = tables[at].entry(nodes[target].address).link().map(|link| link.raw()) else { return };
        let Some(next) = nodes[at].neighbours[usize::from(link)] else { return };
        if tables[next].entry(nodes[from].address) != P2pRoute::Monitor && next != from {
            tables[next].set(nodes[from].address, P2pRoute::from_raw((link + 3) % 6));
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SpiNN-3 as SC&MP 4.0.0 sets it up (protocols reference, 20.3).
    #[test]
    fn four_chips_have_the_tables_of_the_monitor() {
        let places = [(0, 0), (0, 1), (1, 0), (1, 1)];
        let links: [&[(usize, usize)]; 4] = [
            &[(0, 2), (1, 3), (2, 1), (5, 1)],
            &[(0, 3), (2, 0), (5, 0)],
            &[(2, 3), (3, 0), (5, 3)],
            &[(2, 2), (3, 1), (4, 0), (5, 2)],
        ];
        let nodes: Vec<Node> = places
            .iter()
            .zip(links)
            .map(|(&(x, y), links)| {
                let mut neighbours = [None; 6];
                links.iter().for_each(|&(link, to)| neighbours[link] = Some(to));
                Node { address: ChipAddress::new(x, y), neighbours, ethernet: 0 }
            })
            .collect();
        let tables = tables(&nodes, 0);
        let entries = |table: &P2pTable| places.map(|(x, y)| table.entry(ChipAddress::new(x, y)).raw());
        assert_eq!(entries(&tables[0]), [7, 2, 0, 1]);
        assert_eq!(entries(&tables[1])[1..], [7, 6, 6]);
        assert_eq!(entries(&tables[2]), [3, 6, 7, 6]);
        assert_eq!(entries(&tables[3]), [4, 6, 6, 7]);
        assert_eq!(tables.iter().map(P2pTable::known).collect::<Vec<_>>(), [4, 2, 2, 2]);
    }
}
