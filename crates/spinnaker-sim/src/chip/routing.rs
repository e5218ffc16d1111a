//! Packets through a chip's router: taking them in, passing them on, waiting for blocked outputs, emergency routing,
//! dropping.
//!
//! The router takes one packet a cycle. A packet whose output takes nothing stalls the router, and all packets behind it,
//! for wait1 cycles; then blocked links may divert to the next lower link for wait2 cycles; then the packet is dropped
//! into the dump registers. Multicast and fixed-route packets are diverted, which alone have a field to say so.

use std::collections::VecDeque;

use super::comms::{LOCAL, Routed};
use super::events::Event;
use super::noc::Message;
use super::router::{Decision, LINKS, Passed};
use super::system::CORES;
use super::{Chip, bits};
use crate::arm968::Size;
use crate::network::{Fault, Packet, PacketKind};

/// Where a packet before the router came from, which is told when it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Core(u8),
    Link(u8),
    Router,
}

/// A packet before the router.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    routed: Routed,
    from: From,
}

/// A packet that waits for outputs.
#[derive(Debug, Clone, Copy)]
struct Stalled {
    routed: Routed,
    passed: Passed,
    /// Outputs that have not taken it: as it is, as a reverting packet.
    normal: u32,
    reverting: u32,
    /// The first wait is over: blocked links divert.
    diverting: bool,
}

/// Packets before the router and in it.
#[derive(Default)]
pub(crate) struct Routing {
    waiting: VecDeque<Waiting>,
    stalled: Option<Stalled>,
    /// When the router can take the next packet.
    free_ps: u64,
    /// An event for the next packet is under way.
    step_pending: bool,
    /// Number of the present wait.
    wait: u32,
    /// Packets that came by links whose receiver is off.
    held: [Vec<Packet>; 6],
}

/// Keys of the monitors' own multicast packets, signals and time, without the last bit (router table of SC&MP).
const MONITOR_KEYS: u32 = 0xFFFF_5554;

/// Whether a packet may be lost on a link: those of applications, which have to live with it.
fn is_lossy(packet: Packet) -> bool {
    packet.kind() == PacketKind::Multicast && packet.key & !1 != MONITOR_KEYS
}

/// Whether bits 5:4 of its control byte are an emergency state. Packets of other types have something else there, and are not
/// diverted.
fn has_emergency_state(packet: Packet) -> bool {
    matches!(packet.kind(), PacketKind::Multicast | PacketKind::FixedRoute)
}

impl Chip {
    /// A core's packet stands before the router.
    pub(super) fn core_sent(&mut self, core: u8, now_ps: u64) {
        if let Some(routed) = self.cores[usize::from(core)].local.comms.sending() {
            self.before_router(Waiting { routed, from: From::Core(core) }, now_ps);
        }
    }

    /// A packet has come over a link.
    pub(super) fn link_arrival(&mut self, link: u8, packet: Packet, now_ps: u64) {
        if self.noc.system.link_disable >> link & 1 != 0 {
            self.routing.held[usize::from(link)].push(packet);
            return;
        }
        self.before_router(Waiting { routed: Routed { packet, route: link }, from: From::Link(link) }, now_ps);
    }

    /// The answer to a peek or poke is there.
    pub(super) fn direct_answer(&mut self, link: u8, packet: Packet, now_ps: u64) {
        // It leaves as any neighbour packet of this chip does: by the link in its control byte.
        let control = packet.control & !0x1C | link << 2;
        let packet = Packet { control, ..packet }.with_parity();
        self.before_router(Waiting { routed: Routed { packet, route: LOCAL }, from: From::Router }, now_ps);
    }

    /// Link enables were written: transmitters, and receivers that have packets waiting.
    pub(super) fn enable_links(&mut self, now_ps: u64) {
        let disabled = self.noc.system.link_disable;
        for link in 0..6 {
            self.noc.links[link].disabled = disabled >> (8 + link) & 1 != 0;
            if disabled >> link & 1 == 0 {
                for packet in std::mem::take(&mut self.routing.held[link]) {
                    self.link_arrival(link as u8, packet, now_ps);
                }
            }
        }
        self.router_retry(now_ps);
    }

    fn before_router(&mut self, waiting: Waiting, now_ps: u64) {
        self.routing.waiting.push_back(waiting);
        self.next_step(now_ps);
    }

    /// Sees to it that the next packet is taken as soon as the router is free.
    fn next_step(&mut self, now_ps: u64) {
        let routing = &mut self.routing;
        if routing.step_pending || routing.stalled.is_some() || routing.waiting.is_empty() {
            return;
        }
        if routing.free_ps <= now_ps {
            self.router_step(now_ps);
        } else {
            routing.step_pending = true;
            self.noc.events.push(routing.free_ps, Event::RouterStep);
        }
    }

    /// The event of [`Event::RouterStep`].
    pub(super) fn router_step_due(&mut self, now_ps: u64) {
        self.routing.step_pending = false;
        self.next_step(now_ps);
    }

    /// Takes the next packet.
    fn router_step(&mut self, now_ps: u64) {
        let Some(Waiting { routed, from }) = self.routing.waiting.pop_front() else { return };
        self.taken(from, now_ps);
        self.noc.router.packets += 1;
        let Routed { packet, route } = routed;
        let place = u64::from(packet.control) << 40 | u64::from(route) << 32 | u64::from(packet.key);
        self.noc.trace.add([now_ps, place, u64::from(packet.payload)]);
        self.watch_packet(packet, now_ps);
        let decision = if self.noc.router.enabled() {
            self.noc.router.decide(routed)
        } else {
            Decision::Drop { default_routed: false }
        };
        match decision {
            Decision::Send(outputs) => {
                let passed = Passed { default_routed: outputs.default_routed, ..Passed::default() };
                let (normal, reverting) = (outputs.normal, outputs.reverting);
                self.push_out(Stalled { routed, passed, normal, reverting, diverting: false }, now_ps, true);
            }
            Decision::Drop { default_routed } => {
                let passed = Passed { dumped: true, default_routed, ..Passed::default() };
                self.passed(routed, passed, now_ps);
            }
            Decision::Direct => {
                self.answer_direct(routed, now_ps);
                self.passed(routed, Passed::default(), now_ps);
            }
            Decision::Error(error) => {
                self.noc.router.keep_error(routed, error);
                self.noc.lines_changed = true;
                self.passed(routed, Passed::default(), now_ps);
            }
        }
    }

    /// The packet's place before the router is free.
    fn taken(&mut self, from: From, now_ps: u64) {
        match from {
            From::Core(core) => {
                let unit = &mut self.cores[usize::from(core)];
                if let Some(next) = unit.local.comms.accepted() {
                    let bytes = if next.packet.long() { 9 } else { 5 };
                    self.noc.events.push(now_ps + bytes * unit.clock.period_ps, Event::CoreSent(core));
                }
                self.update_lines(usize::from(core), now_ps);
            }
            From::Link(link) => {
                // The sender knows one least latency later.
                if let Some(to) = self.noc.links[usize::from(link)].to {
                    let time_ps = now_ps + self.noc.times.lookahead_ps;
                    self.noc.send(Message { chip: to.chip, link: to.link, time_ps, packet: None });
                }
            }
            From::Router => {}
        }
    }

    /// Gives a packet to those of its outputs that take it, and stalls for the others.
    fn push_out(&mut self, mut packet: Stalled, now_ps: u64, first: bool) {
        for output in bits(packet.normal) {
            // (It may have left together with another.)
            if packet.normal >> output & 1 == 0 {
                continue;
            }
            let sent = if output < 6 {
                self.give_link_or_divert(output, &mut packet, now_ps)
            } else {
                self.give_core(output - 6, packet.routed, now_ps)
            };
            if sent {
                if output >= 6 {
                    packet.passed.states |= 1 << packet.routed.packet.emergency();
                }
                packet.normal &= !(1 << output);
                packet.passed.outputs |= 1 << output;
            }
        }
        for output in bits(packet.reverting & LINKS) {
            if self.give_link(output, &mut packet, 3, now_ps) {
                packet.reverting &= !(1 << output);
                packet.passed.outputs |= 1 << output;
            }
        }
        if packet.normal | packet.reverting == 0 {
            self.passed(packet.routed, packet.passed, now_ps);
        } else {
            self.stall(packet, now_ps, first);
        }
    }

    /// Gives a packet to one of its links, or to the next lower one while it may divert. Where it waits for both, it leaves by the
    /// lower one as both: state 1.
    fn give_link_or_divert(&mut self, link: usize, packet: &mut Stalled, now_ps: u64) -> bool {
        let (lower, higher) = ((link + 5) % 6, (link + 1) % 6);
        let diverts = packet.diverting && has_emergency_state(packet.routed.packet);
        if diverts && packet.normal >> higher & 1 != 0 && !self.noc.links[higher].takes(now_ps) {
            let sent = self.give_link(link, packet, 1, now_ps);
            if sent {
                packet.normal &= !(1 << higher);
                packet.passed.outputs |= 1 << higher;
            }
            return sent;
        }
        self.give_link(link, packet, 0, now_ps)
            || diverts && packet.normal >> lower & 1 == 0 && self.give_link(lower, packet, 2, now_ps)
    }

    fn stall(&mut self, packet: Stalled, now_ps: u64, first: bool) {
        let retry = (0..6)
            .filter(|link| (packet.normal | packet.reverting) >> link & 1 != 0)
            .filter_map(|link| self.noc.links[link].next_credit_ps())
            .min();
        if let Some(at_ps) = retry {
            self.noc.events.push(at_ps.max(now_ps), Event::RouterRetry);
        }
        self.routing.stalled = Some(packet);
        self.noc.router.stage = if packet.diverting { 3 } else { 2 };
        self.noc.router.timing.set_emergency(packet.diverting, now_ps, self.router_ps);
        if first {
            self.routing.wait = self.routing.wait.wrapping_add(1);
            self.wait_for(self.noc.router.wait1(), now_ps);
        }
    }

    fn wait_for(&mut self, cycles: Option<u64>, now_ps: u64) {
        if let Some(cycles) = cycles {
            let at_ps = now_ps.saturating_add(cycles.saturating_mul(self.router_ps));
            self.noc.events.push(at_ps, Event::RouterTimeout(self.routing.wait));
        }
    }

    /// Bit 15 of the router's control register was written: the wait that goes on begins anew.
    pub(super) fn restart_wait(&mut self, now_ps: u64) {
        let Some(diverting) = self.routing.stalled.as_ref().map(|packet| packet.diverting) else { return };
        self.routing.wait = self.routing.wait.wrapping_add(1);
        let router = &self.noc.router;
        self.wait_for(if diverting { router.wait2() } else { router.wait1() }, now_ps);
    }

    /// An output may have become free.
    pub(super) fn router_retry(&mut self, now_ps: u64) {
        if let Some(packet) = self.routing.stalled.take() {
            self.push_out(packet, now_ps, false);
        }
    }

    /// A wait is over: divert, or drop.
    pub(super) fn router_timeout(&mut self, wait: u32, now_ps: u64) {
        if wait != self.routing.wait {
            return;
        }
        let Some(mut packet) = self.routing.stalled.take() else { return };
        let wait2 = self.noc.router.wait2();
        if !packet.diverting && wait2 != Some(0) {
            packet.diverting = true;
            self.routing.wait = self.routing.wait.wrapping_add(1);
            self.wait_for(wait2, now_ps);
            self.push_out(packet, now_ps, false);
            return;
        }
        self.noc.router.keep_dump(packet.routed, packet.normal | packet.reverting);
        self.noc.lines_changed = true;
        packet.passed.dumped = true;
        self.passed(packet.routed, packet.passed, now_ps);
    }

    /// A packet has left the router, by its outputs or dropped.
    fn passed(&mut self, routed: Routed, passed: Passed, now_ps: u64) {
        self.noc.router.count(routed, passed);
        if self.noc.router.stage == 0 {
            self.noc.router.timing.count_undelayed();
        }
        self.noc.router.stage = 0;
        self.noc.router.timing.set_emergency(false, now_ps, self.router_ps);
        self.routing.wait = self.routing.wait.wrapping_add(1);
        self.routing.free_ps = now_ps + self.router_ps;
        self.next_step(now_ps);
    }

    /// Gives a link a copy of a packet, with this emergency state if packets of its type have one.
    fn give_link(&mut self, link: usize, from: &mut Stalled, state: u8, now_ps: u64) -> bool {
        let output = &mut self.noc.links[link];
        if !output.takes(now_ps) {
            return false;
        }
        let mut packet = from.routed.packet;
        if has_emergency_state(packet) && packet.emergency() != state {
            packet = packet.with_emergency(state);
        }
        from.passed.states |= 1 << packet.emergency();
        let ready_ps = now_ps + self.noc.times.timing.router_ns * 1000;
        let time_ps = output.send(ready_ps, packet.long());
        let (number, to) = (output.packets, output.to);
        self.watch_link(link, packet, time_ps);
        if let Some(to) = to {
            let of_65536 = self.parity_errors.max(if is_lossy(packet) { self.packet_losses } else { 0 });
            if of_65536 > 0 && self.draw(link as u64, number) < of_65536.into() {
                packet.fault = Fault::Parity;
            }
            self.noc.send(Message { chip: to.chip, link: to.link, time_ps, packet: Some(packet) });
        }
        true
    }

    /// A number below 65,536 for a packet of a link, the same each time.
    fn draw(&self, link: u64, number: u64) -> u64 {
        let mut x = self.seed ^ link << 56 ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ x >> 31) & 0xFFFF
    }

    fn give_core(&mut self, core: usize, routed: Routed, now_ps: u64) -> bool {
        if core >= CORES {
            return false;
        }
        let unit = &mut self.cores[core];
        if !unit.local.comms.path_free() {
            return false;
        }
        unit.local.comms.put(routed);
        let bytes = if routed.packet.long() { 9 } else { 5 };
        let at_ps = now_ps + self.noc.times.timing.router_ns * 1000 + bytes * unit.clock.period_ps;
        self.noc.events.push(at_ps, Event::PathEnd(core as u8));
        true
    }

    /// A packet has come to a core, or its register has become free.
    pub(super) fn path_end(&mut self, core: u8, now_ps: u64) {
        self.cores[usize::from(core)].local.comms.path_end();
        self.move_up(usize::from(core), now_ps);
    }

    /// The packet before a core's receive register moves in, if it can; then the router may have been waiting for the path.
    pub(crate) fn move_up(&mut self, core: usize, now_ps: u64) {
        if !self.cores[core].local.comms.move_up() {
            return;
        }
        self.update_lines(core, now_ps);
        self.packet_for_rom(core, now_ps);
        if self.routing.stalled.is_some() {
            self.noc.events.push(now_ps, Event::RouterRetry);
        }
    }

    /// Peek or poke: the router reads or writes a word of the System NoC.
    fn answer_direct(&mut self, routed: Routed, now_ps: u64) {
        let Routed { packet, route } = routed;
        let times = self.noc.times.cycle;
        let time_ps = now_ps + 1000 * u64::from(times.direct_ns + times.noc_read_ns);
        let region = self.noc.region_from_system(packet.key & !3);
        let result = match (region, packet.payload_word()) {
            (None, _) => Err(crate::arm968::BusError),
            (Some(region), None) => self.noc.read(region, Size::Word, now_ps).map(Some),
            (Some(region), Some(value)) => self.noc.write(region, Size::Word, value, now_ps).map(|()| None),
        };
        self.apply_effects(now_ps);
        let key = packet.key & !3 | 1;
        let answer = match result {
            Ok(payload) => Packet::new(0x80, key, payload),
            Err(_) => Packet::new(0x80, key | 2, packet.payload_word().is_none().then_some(0)),
        };
        self.noc.events.push(time_ps, Event::DirectAnswer { link: route, packet: answer });
    }

    /// Credits that have come for a link: the router may have been waiting for them.
    pub(crate) fn credit(&mut self, link: u8, time_ps: u64) {
        self.noc.links[usize::from(link)].give_back(time_ps);
        let waits = |packet: &Stalled| (packet.normal | packet.reverting) & LINKS != 0;
        if self.routing.stalled.as_ref().is_some_and(waits) {
            self.noc.events.push(time_ps, Event::RouterRetry);
        }
    }
}
