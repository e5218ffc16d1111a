//! Router: registers, tables, and where a packet goes. Data sheet section 10. What happens when an output is blocked is in
//! [`super::routing`].
//!
//! Not modelled: the histogram of delays (it reads as zero; see [`timing`]).

mod diagnostics;
mod table;
mod timing;

use super::comms::Routed;
use super::system::CORES;
use super::vic::source;
use crate::network::{Fault, Packet, PacketKind};
use diagnostics::Diagnostics;
pub(crate) use diagnostics::Passed;
pub(crate) use table::Table;
pub(crate) use timing::RouterTiming;

/// Bit of the control register that starts a running wait anew; it reads as zero.
pub(crate) const RESTART_WAIT: u32 = 1 << 15;
/// Words of the P2P table, of eight entries each.
const P2P_WORDS: usize = 8192;
/// A P2P entry that drops.
const P2P_DROP_ALL: u32 = 0x00DB_6DB6;
/// Bits of link outputs in a vector of outputs.
pub(crate) const LINKS: u32 = 0x3F;

/// Where a packet is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Outputs {
    /// Bits 5:0 links, 23:6 cores: as it is, with emergency state 0.
    pub normal: u32,
    /// Links by which it goes on as a diverted packet that turns back (state 3).
    pub reverting: u32,
    /// It followed no entry.
    pub default_routed: bool,
}

/// What the router does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send it on. No output at all: it vanishes (an entry with an empty route, a destroyed diversion).
    Send(Outputs),
    /// There is no way for it: it is dropped and not kept in the dump registers.
    Drop { default_routed: bool },
    /// Peek or poke of this chip, answer by the arrival link.
    Direct,
    /// Its parity, framing or time stamp is wrong.
    Error(PacketError),
}

/// Why a packet goes to the error registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketError {
    Parity,
    Framing,
    TimeStamp,
}

/// Registers that keep a packet: of an error or of a dump.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    header: u32,
    key: u32,
    payload: u32,
    status: u32,
}

impl Kept {
    /// Keeps the packet if there is none yet; otherwise notes that there was another.
    fn keep(&mut self, routed: Routed, header: u32) {
        if self.status >> 31 != 0 {
            self.status |= 1 << 30;
            return;
        }
        self.status |= 1 << 31;
        let Routed { packet, route } = routed;
        self.header = header | u32::from(route) << 24 | u32::from(packet.control) << 16;
        (self.key, self.payload) = (packet.key, packet.payload);
    }
}

pub(crate) struct Router {
    pub control: u32,
    error: Kept,
    dump: Kept,
    dump_outputs: u32,
    /// Registers 030 to 03C, which depend on time: the chip reads and writes them.
    pub timing: RouterTiming,
    diversion: u32,
    fixed_route: u32,
    diagnostics: Diagnostics,
    pub table: Table,
    p2p: Box<[u32; P2P_WORDS]>,
    test_key: u32,
    /// Output stage: 0 empty, 2 and 3 blocked in the first and second wait.
    pub stage: u32,
    /// Packets taken in, and dropped, since power on.
    pub packets: u64,
    pub dropped: u64,
}

impl Router {
    pub fn new() -> Self {
        let p2p: Box<[u32; P2P_WORDS]> = vec![0; P2P_WORDS].try_into().unwrap_or_else(|_| Box::new([0; P2P_WORDS]));
        Self {
            control: 0x0080_0001,
            error: Kept::default(),
            dump: Kept::default(),
            dump_outputs: 0,
            timing: RouterTiming::default(),
            diversion: 0,
            fixed_route: 0xFC00_0000,
            diagnostics: Diagnostics::new(),
            table: Table::new(),
            p2p,
            test_key: 0,
            stage: 0,
            packets: 0,
            dropped: 0,
        }
    }

    /// The reset input: registers; the tables keep what they have.
    pub fn reset(&mut self) {
        let old = std::mem::replace(self, Self::new());
        (self.table, self.p2p, self.packets, self.dropped) = (old.table, old.p2p, old.packets, old.dropped);
    }

    /// As the boot ROM sets it up for the monitor it elected.
    pub fn initialise(&mut self, monitor: u32) {
        self.control = 0x2F2F_0007 | monitor << 8;
        self.table = Table::new();
        self.p2p.fill(P2P_DROP_ALL);
    }

    pub fn enabled(&self) -> bool {
        self.control & 1 != 0
    }

    /// The monitor's physical number.
    pub fn monitor(&self) -> u32 {
        self.control >> 8 & 0x1F
    }

    /// Time phase, for what cores send.
    pub fn time_phase(&self) -> u8 {
        (self.control >> 6 & 3) as u8
    }

    /// Router cycles of the first wait; `None` for ever.
    pub fn wait1(&self) -> Option<u64> {
        wait_cycles(self.control >> 16)
    }

    /// Router cycles of the second wait.
    pub fn wait2(&self) -> Option<u64> {
        wait_cycles(self.control >> 24)
    }

    fn core_output(core: u32) -> u32 {
        if (core as usize) < CORES { 1 << (6 + core) } else { 0 }
    }

    /// What to do with a packet.
    pub fn decide(&mut self, routed: Routed) -> Decision {
        let Routed { packet, route } = routed;
        match packet.fault {
            Fault::Parity => return Decision::Error(PacketError::Parity),
            Fault::Framing => return Decision::Error(PacketError::Framing),
            Fault::None => {}
        }
        let kind = packet.kind();
        if route < 6 && kind != PacketKind::NearestNeighbour && packet.time_stamp() ^ self.time_phase() == 3 {
            return Decision::Error(PacketError::TimeStamp);
        }
        match kind {
            PacketKind::NearestNeighbour => self.decide_neighbour(packet, route),
            PacketKind::PointToPoint => self.decide_p2p(packet),
            PacketKind::Multicast => match self.table.look_up(packet.key) {
                Some(entry) => {
                    let vector = self.table.route(entry) & 0x00FF_FFFF;
                    emergency(packet, route, Outputs { normal: vector, ..Outputs::default() })
                }
                None => self.default_route(packet, route),
            },
            PacketKind::FixedRoute => {
                let normal = self.fixed_route & 0x00FF_FFFF;
                emergency(packet, route, Outputs { normal, ..Outputs::default() })
            }
        }
    }

    fn decide_neighbour(&self, packet: Packet, route: u8) -> Decision {
        let outputs = if route < 6 {
            if packet.is_direct() {
                return Decision::Direct;
            }
            Self::core_output(self.monitor())
        } else {
            match packet.neighbour_route() {
                link @ 0..=5 => 1 << link,
                6 => self.fixed_route >> 26,
                _ => Self::core_output(self.monitor()),
            }
        };
        Decision::Send(Outputs { normal: outputs, ..Outputs::default() })
    }

    fn decide_p2p(&self, packet: Packet) -> Decision {
        let normal = match self.p2p_entry(packet.key as u16) {
            link @ 0..=5 => 1 << link,
            6 => return Decision::Drop { default_routed: false },
            _ => Self::core_output(self.monitor()),
        };
        Decision::Send(Outputs { normal, ..Outputs::default() })
    }

    fn default_route(&self, packet: Packet, route: u8) -> Decision {
        let default_routed = true;
        if route >= 6 {
            return Decision::Drop { default_routed };
        }
        // A packet that turns back goes on from where its diversion began.
        let turn = if packet.emergency() == 3 { 2 } else { 3 };
        let normal = match self.diversion >> (2 * route) & 3 {
            0 => 1 << ((u32::from(route) + turn) % 6),
            2 => 0,
            _ => Self::core_output(self.monitor()),
        };
        emergency(packet, route, Outputs { normal, reverting: 0, default_routed })
    }

    /// P2P entry of an address: 0 to 5 link, 6 drop, 7 monitor.
    pub fn p2p_entry(&self, address: u16) -> u32 {
        self.p2p[usize::from(address >> 3)] >> (3 * (address & 7)) & 7
    }

    /// A packet goes to the error registers.
    pub fn keep_error(&mut self, routed: Routed, error: PacketError) {
        let (bit, count) = match error {
            PacketError::Parity => (29, self.control >> 5 & 1),
            PacketError::Framing => (28, self.control >> 4 & 1),
            PacketError::TimeStamp => (27, self.control >> 3 & 1),
        };
        self.error.keep(routed, 1 << bit | self.control & 0xC0);
        let errors = (self.error.status & 0xFFFF).saturating_add(count).min(0xFFFF);
        self.error.status = self.error.status & !0xFFFF | errors | 1 << bit;
    }

    /// A packet goes to the dump registers: these outputs did not take it.
    pub fn keep_dump(&mut self, routed: Routed, blocked: u32) {
        if self.dump.status >> 31 == 0 {
            self.dump_outputs = blocked & 0x00FF_FFFF;
        }
        self.dump.keep(routed, self.control & 0xC0);
        self.dump.status |= blocked & 0x00FF_FFFF;
    }

    /// Counts a packet that has passed, or was dropped.
    pub fn count(&mut self, routed: Routed, passed: Passed) {
        self.dropped += u64::from(passed.dumped);
        self.diagnostics.count(routed, passed, self.monitor());
    }

    /// Interrupt sources.
    pub fn lines(&self) -> u32 {
        u32::from(self.diagnostics.interrupts() != 0) << source::ROUTER_DIAGNOSTIC
            | (self.control >> 2 & self.dump.status >> 31) << source::ROUTER_DUMP
            | (self.control >> 1 & self.error.status >> 31) << source::ROUTER_ERROR
    }

    /// Whether reading it changes something.
    pub fn read_has_effect(offset: u32) -> bool {
        matches!(offset, 0x14 | 0x28 | 0x200..=0x23F)
    }

    /// Reads a register; `None` is a bus error (keys and masks are write-only).
    pub fn read(&mut self, offset: u32) -> Option<u32> {
        let index = offset as usize / 4;
        Some(match offset {
            0x000 => self.control,
            0x004 => self.status(),
            0x008 => self.error.header,
            0x00C => self.error.key,
            0x010 => self.error.payload,
            0x014 => std::mem::take(&mut self.error.status),
            0x018 => self.dump.header,
            0x01C => self.dump.key,
            0x020 => self.dump.payload,
            0x024 => self.dump_outputs,
            0x028 => std::mem::take(&mut self.dump.status),
            0x02C => self.diagnostics.enable(),
            0x080 => self.diversion,
            0x084 => self.fixed_route,
            0x200..=0x23F => self.diagnostics.read_filter(index - 0x80),
            0x300..=0x33F => self.diagnostics.counter(index - 0xC0),
            0xF00 => match self.table.look_up(self.test_key) {
                Some(entry) => (entry as u32) << 1,
                None => 1,
            },
            0xF04 => self.test_key,
            0x4000..=0x4FFF => self.table.route(index - 0x1000),
            0x8000..=0x8FFF | 0xC000..=0xCFFF => return None,
            0x1_0000..=0x1_7FFF => self.p2p[index - 0x4000],
            _ => 0,
        })
    }

    fn status(&self) -> u32 {
        let (error, dump) = (self.lines() >> source::ROUTER_ERROR & 1, self.lines() >> source::ROUTER_DUMP & 1);
        let counters = self.diagnostics.interrupts();
        u32::from(error | dump | counters != 0) << 31
            | error << 30
            | dump << 29
            | self.stage << 24
            | u32::from(self.stage != 0) << 16
            | counters
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u32, value: u32) {
        let index = offset as usize / 4;
        match offset {
            0x000 => self.control = value & 0xFFFF_1FFF,
            0x02C => self.diagnostics.set_enable(value),
            0x080 => self.diversion = value & 0xFFF,
            0x084 => self.fixed_route = value,
            0x200..=0x23F => self.diagnostics.set_filter(index - 0x80, value),
            0x300..=0x33F => self.diagnostics.set_counter(index - 0xC0, value),
            0xF04 => self.test_key = value,
            0x4000..=0x4FFF => self.table.set_route(index - 0x1000, value),
            0x8000..=0x8FFF => self.table.set_key(index - 0x2000, value),
            0xC000..=0xCFFF => self.table.set_mask(index - 0x3000, value),
            0x1_0000..=0x1_7FFF => self.p2p[index - 0x4000] = value & 0x00FF_FFFF,
            _ => {}
        }
    }
}

/// What the emergency state of an arriving packet makes of its outputs.
fn emergency(packet: Packet, route: u8, outputs: Outputs) -> Decision {
    let reverting = if route < 6 { 1 << ((route + 5) % 6) } else { 0 };
    Decision::Send(match packet.emergency() {
        1 => Outputs { reverting, ..outputs },
        2 => Outputs { normal: 0, reverting, default_routed: outputs.default_routed },
        _ => outputs,
    })
}

/// Router cycles that a wait code means; `None` is for ever.
fn wait_cycles(code: u32) -> Option<u64> {
    let (mantissa, exponent) = (u64::from(code & 0xF), code >> 4 & 0xF);
    match (code & 0xFF, exponent) {
        (0xFF, _) => None,
        (_, 0..=4) => Some((mantissa + 16 - (1 << (4 - exponent))) << exponent),
        _ => Some((mantissa + 16) << exponent),
    }
}

#[cfg(test)]
mod tests {
    use super::super::comms::LOCAL;
    use super::*;

    fn send(normal: u32) -> Decision {
        Decision::Send(Outputs { normal, ..Outputs::default() })
    }

    fn from(route: u8, packet: Packet) -> Routed {
        Routed { packet, route }
    }

    #[test]
    fn wait_codes() {
        for (code, cycles) in [(0x00, Some(0)), (0x40, Some(240)), (0xFF, None), (0x01, Some(1)), (0x2F, Some(108))] {
            assert_eq!(wait_cycles(code), cycles, "{code:#x}");
        }
    }

    #[test]
    fn multicast_by_table_or_straight_on() {
        let mut router = Router::new();
        router.initialise(3);
        router.write(0x8000 + 4 * 5, 0x1000);
        router.write(0xC000 + 4 * 5, 0xF000);
        router.write(0x4000 + 4 * 5, 0xFF00_0041);
        let packet = Packet::new(0, 0x1234, None);
        assert_eq!(router.decide(from(LOCAL, packet)), send(0x41));
        let other = Packet::new(0, 0x2234, None);
        assert_eq!(router.decide(from(LOCAL, other)), Decision::Drop { default_routed: true });
        let straight = |normal| Decision::Send(Outputs { normal, reverting: 0, default_routed: true });
        assert_eq!(router.decide(from(4, other)), straight(1 << 1));
        router.write(0x080, 1 << 8 | 2 << 6);
        assert_eq!(router.decide(from(4, other)), straight(1 << 9));
        assert_eq!(router.decide(from(3, other)), straight(0));
        router.write(0xF04, 0x1FFF);
        assert_eq!(router.read(0xF00), Some(5 << 1));
        router.write(0xF04, 0x2000);
        assert_eq!(router.read(0xF00), Some(1));
        assert_eq!((router.read(0x8000), router.read(0xC000), router.read(0x4014)), (None, None, Some(0xFF00_0041)));
    }

    #[test]
    fn point_to_point_entries() {
        let mut router = Router::new();
        router.initialise(17);
        let to = |address: u32| from(LOCAL, Packet::new(0x40, 0x0001_0000 | address, None));
        assert_eq!(router.decide(to(0x0102)), Decision::Drop { default_routed: false });
        // Entry 2 of the word of 0x0100..0x0107: link 4; entry 0: monitor.
        router.write(0x1_0000 + 4 * 0x20, 0o66666467);
        assert_eq!(router.decide(to(0x0102)), send(1 << 4));
        assert_eq!(router.decide(to(0x0100)), send(1 << 23));
    }

    #[test]
    fn neighbour_packets() {
        let mut router = Router::new();
        router.initialise(2);
        router.write(0x084, 0x1400_0000);
        let packet = |control| Packet::new(control, 0xE200_0000, None);
        assert_eq!(router.decide(from(LOCAL, packet(0x80 | 5 << 2))), send(1 << 5));
        assert_eq!(router.decide(from(LOCAL, packet(0x80 | 6 << 2))), send(0b000101));
        assert_eq!(router.decide(from(LOCAL, packet(0x80 | 7 << 2))), send(1 << 8));
        assert_eq!(router.decide(from(3, packet(0x80))), send(1 << 8));
        assert_eq!(router.decide(from(3, packet(0xA0))), Decision::Direct);
    }

    #[test]
    fn emergency_states() {
        let mut router = Router::new();
        router.initialise(0);
        let packet = |state| Packet::new(0, 9, None).with_emergency(state);
        let sent = |normal, reverting| Decision::Send(Outputs { normal, reverting, default_routed: true });
        // Arrived by link 1: the reverting copy leaves by link 0, a normal one by link 4.
        assert_eq!(router.decide(from(1, packet(1))), sent(1 << 4, 1 << 0));
        assert_eq!(router.decide(from(1, packet(2))), sent(0, 1 << 0));
        assert_eq!(router.decide(from(1, packet(3))), sent(1 << 3, 0));
    }

    #[test]
    fn errors_and_dumps_keep_the_first() {
        let mut router = Router::new();
        router.write(0x000, 0x0040_0000 | 0x3F);
        let first = from(2, Packet::new(0, 1, Some(7)));
        router.keep_dump(first, 1 << 6);
        router.keep_dump(from(2, Packet::new(0, 2, None)), 1 << 3);
        assert_eq!(router.lines(), 1 << source::ROUTER_DUMP);
        assert_eq!((router.read(0x01C), router.read(0x020), router.read(0x024)), (Some(1), Some(7), Some(1 << 6)));
        assert_eq!(router.read(0x018).map(|header| header >> 24), Some(2));
        assert_eq!(router.read(0x028), Some(0xC000_0048));
        assert_eq!((router.read(0x028), router.lines()), (Some(0), 0));
        let broken = from(1, Packet { fault: Fault::Parity, ..Packet::new(0, 3, None) });
        assert_eq!(router.decide(broken), Decision::Error(PacketError::Parity));
        router.keep_error(broken, PacketError::Parity);
        assert_eq!(router.read(0x014), Some(0xA000_0001));
        let aged = from(1, Packet::new(0x0C, 3, None));
        assert_eq!(router.decide(aged), Decision::Error(PacketError::TimeStamp));
        assert_eq!(router.decide(Routed { route: LOCAL, ..aged }), Decision::Drop { default_routed: true });
    }
}
