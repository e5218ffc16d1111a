//! What the chips of a machine are made of, for when they are switched on.

use std::collections::BTreeMap;

use spinnaker_machine::{ChipXy, Link as Direction, Machine};

use super::{CycleConfig, default_address, drawn};
use crate::arm968::CodeStore;
use crate::chip::{BoardAddress, CORES, Setup, Times};
use crate::network::{Link, Output};

/// See the module. Chips go by their index.
pub(super) struct Plan {
    machine: Machine,
    config: CycleConfig,
    places: Vec<ChipXy>,
    index: BTreeMap<ChipXy, u32>,
    pub boards: BTreeMap<u32, BoardAddress>,
    pub times: Times,
    hardware_version: u8,
    code: CodeStore,
}

/// Cores of a chip: which work, which the ROM elects. Those of the mask `dead` do not, as long as another is left.
fn elect(seed: u64, place: u64, working: usize, wanted: Option<u8>, dead: u32) -> (u32, u8) {
    const ALL: u32 = (1 << CORES) - 1;
    let mut broken = if dead & ALL == ALL { 0 } else { dead & ALL };
    let wanted = wanted.filter(|&core| usize::from(core) < CORES && broken >> core & 1 == 0);
    let mut draw = 0;
    let mut next = || {
        draw += 1;
        (drawn(seed, place << 8 | draw) % CORES as u64) as u32
    };
    while (broken.count_ones() as usize) < CORES - working.clamp(1, CORES) {
        let core = next();
        if wanted != Some(core as u8) {
            broken |= 1 << core;
        }
    }
    let monitor = wanted.unwrap_or_else(|| {
        loop {
            let core = next();
            if broken >> core & 1 == 0 {
                break core as u8;
            }
        }
    });
    (ALL & !broken, monitor)
}

impl Plan {
    pub fn new(machine: &Machine, config: &CycleConfig) -> Self {
        let places: Vec<ChipXy> = machine.chips.keys().copied().collect();
        let index: BTreeMap<ChipXy, u32> = places.iter().zip(0..).map(|(&xy, i)| (xy, i)).collect();
        let timing = config.timing;
        let lookahead_ps = (timing.router_ns + timing.link_short_ns.min(timing.board_link_short_ns)).max(1) * 1000;
        let mut boards = BTreeMap::new();
        for (number, (&xy, _)) in machine.chips.iter().filter(|(_, chip)| chip.ethernet).enumerate() {
            let address = config.addresses.get(&xy).copied().unwrap_or_else(|| default_address(number));
            boards.insert(index[&xy], address);
        }
        Self {
            times: Times { timing, cycle: config.cycle_timing, lookahead_ps },
            hardware_version: config.hardware_version.unwrap_or(if places.len() <= 4 { 3 } else { 5 }),
            machine: machine.clone(),
            config: config.clone(),
            places,
            index,
            boards,
            code: CodeStore::for_machine(),
        }
    }

    /// A chip that is switched on, among others that have power or not.
    pub fn setup(&self, index: usize, powered: &[bool]) -> Setup {
        let (xy, config) = (self.places[index], &self.config);
        let place = u64::from(xy.x) << 8 | u64::from(xy.y);
        let working = self.machine.chips.get(&xy).map_or(0, |chip| chip.cores.len()) + 1;
        let dead =
            config.dead_cores.range((xy, 0)..=(xy, u8::MAX)).filter_map(|&(_, core)| 1u32.checked_shl(core.into()));
        let dead = dead.fold(0, |mask, bit| mask | bit);
        let wanted = config.monitors.get(&xy).copied();
        let (working_cores, monitor) = elect(config.seed, place, working, wanted, dead);
        Setup {
            working_cores,
            monitor,
            board: self.boards.get(&(index as u32)).copied(),
            hardware_version: self.hardware_version,
            links: std::array::from_fn(|link| self.link(index, link, powered)),
            times: self.times,
            seed: drawn(config.seed, 1 << 40 | place),
            parity_errors: config.parity_errors_per_65536,
            packet_losses: config.packet_losses_per_65536,
            rests: config.rests,
            code: self.code.clone(),
        }
    }

    /// Where a link leads, if there is a chip.
    fn neighbour(&self, index: usize, link: usize) -> Option<u32> {
        self.machine.neighbour(self.places[index], Direction::ALL[link]).map(|there| self.index[&there])
    }

    /// Links to chips that are wanted.
    pub fn links_to(&self, index: usize, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..6).filter(|&link| self.neighbour(index, link).is_some_and(|there| wanted(there as usize))).collect()
    }

    /// A link; one to a chip without power has nobody at its other end.
    pub fn link(&self, index: usize, link: usize, powered: &[bool]) -> Link {
        let direction = Direction::ALL[link];
        let timing = &self.times.timing;
        let (short_ns, long_ns) = if self.machine.crosses_boards(self.places[index], direction) {
            (timing.board_link_short_ns, timing.board_link_long_ns)
        } else {
            (timing.link_short_ns, timing.link_long_ns)
        };
        let to = self
            .neighbour(index, link)
            .filter(|&there| powered[there as usize])
            .map(|chip| Output { chip, link: direction.opposite().index() as u8 });
        Link::new(to, short_ns * 1000, long_ns * 1000, self.times.cycle.link_packets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elections_give_working_monitors_and_the_wanted_number_of_cores() {
        for seed in 0..200 {
            let (working, monitor) = elect(seed, seed * 7, 17, None, 0);
            assert_eq!((working.count_ones(), working >> monitor & 1), (17, 1));
            assert_eq!(elect(seed, 3, 18, Some(5), 0), (0x3_FFFF, 5));
            let (working, monitor) = elect(seed, 3, 1, Some(9), 0);
            assert_eq!((working, monitor), (1 << 9, 9));
            // A core that is said to be dead is, and is not elected; others only if there are fewer.
            assert_eq!(elect(seed, 3, 17, None, 1 << 4).0, 0x3_FFFF & !(1 << 4));
            let (working, monitor) = elect(seed, 3, 16, Some(4), 1 << 4);
            assert_eq!((working.count_ones(), working >> 4 & 1, working >> monitor & 1), (16, 0, 1));
        }
    }
}
