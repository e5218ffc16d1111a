//! A chip, or a few, driven by their registers: what the data sheet and the measured figures say.

use super::bus::CoreBus;
use super::comms::LOCAL;
use super::*;
use crate::Timing;
use crate::arm968::{Bus, Size};
use crate::cycle::CycleTiming;
use crate::network::Output;

const NS: u64 = 1000;
const CC: u32 = 0x1000_0000;
const DMA: u32 = 0x3000_0000;
const ROUTER: u32 = 0xF100_0000;
const SYSTEM: u32 = 0xF200_0000;
/// Router and link: 100 ns and 139 ns.
const HOP_PS: u64 = 239 * NS;

/// Chips in a row, joined by their links 0 and 3, in the state that the ROM leaves, with clocks as the system software sets
/// them. Monitors are core 1.
struct Row {
    chips: Vec<Chip>,
    now_ps: u64,
}

impl Row {
    fn new(count: u32) -> Self {
        Self::with(count, CycleTiming::default(), 0)
    }

    fn with(count: u32, cycle: CycleTiming, parity_errors: u16) -> Self {
        let timing = Timing::default();
        let times = Times { timing, cycle: CycleTiming { rom_start_ns: 0, ..cycle }, lookahead_ps: HOP_PS };
        let chip = |index: u32| {
            let link = |to: Option<Output>| Link::new(to, 139 * NS, 250 * NS, cycle.link_packets);
            let links = [0, 1, 2, 3, 4, 5].map(|direction| match direction {
                0 if index + 1 < count => link(Some(Output { chip: index + 1, link: 3 })),
                3 if index > 0 => link(Some(Output { chip: index - 1, link: 0 })),
                _ => link(None),
            });
            Chip::new(Setup {
                working_cores: 0x3_FFFF,
                monitor: 1,
                board: None,
                hardware_version: 5,
                links,
                times,
                seed: 1,
                parity_errors,
                packet_losses: 0,
                rests: true,
                code: CodeStore::new(),
            })
        };
        let mut row = Self { chips: (0..count).map(chip).collect(), now_ps: 0 };
        row.run(10);
        for chip in 0..count as usize {
            for (register, value) in [(0x50, 0x0007_0128), (0x54, 0x0007_011A), (0x60, 0x8094_88A5)] {
                row.write(chip, 0, SYSTEM + register, value);
            }
            row.write(chip, 0, ROUTER, 0x0040_0101);
            row.chips[chip].rom = Rom::new(1, None, 5);
        }
        row
    }

    fn run(&mut self, ns: u64) {
        let end_ps = self.now_ps + ns * NS;
        loop {
            let next = self.chips.iter().map(Chip::next_ps).min().unwrap_or(u64::MAX);
            if next >= end_ps {
                break;
            }
            for index in 0..self.chips.len() {
                self.chips[index].advance(end_ps.min(next + HOP_PS));
            }
            for index in 0..self.chips.len() {
                self.chips[index].noc.outbox_ps = u64::MAX;
                for message in std::mem::take(&mut self.chips[index].noc.outbox) {
                    self.chips[message.chip as usize].deliver(message);
                }
            }
        }
        self.now_ps = end_ps;
    }

    fn access<T>(&mut self, chip: usize, core: usize, with: impl FnOnce(&mut CoreBus, u64) -> T) -> T {
        let now_ps = self.now_ps;
        let chip = &mut self.chips[chip];
        let unit = &mut chip.cores[core];
        let at = unit.clock.cycles(now_ps);
        unit.cpu.set_cycles(at);
        let mut bus = CoreBus {
            core: core as u8,
            local: &mut unit.local,
            noc: &mut chip.noc,
            clock: unit.clock,
            attention: false,
        };
        let result = with(&mut bus, at);
        chip.after_access(core);
        result
    }

    fn read(&mut self, chip: usize, core: usize, address: u32) -> u32 {
        self.access(chip, core, |bus, at| bus.read(address, Size::Word, at)).expect("a register").value
    }

    fn write(&mut self, chip: usize, core: usize, address: u32, value: u32) {
        self.access(chip, core, |bus, at| bus.write(address, Size::Word, value, at)).expect("a register");
    }

    /// Sends a packet, as software does.
    fn send(&mut self, chip: usize, core: usize, control: u32, key: u32, payload: Option<u32>) {
        self.write(chip, core, CC, control << 16);
        if let Some(payload) = payload {
            self.write(chip, core, CC + 4, payload);
        }
        self.write(chip, core, CC + 8, key);
    }

    /// Takes a packet, as software does: status, payload, key.
    fn take(&mut self, chip: usize, core: usize) -> Option<(u32, u32, u32)> {
        let status = self.read(chip, core, CC + 0x0C);
        (status >> 31 != 0).then(|| (status, self.read(chip, core, CC + 0x10), self.read(chip, core, CC + 0x14)))
    }

    fn entry(&mut self, chip: usize, entry: u32, key: u32, mask: u32, route: u32) {
        self.write(chip, 0, ROUTER + 0x4000 + 4 * entry, route);
        self.write(chip, 0, ROUTER + 0x8000 + 4 * entry, key);
        self.write(chip, 0, ROUTER + 0xC000 + 4 * entry, mask);
    }
}

#[test]
fn a_peek_reads_the_neighbours_chip_id_within_a_microsecond() {
    let mut row = Row::new(2);
    row.send(0, 5, 0xA0, 0xE200_0000, None);
    row.run(1000);
    let (status, data, key) = row.take(0, 1).expect("an answer at the monitor");
    assert_eq!((status >> 24 & 7, status & 0xF, data, key), (0, 4, 0x5911_1012, 0xE200_0001));
    // A poke, its answer without payload; then a peek of what is not there.
    row.send(0, 5, 0xA0, 0x6000_0010, Some(0x1234));
    row.run(1000);
    let (status, _, key) = row.take(0, 1).expect("an answer");
    assert_eq!((status >> 17 & 1, key, row.chips[1].noc.sdram.word(0x10)), (0, 0x6000_0011, 0x1234));
    row.send(0, 5, 0xA0, 0x5000_0000, None);
    row.run(1000);
    assert_eq!(row.take(0, 1).expect("an answer").2, 0x5000_0003);
}

#[test]
fn multicast_goes_by_table_straight_on_and_to_several() {
    let mut row = Row::new(3);
    row.entry(0, 0, 0x100, 0xFFFF_FF00, 1 | 1 << (6 + 4));
    row.entry(2, 0, 0x100, 0xFFFF_FF00, 1 << (6 + 17) | 1 << (6 + 2));
    row.send(0, 3, 0, 0x123, Some(7));
    row.run(2000);
    for (chip, core, route) in [(0, 4, u32::from(LOCAL)), (2, 17, 3), (2, 2, 3)] {
        let (status, data, key) = row.take(chip, core).expect("arrived");
        assert_eq!((status >> 24 & 7, data, key, status & 0xF), (route, 7, 0x123, 1), "{chip} {core}");
    }
    // Without an entry a local packet goes nowhere.
    row.send(0, 3, 0, 0x999, None);
    row.run(2000);
    assert_eq!(row.chips[0].noc.router.dropped, 1);
}

#[test]
fn point_to_point_and_fixed_route_reach_the_monitor() {
    let mut row = Row::new(2);
    row.write(0, 0, ROUTER + 0x1_0000, 0o66666606);
    row.write(1, 0, ROUTER + 0x1_0000, 0o66666676);
    row.write(0, 1, CC + 0x18, 0x0700_0000);
    row.send(0, 1, 0x40, 0x2_0001, Some(9));
    row.run(1000);
    let (status, data, key) = row.take(1, 1).expect("at the monitor");
    assert_eq!((status & 0xF, data, key), (2, 9, 0x2_0000));
    row.write(0, 0, ROUTER + 0x84, 1);
    row.write(1, 0, ROUTER + 0x84, 1 << (6 + 9));
    row.send(0, 6, 0xC0, 0xABCD, None);
    row.run(1000);
    assert_eq!(row.take(1, 9).map(|(status, _, key)| (status & 0xF, key)), Some((8, 0xABCD)));
}

#[test]
fn a_full_core_stalls_the_router_for_240_cycles_then_the_packet_is_dumped() {
    let mut row = Row::new(1);
    row.entry(0, 0, 0, 0, 1 << (6 + 4));
    // One in the register, one on the path; the third stalls.
    for key in 1..=3 {
        row.send(0, 3, 0, key, None);
        row.run(200);
    }
    let stage = |row: &mut Row| row.read(0, 0, ROUTER + 4) >> 24 & 3;
    assert_eq!(stage(&mut row), 2);
    // What is behind waits, too, though its way is free.
    row.entry(0, 1, 0, 0, 0);
    row.run(1400);
    assert_eq!((stage(&mut row), row.chips[0].noc.router.dropped), (2, 0));
    row.run(300);
    assert_eq!((stage(&mut row), row.chips[0].noc.router.dropped), (0, 1));
    assert_eq!(row.read(0, 0, ROUTER + 0x1C), 3);
    assert_eq!(row.read(0, 0, ROUTER + 0x24), 1 << (6 + 4));
    assert_eq!(row.read(0, 0, ROUTER + 0x28) >> 30, 0b10);
    // The two others are still there, in order.
    assert_eq!(row.take(0, 4).map(|packet| packet.2), Some(1));
    row.run(100);
    assert_eq!(row.take(0, 4).map(|packet| packet.2), Some(2));
    // Taken in time, nothing is lost.
    for key in 4..=6 {
        row.send(0, 3, 0, key, None);
        row.run(200);
    }
    assert_eq!(stage(&mut row), 2);
    for key in 4..=6 {
        assert_eq!(row.take(0, 4).map(|packet| packet.2), Some(key));
        row.run(300);
    }
    assert_eq!(row.chips[0].noc.router.dropped, 1);
}

#[test]
fn a_loose_link_takes_one_packet_and_the_others_are_dumped() {
    let mut row = Row::new(1);
    row.write(0, 0, ROUTER, 0x0040_0105);
    for _ in 0..3 {
        row.send(0, 1, 0x80 | 2 << 2, 3, Some(1));
        row.run(2100);
    }
    assert_eq!(row.chips[0].noc.router.dropped, 2);
    assert_eq!(row.chips[0].noc.router.lines(), 1 << vic::source::ROUTER_DUMP);
    assert_eq!((row.read(0, 0, ROUTER + 0x24), row.read(0, 0, ROUTER + 0x28)), (1 << 2, 0xC000_0004));
}

#[test]
fn emergency_routing_diverts_to_the_next_lower_link() {
    let mut row = Row::new(2);
    // Link 1 leads nowhere; its neighbour is link 0. Waits of 240 cycles each.
    row.write(0, 0, ROUTER, 0x4040_0101);
    row.entry(0, 0, 0x50, 0xFFFF_FFF0, 1 << 1);
    for key in [0x50, 0x51] {
        row.send(0, 3, 0, key, None);
        row.run(4000);
    }
    // The first stands in the dead transmitter. The second came by link 3 as "diverted": the other chip sends it on as
    // "reverting" by its link 2, which is loose and takes one.
    assert_eq!(row.chips[0].noc.router.dropped, 0);
    assert_eq!((row.chips[1].noc.router.packets, row.chips[1].noc.links[2].packets), (1, 1));
}

/// A filter of the router's diagnostics that matches anything with one of these emergency states.
fn states(bits: u32) -> u32 {
    0x01FF_FC0F | bits << 4
}

/// Match the state that left instead of the one that came.
const OUTGOING: u32 = 1 << 8;

#[test]
fn waiting_for_a_link_and_the_next_lower_one_a_packet_leaves_once_as_both() {
    let mut row = Row::new(3);
    let filters =
        [states(1), states(2), states(4), states(8), states(1) | OUTGOING, states(2) | OUTGOING, states(8) | OUTGOING];
    for chip in 0..2 {
        for (register, filter) in (0..).zip(filters) {
            row.write(chip, 0, ROUTER + 0x200 + 4 * register, filter);
        }
        row.write(chip, 0, ROUTER + 0x2C, 0x7F);
    }
    let counters = |row: &mut Row, chip| [0, 4, 8, 12, 16, 20, 24].map(|i| row.read(chip, 0, ROUTER + 0x300 + i));
    // Waits of 240 cycles each. Link 1 leads nowhere, and is full after one packet. The next lower, link 0, leads to a receiver
    // that is off: four packets fill it.
    row.write(0, 0, ROUTER, 0x4040_0101);
    for (entry, key, route) in [(0, 0x50, 0b11), (1, 0x60, 0b01), (2, 0x70, 0b10)] {
        row.entry(0, entry, key, 0xFFFF_FFFF, route);
    }
    row.write(1, 0, SYSTEM + 0x200, 0x5EC0_0000 | 1 << 3);
    for key in [0x70, 0x60, 0x60, 0x60, 0x60, 0x50] {
        row.send(0, 3, 0, key, None);
        row.run(500);
    }
    row.entry(2, 0, 0x50, 0xFFFF_FFFF, 1 << (6 + 4));
    row.entry(2, 1, 0x60, 0xFFFF_FFFF, 0);
    // The first wait is over; now the receiver goes on.
    row.run(2000);
    assert_eq!(row.read(0, 0, ROUTER + 4) >> 24 & 3, 3);
    row.write(1, 0, SYSTEM + 0x200, 0x5EC0_0000);
    row.run(2000);
    assert_eq!((row.chips[0].noc.router.dropped, row.chips[0].noc.links[0].packets), (0, 5));
    assert_eq!(counters(&mut row, 0), [6, 0, 0, 0, 5, 1, 0]);
    // The other chip makes two of it: one that goes straight on, and one that turns back by link 2.
    assert_eq!(counters(&mut row, 1), [4, 1, 0, 0, 5, 0, 1]);
    assert_eq!((row.chips[1].noc.links[0].packets, row.chips[1].noc.links[2].packets), (5, 1));
    // What goes straight on is a normal packet again.
    assert_eq!(row.take(2, 4).map(|(status, _, key)| (status >> 20 & 3, key)), Some((0, 0x50)));
}

#[test]
fn below_link_0_is_link_5() {
    let mut row = Row::new(2);
    row.write(0, 0, ROUTER + 0x200, states(2) | OUTGOING);
    row.write(0, 0, ROUTER + 0x2C, 1);
    row.write(0, 0, ROUTER, 0x4040_0101);
    for (entry, key, route) in [(0, 0x50, 1 << 5 | 1), (1, 0x60, 1), (2, 0x70, 1 << 5)] {
        row.entry(0, entry, key, 0xFFFF_FFFF, route);
    }
    row.write(1, 0, SYSTEM + 0x200, 0x5EC0_0000 | 1 << 3);
    for key in [0x70, 0x60, 0x60, 0x60, 0x60, 0x50] {
        row.send(0, 3, 0, key, None);
        row.run(500);
    }
    row.run(2000);
    // Link 5 leads nowhere, too; a reset of its transmitter makes it free.
    row.write(0, 0, SYSTEM + 0x2C, 0x5EC0_0000 | 1 << (4 + 5));
    row.run(100);
    let links = &row.chips[0].noc.links;
    assert_eq!((links[5].packets, links[0].packets, row.chips[0].noc.router.dropped), (2, 4, 0));
    assert_eq!((row.read(0, 0, ROUTER + 4) >> 24 & 3, row.read(0, 0, ROUTER + 0x300)), (0, 1));
}

#[test]
fn packets_without_emergency_state_are_not_diverted() {
    // P2P: bits 5:4 are its sequence code. Nearest neighbour: part of the route.
    for (control, key) in [(0x40, 0x0002_0001), (0x80 | 1 << 2, 3)] {
        let mut row = Row::new(2);
        row.write(0, 0, ROUTER + 0x1_0000, 0o66666616);
        row.write(0, 0, ROUTER, 0x4040_0101);
        for _ in 0..2 {
            row.send(0, 3, control, key, None);
            row.run(4000);
        }
        let chip = &row.chips[0].noc;
        assert_eq!((chip.router.dropped, chip.links[0].packets, chip.links[1].packets), (1, 0, 1), "{control:#x}");
    }
}

#[test]
fn a_bit_of_the_control_register_starts_a_wait_anew() {
    let mut row = Row::new(1);
    row.entry(0, 0, 0, 0, 1 << (6 + 4));
    for key in 1..=3 {
        row.send(0, 3, 0, key, None);
        row.run(200);
    }
    // Of the 1,800 ns of the wait some 200 have gone.
    row.run(1400);
    row.write(0, 0, ROUTER, 0x0040_8101);
    assert_eq!(row.read(0, 0, ROUTER), 0x0040_0101);
    row.run(1700);
    assert_eq!(row.chips[0].noc.router.dropped, 0);
    row.run(200);
    assert_eq!(row.chips[0].noc.router.dropped, 1);
    // With nothing waiting it does nothing.
    row.write(0, 0, ROUTER, 0x0040_8101);
    row.run(2000);
    assert_eq!(row.chips[0].noc.router.dropped, 1);
}

#[test]
fn a_link_carries_7_2_million_short_and_4_million_long_packets_a_second() {
    for (payload, expected_ns) in [(None, 139.0), (Some(1), 250.0)] {
        let mut row = Row::new(2);
        row.entry(0, 0, 0, 0, 1);
        row.entry(1, 0, 0, 0, 0);
        let before = row.chips[1].noc.router.packets;
        // Two cores send whenever their register is free.
        for _ in 0..20_000 {
            for core in [3, 4] {
                if row.read(0, core, CC) >> 28 & 1 != 0 {
                    row.send(0, core, 0, 5, payload);
                }
            }
            row.run(5);
        }
        let each = 100_000.0 / (row.chips[1].noc.router.packets - before) as f64;
        assert!((each / expected_ns - 1.0).abs() < 0.02, "{each} ns");
        assert_eq!(row.chips[0].noc.router.dropped, 0);
    }
}

#[test]
fn a_turned_bit_goes_to_the_error_registers() {
    let mut row = Row::with(2, CycleTiming::default(), u16::MAX);
    row.write(1, 0, ROUTER, 0x0040_0121 | 2);
    row.entry(0, 0, 0, 0, 1);
    row.send(0, 3, 0, 0x77, None);
    row.run(1000);
    assert_eq!(row.chips[1].noc.router.lines(), 1 << vic::source::ROUTER_ERROR);
    assert_eq!((row.read(1, 0, ROUTER + 0x0C), row.read(1, 0, ROUTER + 0x14)), (0x77, 0xA000_0001));
}

fn transfer(row: &mut Row, core: usize, system: u32, tcm: u32, description: u32) {
    row.write(0, core, DMA + 4, system);
    row.write(0, core, DMA + 8, tcm);
    row.write(0, core, DMA + 0xC, description);
}

#[test]
fn dma_alone_takes_15_ns_a_word_and_all_share_640_megabytes_a_second() {
    for (cores, expected_ns) in [(1, 200.0 + 4096.0 * 15.0), (2, 200.0 + 4096.0 * 15.0), (16, 200.0 + 4096.0 * 100.0)] {
        let mut row = Row::new(1);
        for core in 0..cores {
            transfer(&mut row, core, 0x6000_0000, 0x0040_0000, 0x0180_0000 | 0x4000);
        }
        let begin = row.now_ps;
        while row.read(0, cores - 1, DMA + 0x14) & 1 << 10 == 0 {
            row.run(50);
        }
        let took = (row.now_ps - begin) as f64 / 1000.0;
        assert!((took / expected_ns - 1.0).abs() < 0.01, "{cores} cores: {took} ns instead of {expected_ns}");
    }
}

#[test]
fn dma_moves_data_both_ways_with_crc() {
    let mut row = Row::new(1);
    let data: Vec<u8> = (0..64).collect();
    row.chips[0].cores[7].cpu.write_tcm(0x0040_0100, &data).expect("there");
    row.write(0, 7, DMA + 0x18, 0x001F_FC00);
    transfer(&mut row, 7, 0x7000_0200, 0x0040_0100, 0x0198_0040);
    row.run(3000);
    assert_eq!(row.chips[0].noc.sdram.word(0x240), crc32(&data));
    row.write(0, 7, DMA + 0x10, 8);
    transfer(&mut row, 7, 0x6000_0200, 0x0000_0400, 0x0190_0040);
    row.run(3000);
    let mut read = [0; 64];
    row.chips[0].cores[7].cpu.read_tcm(0x400, &mut read).expect("there");
    assert_eq!((&read[..], row.read(0, 7, DMA + 0x14) & 0x001F_FC00), (&data[..], 1 << 10));
    row.write(0, 7, DMA + 0x10, 8);
    row.chips[0].noc.sdram.set_word(0x204, 0);
    transfer(&mut row, 7, 0x6000_0200, 0x0000_0400, 0x0190_0040);
    row.run(3000);
    assert_eq!(row.read(0, 7, DMA + 0x14) & 0x001F_FC00, dma::CRC_ERROR);
    row.write(0, 7, DMA + 0x10, 4);
    for (system, tcm, error) in [(0x5000_0000, 0x0040_0000, dma::AXI_ERROR), (0x6000_0000, 0x1000_0000, dma::TCM_ERROR)]
    {
        transfer(&mut row, 7, system, tcm, 0x0180_0040);
        row.run(3000);
        assert_eq!(row.read(0, 7, DMA + 0x14) & 0x001F_FC00, error);
        row.write(0, 7, DMA + 0x10, 4);
    }
}

#[test]
fn addresses_without_a_device_are_bus_errors() {
    let mut row = Row::new(1);
    let bad = [0x5000_0000, 0x8000_0000, 0xDFFF_FFFC, 0xE700_0000, 0xFE00_0000, 0x1200_0000, 0xF100_8000, 0xF100_C000];
    for address in bad {
        assert!(row.access(0, 2, |bus, at| bus.read(address, Size::Word, at)).is_err(), "{address:#x}");
    }
    for address in [0x3000_0004, 0xF200_0000] {
        assert!(row.access(0, 2, |bus, at| bus.read(address, Size::Half, at)).is_err(), "{address:#x}");
    }
    // SDRAM is there four times, system RAM twice and in the boot area when asked for.
    row.write(0, 2, 0x6000_0000, 0xAABB_CCDD);
    for address in [0x6800_0000, 0x7000_0000, 0x7800_0000] {
        assert_eq!(row.read(0, 2, address), 0xAABB_CCDD, "{address:#x}");
    }
    row.write(0, 2, 0xE500_0010, 0x1122_3344);
    row.write(0, 2, SYSTEM + 0x38, 1);
    assert_eq!((row.read(0, 2, 0xF500_0010), row.read(0, 2, 0xFFFF_0010)), (0x1122_3344, 0x1122_3344));
    let half = row.access(0, 2, |bus, at| bus.read(0xF500_0012, Size::Half, at)).expect("there");
    let byte = row.access(0, 2, |bus, at| bus.read(0xF500_0011, Size::Byte, at)).expect("there");
    assert_eq!((half.value, byte.value), (0x1122, 0x33));
}

#[test]
fn a_buffered_store_that_fails_is_lost_or_reported_by_the_dma_controller() {
    let mut row = Row::new(1);
    let fails = |row: &mut Row, address, size| row.access(0, 2, |bus, at| bus.write(address, size, 7, at)).is_err();
    let status = |row: &mut Row| row.read(0, 2, DMA + 0x14) >> 20 & 1;
    // Bit 28 of an address says that stores wait for their end. Nothing is there; the system controller takes words only.
    for (address, size) in [(0x8000_0000, Size::Word), (0xE700_0000, Size::Word), (0xE200_0010, Size::Half)] {
        assert!(fails(&mut row, address | 1 << 28, size), "{address:#x}");
        assert!(!fails(&mut row, address, size), "{address:#x}");
        assert_eq!(status(&mut row), 0);
    }
    // With the bridge's write buffer on, and the interrupt for its errors.
    row.write(0, 2, DMA + 0x18, 1 << 20 | 1);
    assert!(!fails(&mut row, 0x8000_0000, Size::Word));
    assert_eq!((status(&mut row), row.chips[0].cores[2].local.lines() >> vic::source::DMA_ERROR & 1), (1, 1));
    row.write(0, 2, DMA + 0x10, 1 << 5);
    assert_eq!((status(&mut row), row.chips[0].cores[2].local.lines() >> vic::source::DMA_ERROR & 1), (0, 0));
}

#[test]
fn a_soft_reset_starts_a_core_in_system_ram() {
    let mut row = Row::new(1);
    // A program of one instruction that stays where it is: b .
    row.write(0, 1, 0xF500_0000, 0xEAFF_FFFE);
    row.write(0, 1, SYSTEM + 0x38, 0xF);
    row.write(0, 1, SYSTEM + 0x18, 0x5EC0_0000 | 1 << 6);
    row.run(100);
    assert!(row.chips[0].cores[6].held);
    row.write(0, 1, SYSTEM + 0x18, 0x5EC0_0000);
    row.run(1000);
    let core = &row.chips[0].cores[6];
    assert_eq!((core.activity, core.cpu.pc()), (Activity::Running, 0xFFFF_0000));
    assert!(core.cpu.instructions() > 5);
    let before = core.cpu.instructions();
    row.write(0, 1, SYSTEM + 0x04, 0x5EC0_0000 | 1 << 6);
    row.run(1000);
    assert_eq!(row.chips[0].cores[6].cpu.instructions(), before);
}

#[test]
fn an_image_that_leaves_the_watchdog_alone_is_reset() {
    let mut row = Row::new(1);
    row.chips[0].enter_rom(row.now_ps);
    row.run(10);
    row.chips[0].hand_over(1, 0, row.now_ps);
    row.run(2_400_000_000);
    assert!(!row.chips[0].rom.waiting());
    row.run(200_000_000);
    assert!(row.chips[0].rom.waiting());
    assert_eq!(row.read(0, 0, SYSTEM + 0x30), 1);
}

mod whatever_software_does {
    use super::*;
    use proptest::prelude::*;

    /// Addresses of all devices, most of them often, and of what is not there.
    fn address() -> impl Strategy<Value = u32> {
        const BASES: &[u32] = &[
            0x1000_0000,
            0x1100_0000,
            0x1F00_0000,
            0x2000_0000,
            0x3000_0000,
            0x4000_0000,
            0xE000_0000,
            0xF100_0000,
            0xF100_0000,
            0xF200_0000,
            0xF200_0000,
            0xF300_0000,
            0xE400_0000,
            0xE400_C000,
            0xF500_0000,
            0xF600_0000,
            0xFFFF_F000,
            0xFFFF_0000,
            0x6000_0000,
            0x5000_0000,
        ];
        (prop::sample::select(BASES), prop_oneof![0u32..0x210, 0u32..0x1_8000, any::<u32>()])
            .prop_map(|(base, offset)| base.wrapping_add(offset & 0x0FFF_FFFF))
    }

    fn value() -> impl Strategy<Value = u32> {
        prop_oneof![
            any::<u32>(),
            any::<u32>().prop_map(|value| 0x5EC0_0000 | value & 0xF_FFFF),
            0u32..4,
            Just(0x1ACC_E551),
            Just(u32::MAX)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// No sequence of accesses makes the simulation panic or hang.
        #[test]
        fn it_goes_on(
            accesses in prop::collection::vec((address(), value(), 0usize..18, 0u8..7, 0u64..2000), 1..150),
        ) {
            let mut row = Row::new(2);
            for core in [2, 3] {
                // Something to run: code of all sorts of words.
                let code: Vec<u8> = (0..256u32).flat_map(|i| (i.wrapping_mul(0x9E37_79B9) | 0xE000_0000).to_le_bytes()).collect();
                row.chips[0].cores[core].cpu.write_tcm(0, &code).expect("there");
                row.chips[0].cores[core].cpu.set_control(0x1004);
                row.chips[0].cores[core].cpu.set_pc(0);
                row.chips[0].cores[core].activity = Activity::Running;
                row.chips[0].set_going(core, row.now_ps);
            }
            for (address, value, core, what, ns) in accesses {
                let size = [Size::Word, Size::Half, Size::Byte][usize::from(what % 3)];
                let address = address & !(size.bytes() - 1);
                let now_ps = row.now_ps;
                // (A core that has run ahead keeps its clock.)
                let ahead = row.chips[0].cores[core].cpu.cycles() > row.chips[0].cores[core].clock.cycles(now_ps);
                if !ahead {
                    let _ = row.access(0, core, |bus, at| match what {
                        0..3 => bus.read(address, size, at).map(|_| ()),
                        _ => bus.write(address, size, value, at).map(|_| ()),
                    });
                }
                row.run(ns);
            }
        }

        /// Nor does any frame, or anything that looks like a boot message.
        #[test]
        fn the_rom_takes_any_frame(
            frames in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..1600), 0u8..4, any::<[u32; 4]>()), 1..20),
        ) {
            let mut row = Row::new(1);
            let board = crate::cycle::default_address(0);
            row.chips[0].rom = Rom::new(1, Some(board), 5);
            row.chips[0].enter_rom(row.now_ps);
            row.run(100);
            for (mut frame, kind, words) in frames {
                if kind > 0 && frame.len() >= 60 {
                    frame[..6].copy_from_slice(&board.mac);
                    frame[12..14].copy_from_slice(&[8, if kind == 3 { 6 } else { 0 }]);
                    frame[23] = [0, 17, 1, 0][usize::from(kind)];
                    frame[36..38].copy_from_slice(&54321u16.to_be_bytes());
                    frame[42..44].copy_from_slice(&[0, 1]);
                    for (i, word) in words.into_iter().enumerate() {
                        let word = if i == 0 { word & 7 } else { word & 0x1FF };
                        frame[44 + 4 * i..48 + 4 * i].copy_from_slice(&word.to_be_bytes());
                    }
                }
                let at_ps = row.now_ps;
                row.chips[0].deliver_frame(at_ps, frame);
                row.run(300_000);
            }
        }
    }
}

#[test]
fn the_slow_clock_sets_a_flag_and_interrupts() {
    let mut row = Row::new(1);
    row.run(100_000);
    row.write(0, 6, DMA + 0x18, 0x0C00);
    assert_eq!(row.read(0, 6, DMA + 0x18), 0x0C00);
    // Up to the next edge, of which there is one each 31.25 us.
    row.run(31_250 - row.now_ps / NS % 31_250 + 10);
    assert_eq!(row.read(0, 6, DMA + 0x18), 1 << 31 | 0x0C00);
    assert_eq!(row.read(0, 6, 0xFFFF_F008) >> 22 & 1, 1);
    // Keeping the bit does not clear it.
    row.write(0, 6, DMA + 0x18, 1 << 31);
    assert_eq!(row.read(0, 6, DMA + 0x18), 1 << 31);
    row.write(0, 6, DMA + 0x18, 0);
    row.write(0, 6, 0xFFFF_F010, 1 << 22);
    assert_eq!((row.read(0, 6, DMA + 0x18), row.chips[0].cores[6].inputs), (0, (false, false)));
    row.run(31_230);
    assert_eq!(row.chips[0].cores[6].inputs, (false, false));
    row.run(20);
    assert_eq!(row.chips[0].cores[6].inputs, (true, false));
    // Once more, and a core without the interrupt has none.
    row.write(0, 6, DMA + 0x18, 0);
    assert_eq!(row.chips[0].cores[6].inputs, (false, false));
    row.run(31_250);
    assert_eq!((row.chips[0].cores[6].inputs, row.chips[0].cores[5].inputs), ((true, false), (false, false)));
}

#[test]
fn user_mode_reaches_neither_dma_nor_system_controller() {
    let mut row = Row::new(1);
    // str r2, [r1]; ldr r0, [r1]; the abort comes to address 10 hex.
    let program = [0xE581_2000_u32, 0xE591_0000].map(u32::to_le_bytes).concat();
    let pc_after = |row: &mut Row, address: u32, mode: u32| {
        let core = &mut row.chips[0].cores[2];
        core.cpu.reset();
        core.cpu.set_control(TCMS_ON);
        core.cpu.write_tcm(0x100, &program).expect("room");
        core.cpu.set_pc(0x100);
        core.cpu.set_cpsr(0xC0 | mode);
        core.cpu.set_register(1, address);
        core.cpu.set_register(2, 0x40);
        let now_ps = row.now_ps;
        row.chips[0].step(2, now_ps);
        row.chips[0].cores[2].cpu.pc()
    };
    let wanted = [(DMA + 4, false), (SYSTEM + 0x10, false), (CC + 4, true), (0x6000_0000, true), (ROUTER + 0x80, true)];
    for (address, reached) in wanted {
        for mode in [0x10, 0x1F] {
            let pc = pc_after(&mut row, address, mode);
            let expected = if reached || mode == 0x1F { 0x104 } else { 0x10 };
            assert_eq!(pc, expected, "{address:#x} in mode {mode:#x}");
        }
    }
    assert_eq!(row.read(0, 2, DMA + 4), 0x40);
    // The interrupt controller refuses it when told to.
    const VIC: u32 = 0x1F00_0000;
    assert_eq!(pc_after(&mut row, VIC + 0x34, 0x10), 0x104);
    row.write(0, 2, VIC + 0x20, 1);
    assert_eq!([0x10, 0x1F].map(|mode| pc_after(&mut row, VIC + 0x34, mode)), [0x10, 0x104]);
    // ldrt r0, [r1], #0 has User rights in any mode.
    let core = &mut row.chips[0].cores[2];
    core.cpu.write_tcm(0x100, &0xE4B1_0000_u32.to_le_bytes()).expect("room");
    core.cpu.set_pc(0x100);
    core.cpu.set_register(1, DMA + 4);
    let now_ps = row.now_ps;
    row.chips[0].step(2, now_ps);
    assert_eq!(row.chips[0].cores[2].cpu.pc(), 0x10);
}

#[test]
fn the_router_counts_its_cycles_and_undelayed_packets() {
    let mut row = Row::new(1);
    row.entry(0, 0, 0, 0, 1 << (6 + 4));
    row.write(0, 0, ROUTER + 0x30, 0x0007_0007);
    // One to the register, one to the path; the third waits for its 240 cycles and is dropped.
    for key in 1..=3 {
        row.send(0, 3, 0, key, None);
        row.run(1000);
    }
    row.run(1500);
    let [cycles, emergency, undelayed] = [0x34, 0x38, 0x3C].map(|offset| row.read(0, 0, ROUTER + offset));
    assert_eq!((cycles, emergency, undelayed), (4500 * 10 / 75, 0, 2));
    // With a second wait of 15 cycles, links divert during these.
    row.write(0, 0, ROUTER, 0x0F40_0101);
    row.send(0, 3, 0, 4, None);
    row.run(3000);
    assert_eq!(row.read(0, 0, ROUTER + 0x38), 15);
    // Stopped, they keep what they have; a reset bit clears.
    row.write(0, 0, ROUTER + 0x30, 0x0002_0000);
    row.run(1000);
    let read = [0x30, 0x34, 0x38].map(|offset| row.read(0, 0, ROUTER + offset));
    assert_eq!(read, [0, 7500 * 10 / 75, 0]);
}

mod wakes_that_are_put_off {
    use super::*;
    use proptest::prelude::*;

    /// Sleeps until the timer `r4` wakes it, and counts at `r5` and, on the bus, at `r11`. `r8`: interrupt controller.
    const IDLE: [u32; 15] = [
        0xEE07_6F90, // loop: mcr  p15, 0, r6, c7, c0, 4
        0xE321_F013, //       msr  cpsr_c, #0x13
        0xE321_F093, //       msr  cpsr_c, #0x93
        0xEAFF_FFFB, //       b    loop
        0xE92D_0003, // irq:  push {r0, r1}
        0xE584_400C, //       str  r4, [r4, #12]
        0xE595_0000, //       ldr  r0, [r5]
        0xE280_0001, //       add  r0, r0, #1
        0xE585_0000, //       str  r0, [r5]
        0xE59B_1000, //       ldr  r1, [r11]
        0xE081_1000, //       add  r1, r1, r0
        0xE58B_1000, //       str  r1, [r11]
        0xE588_8030, //       str  r8, [r8, #0x30]
        0xE8BD_0003, //       pop  {r0, r1}
        0xE25E_F004, //       subs pc, lr, #4
    ];

    /// Registers, clock, instructions, and what was counted.
    type Done = (Vec<u32>, u64, u64, u32, Vec<u8>);

    /// A core that a timer wakes each 1.5 us for 0.6 us, on a chip where something happens after each of these times, ps. What it has
    /// done in the end, and how many events there were.
    fn wake_among_events(rests: bool, gaps: &[u64]) -> (Done, u64) {
        const CORE: usize = 3;
        const PROGRAM: u32 = 0x100;
        const PERIOD_CYCLES: u32 = 300;
        const TIMER: u32 = 0x2100_0000;
        const VIC: u32 = 0x1F00_0000;
        const COUNTED: u32 = 0xF500_0100;
        let mut row = Row::new(1);
        row.chips[0].rests = rests;
        let list = [
            (VIC + 0x100, PROGRAM + 16),
            (VIC + 0x200, 0x24),
            (VIC + 0x10, 1 << 4),
            (TIMER, PERIOD_CYCLES),
            (TIMER + 8, 0xE2),
        ];
        list.iter().for_each(|&(address, value)| row.write(0, CORE, address, value));
        let now_ps = row.now_ps;
        assert!(row.chips[0].start(CORE, PROGRAM, now_ps));
        let cpu = &mut row.chips[0].cores[CORE].cpu;
        for (address, word) in (PROGRAM..).step_by(4).zip(IDLE).chain([(0x18, 0xE51F_FFF0)]) {
            cpu.write_tcm(address, &word.to_le_bytes()).expect("instruction memory");
        }
        cpu.set_control(TCMS_ON);
        cpu.set_cpsr(0xD2);
        cpu.set_register(13, 0x0040_1000);
        cpu.set_cpsr(0xD3);
        for (register, value) in [(4, TIMER), (5, 0x0040_0200), (8, VIC), (11, COUNTED)] {
            cpu.set_register(register, value);
        }
        // The slow clock has ticked, after that.
        let mut at_ps = now_ps + 40_000 * NS;
        for gap_ps in gaps {
            at_ps += gap_ps;
            row.chips[0].noc.events.push(at_ps, Event::RouterRetry);
        }
        // To shortly before a wake.
        let period_ns = 5 * u64::from(PERIOD_CYCLES);
        let periods = (at_ps - now_ps) / NS / period_ns + 20;
        row.run((periods + 1) * period_ns - 50);
        let end_ps = row.now_ps;
        row.chips[0].settle(end_ps);
        let counted = row.chips[0].noc.system_ram.word(COUNTED & 0x7FFF);
        let cpu = &row.chips[0].cores[CORE].cpu;
        let registers = (0..16).map(|register| cpu.register(register)).collect();
        let done = (registers, cpu.cycles(), cpu.instructions(), counted, cpu.dtcm().to_vec());
        (done, row.chips[0].happened)
    }

    #[test]
    fn a_timer_that_only_counts_wakes_nobody_for_long() {
        let ((done, rested), (_, executed)) =
            (wake_among_events(true, &[3_000_000_000]), wake_among_events(false, &[3_000_000_000]));
        assert!(done.3 > 2000 * 2000 / 2, "{} counted", done.3);
        assert!(10 * rested < executed, "{rested} events of {executed}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// Events at any picosecond, within wakes and between, some of them close together.
        #[test]
        fn wakes_among_events_are_as_if_executed(
            gaps in prop::collection::vec(prop_oneof![0..12_000u64, 0..3_000_000u64, 400_000..700_000u64], 0..400),
        ) {
            prop_assert_eq!(wake_among_events(true, &gaps).0, wake_among_events(false, &gaps).0);
        }
    }
}
