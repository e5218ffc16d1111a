//! The machine model: which chips, cores and links there are and work.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use thiserror::Error;

use crate::{ChipXy, Link, mesh_distance};

/// First byte of SDRAM as cores and DMA controllers see it (buffered view).
pub const SDRAM_BASE: u32 = 0x6000_0000;
/// Bytes of SDRAM of a chip, the system's share included.
pub const SDRAM_BYTES: u32 = 128 << 20;
/// First byte of SDRAM that belongs to applications; what is below belongs to the system.
pub const SDRAM_USER_BASE: u32 = 0x6024_0000;
/// Bytes from [`SDRAM_USER_BASE`] on that belong to applications.
pub const SDRAM_USER_BYTES: u32 = 117 << 20;
/// Entries of a routing table that belong to applications: 1,024 without the system's one.
pub const ROUTING_ENTRIES_MAX: usize = 1023;
/// Highest number of an application core.
pub const CORE_MAX: u8 = 17;

/// A chip as found: what works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chip {
    /// Application cores that work: virtual numbers from 1 to 17, ascending. (Core 0 is the monitor.)
    pub cores: Vec<u8>,
    /// Links that work, by number; a working link has a working chip at its other end.
    pub links: [bool; 6],
    /// Bytes of SDRAM for applications, from [`SDRAM_USER_BASE`] on.
    pub sdram_bytes: u32,
    /// Whether the chip has an Ethernet connection.
    pub ethernet: bool,
    /// The Ethernet chip of its board.
    pub nearest_ethernet: ChipXy,
}

/// What cannot be done to, or made of, a machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MachineError {
    /// The machine has no such chip, or it does not work.
    #[error("there is no working chip {0}")]
    NoChip(ChipXy),
    /// The chip has no such core, or it does not work.
    #[error("chip {0} has no working application core {1}")]
    NoCore(ChipXy, u8),
    /// The chip has no such link, or it does not work.
    #[error("chip {0} has no working link {1}")]
    NoLink(ChipXy, Link),
    /// A machine of this size cannot be addressed or makes no sense.
    #[error("a machine of {0} cannot be: {1}")]
    Size(String, &'static str),
    /// A chip through which the host reaches a board must work.
    #[error("chip {0} has the board's Ethernet connection: without it the host does not reach the board")]
    EthernetChip(ChipXy),
}

/// How many parts fail, for [`Machine::fail_random`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RandomFaults {
    /// Chips (never one with Ethernet).
    pub chips: usize,
    /// Cores of the chips that are left.
    pub cores: usize,
    /// Links between chips that are left, both directions at once.
    pub links: usize,
}

/// A machine: chips on a hexagonal mesh.
///
/// ```
/// use spinnaker_machine::{ChipXy, Link, Machine};
/// let machine = Machine::spin5();
/// assert_eq!((machine.chips.len(), machine.core_count()), (48, 808));
/// assert_eq!(machine.neighbour(ChipXy::new(0, 0), Link::NE), Some(ChipXy::new(1, 1)));
/// assert_eq!(machine.neighbour(ChipXy::new(0, 0), Link::W), None);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
    /// Whether the mesh closes on itself in x, and in y.
    pub wraps: (bool, bool),
    /// Chips that work.
    pub chips: BTreeMap<ChipXy, Chip>,
    /// Electric power of the boards when no core is active, in watts.
    pub idle_power_w: f64,
}

/// Power of an idle SpiNN-5 board without its box, in watts (SpiNNMachine, version_5.py).
const SPIN5_IDLE_W: f64 = 26.84;
/// Power of an idle SpiNN-3 board, in watts (SpiNNMachine, version_3.py).
const SPIN3_IDLE_W: f64 = 3.56;

/// Chips of a SpiNN-5 board: for each row the first column and the one behind the last.
const SPIN5_ROWS: [(u8, u8); 8] = [(0, 5), (0, 6), (0, 7), (0, 8), (1, 8), (2, 8), (3, 8), (4, 8)];
/// Chips of a typical SpiNN-5 board with 17 cores instead of 18 (SpiNNMachine, version_5.py).
const SPIN5_SHORT: [(u8, u8); 8] = [(1, 1), (1, 3), (3, 1), (3, 3), (3, 5), (5, 2), (5, 4), (5, 6)];
/// Places of the three boards of a triad.
const TRIAD: [(u16, u16); 3] = [(0, 0), (4, 8), (8, 4)];

fn chip(cores: u8, ethernet: bool, nearest_ethernet: ChipXy) -> Chip {
    Chip { cores: (1..=cores).collect(), links: [false; 6], sdram_bytes: SDRAM_USER_BYTES, ethernet, nearest_ethernet }
}

impl Machine {
    fn empty(width: u16, height: u16, wraps: (bool, bool), idle_power_w: f64) -> Self {
        Self { width, height, wraps, chips: BTreeMap::new(), idle_power_w }
    }

    /// A SpiNN-3 board: 2 x 2 chips of 17 application cores. Columns wrap around in y, so neighbours in a column are
    /// joined by two links.
    pub fn spin3() -> Self {
        let mut machine = Self::empty(2, 2, (false, true), SPIN3_IDLE_W);
        let origin = ChipXy::new(0, 0);
        for (x, y) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            machine.chips.insert(ChipXy::new(x, y), chip(17, (x, y) == (0, 0), origin));
        }
        machine.join_all();
        machine
    }

    /// A SpiNN-5 board: 48 chips with 808 application cores (the nominal board: 40 chips with 17, 8 with 16).
    pub fn spin5() -> Self {
        let mut machine = Self::empty(8, 8, (false, false), SPIN5_IDLE_W);
        machine.add_board(0, 0);
        machine.join_all();
        machine
    }

    /// A sheet of `width` x `height` chips of 17 application cores, without wrap-around, as if on one board with
    /// Ethernet at chip 0,0.
    ///
    /// # Errors
    /// [`MachineError::Size`] if a side is 0 or above 256.
    pub fn rectangle(width: u16, height: u16) -> Result<Self, MachineError> {
        let name = || format!("{width} x {height} chips");
        if width == 0 || height == 0 {
            return Err(MachineError::Size(name(), "a side is empty"));
        }
        if width > 256 || height > 256 {
            return Err(MachineError::Size(name(), "a side has at most 256 chips"));
        }
        let chips = f64::from(width) * f64::from(height);
        let mut machine = Self::empty(width, height, (false, false), SPIN5_IDLE_W / 48.0 * chips);
        for x in 0..width {
            for y in 0..height {
                let xy = ChipXy::new(x as u8, y as u8);
                machine.chips.insert(xy, chip(17, (x, y) == (0, 0), ChipXy::new(0, 0)));
            }
        }
        machine.join_all();
        Ok(machine)
    }

    /// `count` SpiNN-5 boards. Three, six, nine, .. boards make a torus of triads, as square as their number allows
    /// (12 x 12 chips a triad). Other numbers fill triads in order, without wrap-around; one is [`Machine::spin5`].
    ///
    /// # Errors
    /// [`MachineError::Size`] if there are none, or more than chip addresses reach.
    pub fn boards(count: usize) -> Result<Self, MachineError> {
        let name = || format!("{count} boards");
        if count == 0 {
            return Err(MachineError::Size(name(), "there must be one at least"));
        }
        // 21 x 21 triads are 252 x 252 chips; addresses have 8 bits.
        const TRIADS_SIDE_MAX: usize = 21;
        if count > 3 * TRIADS_SIDE_MAX * TRIADS_SIDE_MAX {
            return Err(MachineError::Size(name(), "chip addresses reach 1,323 boards"));
        }
        let triads = count.div_ceil(3);
        let root = (1..).take_while(|side| side * side <= triads).last().unwrap_or(1);
        let divisor = (1..=root).rev().find(|side| triads.is_multiple_of(*side)).unwrap_or(1);
        let torus = count.is_multiple_of(3) && triads / divisor <= TRIADS_SIDE_MAX;
        let (wide, high) =
            if torus { (triads / divisor, divisor) } else { (triads.div_ceil(root).min(TRIADS_SIDE_MAX), root) };
        let high = high.max(triads.div_ceil(wide));
        let mut places = Vec::new();
        'all: for row in 0..high {
            for column in 0..wide {
                for (x, y) in TRIAD {
                    if places.len() == count {
                        break 'all;
                    }
                    places.push((x + 12 * column as u16, y + 12 * row as u16));
                }
            }
        }
        let (width, height) = if torus {
            (12 * wide as u16, 12 * high as u16)
        } else {
            let x = places.iter().map(|place| place.0).max().unwrap_or(0);
            let y = places.iter().map(|place| place.1).max().unwrap_or(0);
            (x + 8, y + 8)
        };
        if width > 256 || height > 256 {
            return Err(MachineError::Size(name(), "a side has at most 256 chips"));
        }
        let mut machine = Self::empty(width, height, (torus, torus), SPIN5_IDLE_W * count as f64);
        for (x, y) in places {
            machine.add_board(x, y);
        }
        machine.join_all();
        Ok(machine)
    }

    /// A machine of chips as they were found, whose links may work one way only or lead nowhere: those are taken away. Working links
    /// over an edge say that the mesh closes there.
    pub fn of_chips(width: u16, height: u16, chips: BTreeMap<ChipXy, Chip>) -> Self {
        let over = |edge: &dyn Fn(ChipXy) -> bool, link: Link| {
            chips.iter().any(|(xy, chip)| edge(*xy) && chip.links[link.index()])
        };
        let wraps =
            (over(&|xy| u16::from(xy.x) + 1 == width, Link::E), over(&|xy| u16::from(xy.y) + 1 == height, Link::N));
        let boards = chips.values().filter(|chip| chip.ethernet).count().max(1);
        let idle_power_w = if chips.len() <= 4 { SPIN3_IDLE_W } else { SPIN5_IDLE_W * boards as f64 };
        let mut machine = Self { width, height, wraps, chips, idle_power_w };
        for (xy, link) in machine.one_way_links() {
            if let Some(chip) = machine.chips.get_mut(&xy) {
                chip.links[link.index()] = false;
            }
        }
        machine
    }

    /// Links that work from this end and not from the other, or lead to no chip.
    pub fn one_way_links(&self) -> Vec<(ChipXy, Link)> {
        let ends = self.chips.keys().flat_map(|xy| Link::ALL.map(|link| (*xy, link)));
        let works = |xy: ChipXy, link: Link| self.chips.get(&xy).is_some_and(|chip| chip.links[link.index()]);
        ends.filter(|&(xy, link)| {
            works(xy, link) && !self.neighbour(xy, link).is_some_and(|to| works(to, link.opposite()))
        })
        .collect()
    }

    fn add_board(&mut self, x0: u16, y0: u16) {
        let origin = ChipXy::new(x0 as u8, y0 as u8);
        for (y, (first, behind)) in SPIN5_ROWS.into_iter().enumerate() {
            for x in first..behind {
                let place = ((x0 + u16::from(x)) % self.width, (y0 + y as u16) % self.height);
                let cores = if SPIN5_SHORT.contains(&(x, y as u8)) { 16 } else { 17 };
                let xy = ChipXy::new(place.0 as u8, place.1 as u8);
                self.chips.insert(xy, chip(cores, (x, y) == (0, 0), origin));
            }
        }
    }

    fn join_all(&mut self) {
        let places: Vec<ChipXy> = self.chips.keys().copied().collect();
        for xy in places {
            for link in Link::ALL {
                let there = self.step(xy, link).is_some_and(|to| self.chips.contains_key(&to));
                if let Some(chip) = self.chips.get_mut(&xy) {
                    chip.links[link.index()] = there;
                }
            }
        }
    }

    /// The place a link leads to, whether there is a chip or not; `None` beyond an edge.
    fn step(&self, from: ChipXy, link: Link) -> Option<ChipXy> {
        let axis = |at: u8, by: i32, size: u16, wraps: bool| {
            let to = i32::from(at) + by;
            let size = i32::from(size);
            if (0..size).contains(&to) {
                u8::try_from(to).ok()
            } else if wraps {
                u8::try_from(to.rem_euclid(size)).ok()
            } else {
                None
            }
        };
        let x = axis(from.x, link.dx(), self.width, self.wraps.0)?;
        let y = axis(from.y, link.dy(), self.height, self.wraps.1)?;
        Some(ChipXy { x, y })
    }

    /// The chip at the other end of a working link.
    pub fn neighbour(&self, from: ChipXy, link: Link) -> Option<ChipXy> {
        let chip = self.chips.get(&from)?;
        if chip.links[link.index()] { self.step(from, link) } else { None }
    }

    /// Whether a working link joins two boards (such links are slower).
    pub fn crosses_boards(&self, from: ChipXy, link: Link) -> bool {
        let board = |xy: ChipXy| self.chips.get(&xy).map(|chip| chip.nearest_ethernet);
        self.neighbour(from, link).is_some_and(|to| board(from) != board(to))
    }

    /// Application cores that work, on all chips.
    pub fn core_count(&self) -> usize {
        self.chips.values().map(|chip| chip.cores.len()).sum()
    }

    /// Boards: chips with Ethernet.
    pub fn board_count(&self) -> usize {
        self.chips.values().filter(|chip| chip.ethernet).count()
    }

    /// Hops between two places over a mesh without faults.
    pub fn distance(&self, from: ChipXy, to: ChipXy) -> u32 {
        let ways = |a: u8, b: u8, size: u16, wraps: bool| {
            let d = i32::from(b) - i32::from(a);
            let size = i32::from(size);
            if wraps { vec![d, d - size, d + size] } else { vec![d] }
        };
        let dys = ways(from.y, to.y, self.height, self.wraps.1);
        ways(from.x, to.x, self.width, self.wraps.0)
            .into_iter()
            .flat_map(|dx| dys.iter().map(move |&dy| mesh_distance(dx, dy)))
            .min()
            .unwrap_or(0)
    }

    /// Takes a chip away, and the links to it.
    ///
    /// # Errors
    /// [`MachineError::NoChip`]; [`MachineError::EthernetChip`] for a chip with Ethernet.
    pub fn kill_chip(&mut self, xy: ChipXy) -> Result<(), MachineError> {
        let chip = self.chips.get(&xy).ok_or(MachineError::NoChip(xy))?;
        if chip.ethernet {
            return Err(MachineError::EthernetChip(xy));
        }
        for link in Link::ALL {
            if self.neighbour(xy, link).is_some() {
                self.kill_link(xy, link)?;
            }
        }
        self.chips.remove(&xy);
        Ok(())
    }

    /// Takes an application core away.
    ///
    /// # Errors
    /// [`MachineError::NoChip`], [`MachineError::NoCore`].
    pub fn kill_core(&mut self, xy: ChipXy, core: u8) -> Result<(), MachineError> {
        let chip = self.chips.get_mut(&xy).ok_or(MachineError::NoChip(xy))?;
        let at = chip.cores.binary_search(&core).map_err(|_| MachineError::NoCore(xy, core))?;
        chip.cores.remove(at);
        Ok(())
    }

    /// Takes a link away in both directions.
    ///
    /// # Errors
    /// [`MachineError::NoChip`], [`MachineError::NoLink`].
    pub fn kill_link(&mut self, xy: ChipXy, link: Link) -> Result<(), MachineError> {
        if !self.chips.contains_key(&xy) {
            return Err(MachineError::NoChip(xy));
        }
        let other = self.neighbour(xy, link).ok_or(MachineError::NoLink(xy, link))?;
        for (at, link) in [(xy, link), (other, link.opposite())] {
            if let Some(chip) = self.chips.get_mut(&at) {
                chip.links[link.index()] = false;
            }
        }
        Ok(())
    }

    /// Keeps at most `count` application cores of each chip, the lowest numbers.
    pub fn cap_cores(&mut self, count: usize) {
        for chip in self.chips.values_mut() {
            chip.cores.truncate(count);
        }
    }

    /// Takes random parts away; the same seed takes the same parts of the same machine. Chips that the first Ethernet
    /// chip no longer reaches over working links are taken away as well, since no host could load them.
    /// If fewer parts are there than are to fail, all of them fail.
    pub fn fail_random(&mut self, faults: RandomFaults, seed: u64) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        // A choice below `count` by the high half of a product: bias below 2^-32 does not matter here.
        let mut below = |count: usize| ((u128::from(random.next_u64()) * count as u128) >> 64) as usize;
        for _ in 0..faults.chips {
            let chips: Vec<ChipXy> = self.chips.iter().filter(|(_, chip)| !chip.ethernet).map(|(&xy, _)| xy).collect();
            if chips.is_empty() {
                break;
            }
            // Cannot fail: the chip is there and has no Ethernet.
            let _ = self.kill_chip(chips[below(chips.len())]);
        }
        for _ in 0..faults.cores {
            let cores: Vec<(ChipXy, u8)> =
                self.chips.iter().flat_map(|(&xy, chip)| chip.cores.iter().map(move |&core| (xy, core))).collect();
            if cores.is_empty() {
                break;
            }
            let (xy, core) = cores[below(cores.len())];
            let _ = self.kill_core(xy, core);
        }
        for _ in 0..faults.links {
            let links = self.working_links();
            if links.is_empty() {
                break;
            }
            let (xy, link) = links[below(links.len())];
            let _ = self.kill_link(xy, link);
        }
        self.remove_unreachable();
    }

    /// Working links, each once: from the end whose link number is 0, 1 or 2.
    pub fn working_links(&self) -> Vec<(ChipXy, Link)> {
        let mut links = Vec::new();
        for &xy in self.chips.keys() {
            links.extend([Link::E, Link::NE, Link::N].map(|link| (xy, link)));
        }
        links.retain(|&(xy, link)| self.neighbour(xy, link).is_some());
        links
    }

    /// Takes away the chips that the first Ethernet chip does not reach over working links; says which.
    pub fn remove_unreachable(&mut self) -> Vec<ChipXy> {
        let Some(start) = self.chips.iter().find(|(_, chip)| chip.ethernet).map(|(&xy, _)| xy) else {
            return Vec::new();
        };
        let mut seen = BTreeSet::from([start]);
        let mut queue = vec![start];
        while let Some(xy) = queue.pop() {
            for link in Link::ALL {
                if let Some(to) = self.neighbour(xy, link)
                    && seen.insert(to)
                {
                    queue.push(to);
                }
            }
        }
        let lost: Vec<ChipXy> = self.chips.keys().copied().filter(|xy| !seen.contains(xy)).collect();
        for xy in &lost {
            // No working link joins them to a chip that stays, so there is nothing else to correct.
            self.chips.remove(xy);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What must hold of every machine.
    fn check(machine: &Machine) {
        for (&xy, chip) in &machine.chips {
            assert!(u16::from(xy.x) < machine.width && u16::from(xy.y) < machine.height);
            assert!(chip.cores.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(chip.cores.iter().all(|&core| (1..=CORE_MAX).contains(&core)));
            for link in Link::ALL {
                match machine.neighbour(xy, link) {
                    Some(to) => assert_eq!(machine.neighbour(to, link.opposite()), Some(xy), "{xy} {link}"),
                    None => assert!(!chip.links[link.index()]),
                }
            }
        }
    }

    fn at(x: u8, y: u8) -> ChipXy {
        ChipXy::new(x, y)
    }

    #[test]
    fn spin5_is_the_published_board() {
        let machine = Machine::spin5();
        check(&machine);
        assert_eq!(machine.chips.len(), 48);
        assert_eq!(machine.core_count(), 856 - 48);
        assert_eq!(machine.working_links().len(), 120);
        let edge = |link| machine.chips.keys().filter(|&&xy| machine.neighbour(xy, link).is_none()).count();
        assert_eq!(Link::ALL.map(edge).iter().sum::<usize>(), 48);
        assert_eq!(machine.chips[&at(5, 4)].cores.len(), 16);
        assert_eq!(machine.distance(at(0, 3), at(4, 7)), 4);
    }

    #[test]
    fn spin3_has_double_links_in_columns_and_none_out() {
        let machine = Machine::spin3();
        check(&machine);
        let links = |x, y| Link::ALL.map(|link| machine.neighbour(at(x, y), link));
        assert_eq!(links(0, 0), [Some(at(1, 0)), Some(at(1, 1)), Some(at(0, 1)), None, None, Some(at(0, 1))]);
        assert_eq!(links(0, 1), [Some(at(1, 1)), Some(at(1, 0)), Some(at(0, 0)), None, None, Some(at(0, 0))]);
        assert_eq!(links(1, 0), [None, None, Some(at(1, 1)), Some(at(0, 0)), Some(at(0, 1)), Some(at(1, 1))]);
        assert_eq!(links(1, 1), [None, None, Some(at(1, 0)), Some(at(0, 1)), Some(at(0, 0)), Some(at(1, 0))]);
    }

    #[test]
    fn machines_are_known_again_by_their_chips() {
        for machine in [Machine::spin3(), Machine::spin5(), Machine::boards(3).expect("three boards")] {
            let Machine { width, height, mut chips, .. } = machine.clone();
            assert_eq!(Machine::of_chips(width, height, chips.clone()), machine);
            assert!(machine.one_way_links().is_empty());
            // A link that is dead from one end is no link.
            chips.get_mut(&at(1, 1)).expect("a chip").links[Link::S.index()] = false;
            let mut killed = machine.clone();
            killed.kill_link(at(1, 1), Link::S).expect("a link");
            assert_eq!(Machine::of_chips(width, height, chips), killed);
        }
    }

    #[test]
    fn three_boards_are_a_torus_and_sides_meet_as_published() {
        let machine = Machine::boards(3).expect("three boards");
        check(&machine);
        assert_eq!((machine.width, machine.height, machine.chips.len()), (12, 12, 144));
        assert_eq!(machine.board_count(), 3);
        // In each direction 24 of the 144 links cross boards.
        for link in Link::ALL {
            assert_eq!(machine.chips.keys().filter(|&&xy| machine.crosses_boards(xy, link)).count(), 24, "{link}");
        }
        // East side leads to the board at +4, -4: from (0,0) that is (4, 8) on the torus.
        for (x, y, link, board) in [
            (7, 3, Link::E, at(4, 8)),
            (7, 3, Link::NE, at(8, 4)),
            (0, 0, Link::S, at(8, 4)),
            (0, 0, Link::SW, at(4, 8)),
        ] {
            let to = machine.neighbour(at(x, y), link).expect("joined");
            assert_eq!(machine.chips[&to].nearest_ethernet, board, "{x},{y} {link}");
        }
        assert_eq!(machine.distance(at(0, 0), at(11, 11)), 1);
    }

    #[test]
    fn boards_of_every_number() {
        for count in 1..=30 {
            let machine = Machine::boards(count).expect("small");
            check(&machine);
            assert_eq!((machine.chips.len(), machine.board_count()), (48 * count, count));
            assert_eq!(machine.wraps.0, count % 3 == 0);
            assert!(machine.clone().remove_unreachable().is_empty(), "{count} boards hang together");
        }
        assert_eq!(Machine::boards(1).expect("one"), Machine::spin5());
        let large = Machine::boards(1200).expect("the million-core machine");
        assert_eq!(large.chips.len(), 57_600);
        assert!(Machine::boards(0).is_err() && Machine::boards(1324).is_err());
        assert!(Machine::rectangle(0, 3).is_err() && Machine::rectangle(257, 1).is_err());
    }

    #[test]
    fn killing_says_what_is_not_there() {
        let mut machine = Machine::spin5();
        assert_eq!(machine.kill_chip(at(0, 0)), Err(MachineError::EthernetChip(at(0, 0))));
        assert_eq!(machine.kill_chip(at(7, 0)), Err(MachineError::NoChip(at(7, 0))));
        assert_eq!(machine.kill_core(at(1, 1), 17), Err(MachineError::NoCore(at(1, 1), 17)));
        assert_eq!(machine.kill_link(at(0, 0), Link::S), Err(MachineError::NoLink(at(0, 0), Link::S)));
        machine.kill_core(at(1, 1), 3).expect("there");
        assert!(!machine.chips[&at(1, 1)].cores.contains(&3));
        machine.kill_link(at(1, 1), Link::NE).expect("there");
        assert_eq!(machine.neighbour(at(2, 2), Link::SW), None);
        machine.kill_chip(at(1, 1)).expect("there");
        assert_eq!(machine.neighbour(at(0, 0), Link::NE), None);
        check(&machine);
    }

    proptest! {
        #[test]
        fn random_faults_leave_a_connected_machine(
            seed: u64, chips in 0usize..20, cores in 0usize..100, links in 0usize..40,
        ) {
            let faults = RandomFaults { chips, cores, links };
            let mut machine = Machine::spin5();
            machine.fail_random(faults, seed);
            check(&machine);
            prop_assert!(machine.chips.len() <= 48 - chips);
            prop_assert!(machine.clone().remove_unreachable().is_empty());
            let mut again = Machine::spin5();
            again.fail_random(faults, seed);
            prop_assert_eq!(machine, again);
        }

        #[test]
        fn distance_is_symmetric_and_changes_by_one_a_link(x in 0u8..12, y in 0u8..12, to_x in 0u8..12, to_y in 0u8..12) {
            let machine = Machine::boards(3).expect("three boards");
            let (a, b) = (at(x, y), at(to_x, to_y));
            let d = machine.distance(a, b);
            prop_assert_eq!(d, machine.distance(b, a));
            for link in Link::ALL {
                let next = machine.neighbour(a, link).expect("torus");
                prop_assert!(machine.distance(next, b).abs_diff(d) <= 1);
            }
        }
    }
}
