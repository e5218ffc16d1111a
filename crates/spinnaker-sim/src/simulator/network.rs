//! Packets: from a core through routers and links to other cores.

use spinnaker_machine::Link;

use super::{CoreSim, Simulator, bits, kind, mix};
use crate::core::{CoreState, wait};
use crate::packet::{Arrival, LOCAL, Train, Words};

impl Simulator {
    pub(super) fn push_train(&mut self, train: Train, time_ns: u64, kind: u8) {
        let slot = match self.trains_free.pop() {
            Some(slot) => {
                self.trains[slot as usize] = train;
                slot
            }
            None => {
                self.trains.push(train);
                (self.trains.len() - 1) as u32
            }
        };
        self.queue.push(time_ns.max(self.now_ns), kind, slot);
    }

    pub(super) fn take_train(&mut self, slot: u32) -> Train {
        const GONE: Train =
            Train { key: 0, count: 0, words: Words::NONE, head_ns: 0, tail_ns: 0, chip: 0, from: LOCAL, cores: 0 };
        self.trains_free.push(slot);
        std::mem::replace(&mut self.trains[slot as usize], GONE)
    }

    /// A core's packets enter its router.
    pub(super) fn inject(&mut self, mut train: Train) {
        let timing = &self.config.timing;
        let core = train.cores;
        let serial_ns = if train.long() { timing.core_long_ns } else { timing.core_short_ns };
        self.counters.packets_sent += u64::from(train.count);
        train.head_ns += serial_ns;
        train.tail_ns += serial_ns;
        let tail_ns = train.tail_ns;
        let accepted_ns = self.route(train);
        {
            let inner = &mut *self.cores[core as usize].cell.inner.borrow_mut();
            inner.send_free_ns = inner.send_free_ns.max(tail_ns).max(accepted_ns);
            inner.sends_queued = inner.sends_queued.saturating_sub(1);
        }
        if self.cores[core as usize].cell.inner.borrow().waits & wait::SEND != 0 {
            // The core may be within the poll's aftermath: it goes on by an event of its own.
            let free_ns = {
                let inner = &mut *self.cores[core as usize].cell.inner.borrow_mut();
                let free_ns = (inner.local_ns + inner.debt_ns).max(self.now_ns);
                inner.wake_ns = inner.wake_ns.min(free_ns);
                free_ns
            };
            self.wake_at(core, free_ns);
        }
    }

    /// Packets at a router: looks the way up, part by part where the table parts them. Says when the last was taken.
    pub(super) fn route(&mut self, train: Train) -> u64 {
        let chip = train.chip as usize;
        let stalled_ns = self.chips[chip].router.stalled_ns;
        self.chips[chip].router.routed[usize::from(train.from != LOCAL)] += u64::from(train.count);
        let (mut first, mut accepted_ns) = (0, 0);
        while first < train.count {
            let (route, run) = self.chips[chip].router.table.route(train.key.wrapping_add(first));
            let count = run.min(train.count - first);
            let route = match route {
                Some(route) => route.0,
                // Default routing: straight on.
                None if train.from != LOCAL => 1 << ((train.from + 3) % 6),
                None => {
                    self.counters.dropped_no_route += u64::from(count);
                    first += count;
                    continue;
                }
            };
            let ns = if count == train.count {
                self.forward(&train, route)
            } else {
                self.forward(&train.part(first, count), route)
            };
            accepted_ns = accepted_ns.max(ns);
            first += count;
        }
        if train.from != LOCAL {
            // What waits here keeps the link busy by which it came, except for what the buffers hold. If the router is stuck
            // the link is not just busy: the router at its other end may lose patience.
            let link = Link::ALL[usize::from(train.from) % 6];
            if let Some(up) = self.chips[chip].router.links[link.index()].to {
                let state = &mut self.chips[up as usize].router.links[link.opposite().index()];
                let packet_ns = if train.long() { state.long_ns } else { state.short_ns };
                let slack_ns = packet_ns * self.config.timing.link_buffer_packets;
                let stuck_ns = stalled_ns.saturating_sub(train.head_ns);
                // (Words that their sender spaces do not hold the link between them.)
                if accepted_ns > train.tail_ns + stuck_ns + slack_ns {
                    state.free_ns = state.free_ns.max(accepted_ns - (stuck_ns + slack_ns));
                    state.filled_ns = state.filled_ns.max(accepted_ns - (stuck_ns + slack_ns));
                }
                if stuck_ns > 0 {
                    state.blocked_ns = state.blocked_ns.max(stalled_ns.saturating_sub(slack_ns));
                }
            }
        }
        accepted_ns
    }

    /// Packets that all go the same way leave the router. Says when the last was taken by the slowest output.
    fn forward(&mut self, train: &Train, route: u32) -> u64 {
        let timing = self.config.timing;
        let chip = train.chip as usize;
        let long = train.long();
        let count = u64::from(train.count);
        self.counters.routed_bits += count * if long { 72 } else { 40 };

        // The router takes one packet a cycle, and none while one blocks it.
        let router = &mut self.chips[chip].router;
        let start_half_ns = router.work_half_ns.max(2 * (train.head_ns).max(router.stalled_ns));
        router.work_half_ns = start_half_ns + count * timing.router_cycle_half_ns;
        let head_ns = start_half_ns / 2 + timing.router_ns;
        let tail_ns = (train.tail_ns + timing.router_ns).max(router.work_half_ns / 2 + timing.router_ns);
        let mut accepted_ns = tail_ns;

        for link in bits(route & 0x3F) {
            accepted_ns = accepted_ns.max(self.forward_link(train, link as u8, head_ns, tail_ns));
        }
        let cores = route >> 6 & 0x3FFFF;
        if cores != 0 {
            accepted_ns = accepted_ns.max(self.forward_cores(train, cores, head_ns, tail_ns));
        }
        accepted_ns
    }

    /// The router waits for an output that takes nothing, then gives up: once for each packet. Says when it has given up
    /// the last. Packets from elsewhere pass in between, so they wait for one of them only.
    fn stall(&mut self, chip: usize, from_ns: u64, packets: u64) -> u64 {
        let wait_ns = self.config.timing.router_wait_ns;
        let router = &mut self.chips[chip].router;
        router.stalled_ns = router.stalled_ns.max(from_ns) + wait_ns;
        router.stalled_ns + (packets - 1) * wait_ns
    }

    fn forward_link(&mut self, train: &Train, link: u8, head_ns: u64, tail_ns: u64) -> u64 {
        let timing = self.config.timing;
        let chip = train.chip as usize;
        let state = &mut self.chips[chip].router.links[usize::from(link)];
        let packet_ns = if train.long() { state.long_ns } else { state.short_ns };
        let Some(to) = state.to else {
            self.counters.dropped_dead_link += u64::from(train.count);
            return self.stall(chip, head_ns, u64::from(train.count));
        };
        // Spaced words leave room for each other and for single packets, as long as all together are no more than the link carries.
        let spaced = train.count > 1 && tail_ns - head_ns > u64::from(train.count - 1) * packet_ns;
        let fills = train.count > 1 && !spaced;
        let ready_ns = head_ns.max(if fills { state.free_ns } else { state.filled_ns });
        let mut gone = 0;
        if state.blocked_ns > ready_ns + timing.router_wait_ns {
            // The router at the other end is stuck for longer than this one waits.
            gone = ((state.blocked_ns - ready_ns) / timing.router_wait_ns).min(u64::from(train.count)) as u32;
        }
        let count = u64::from(train.count - gone);
        let head_ns = ready_ns.max(state.blocked_ns.min(ready_ns + (u64::from(gone) + 1) * timing.router_wait_ns));
        let mut tail_ns = tail_ns.max(head_ns);
        if count > 0 {
            state.free_ns = head_ns.max(state.free_ns) + count * packet_ns;
            state.filled_ns = if fills { state.free_ns } else { head_ns + packet_ns };
            if count > 1 {
                tail_ns = tail_ns.max(state.free_ns - packet_ns);
            }
        }
        let number = state.packets;
        state.packets += count;
        if gone > 0 {
            self.counters.dropped_blocked += u64::from(gone);
            self.stall(chip, ready_ns, u64::from(gone));
        }
        if count == 0 {
            return head_ns;
        }
        let mut next = Train {
            key: train.key.wrapping_add(gone),
            count: train.count - gone,
            words: train.words.part(gone, train.count - gone),
            head_ns: head_ns + packet_ns,
            tail_ns: tail_ns + packet_ns,
            chip: to,
            from: Link::ALL[usize::from(link)].opposite() as u8,
            cores: 0,
        };
        if self.drop_below == 0 {
            self.push_hop(next);
            return tail_ns;
        }
        // Losses: a draw for each packet, numbered by link and packet.
        let seed = mix(self.config.seed ^ mix((chip as u64 * 6 + u64::from(link)).wrapping_add(0x9E37_79B9_7F4A_7C15)));
        let below = self.drop_below;
        let lost = |i: u64| mix(seed.wrapping_add(number + i)) < below;
        let (mut first, mut i) = (0, 0);
        let whole = next.count;
        let mut runs = 0;
        while i < whole {
            if lost(u64::from(i)) {
                self.counters.dropped_on_link += 1;
                if i > first {
                    let part = next.part(first, i - first);
                    self.push_hop(part);
                    runs += 1;
                }
                first = i + 1;
            }
            i += 1;
        }
        if first < whole {
            if runs > 0 || first > 0 {
                next = next.part(first, whole - first);
            }
            self.push_hop(next);
        }
        tail_ns
    }

    fn push_hop(&mut self, train: Train) {
        let time_ns = train.head_ns;
        self.push_train(train, time_ns, kind::HOP);
    }

    fn forward_cores(&mut self, train: &Train, cores: u32, head_ns: u64, tail_ns: u64) -> u64 {
        let timing = self.config.timing;
        let chip = train.chip as usize;
        let serial_ns = if train.long() { timing.core_long_ns } else { timing.core_short_ns };
        let handler_ns = timing.receive_cycles * crate::CYCLE_NS;
        let mut accepted_ns = 0;
        // Cores that take the same packets at the same time share an event.
        let mut groups = std::mem::take(&mut self.groups);
        groups.clear();
        for number in bits(cores) {
            let index = self.chips[chip].cores[number];
            let mut count = 0;
            if let Some(core) = self.cores.get_mut(index as usize) {
                let inner = &mut *core.cell.inner.borrow_mut();
                if matches!(inner.state, CoreState::Running | CoreState::Ready) {
                    let room = self.config.receive_queue_packets.saturating_sub(inner.queued_packets);
                    count = train.count.min(room.min(u32::MAX as usize) as u32);
                    inner.queued_packets += count as usize;
                }
                if count > 0 {
                    // One packet is received after the other; between those that come slowly there is room for others.
                    let head_ns = (head_ns + serial_ns).max(core.receive_free_ns);
                    let spaced = (tail_ns + serial_ns).saturating_sub(head_ns) > u64::from(count) * handler_ns;
                    let mut tail_ns = (tail_ns + serial_ns).max(head_ns + u64::from(count - 1) * handler_ns);
                    let work_ns = core.receive_work_ns.max(head_ns) + u64::from(count) * handler_ns;
                    core.receive_work_ns = work_ns;
                    if count > 1 {
                        tail_ns = tail_ns.max(work_ns - handler_ns);
                    }
                    core.receive_free_ns = if spaced { head_ns } else { tail_ns } + handler_ns;
                    accepted_ns = accepted_ns.max(tail_ns);
                    let group = (tail_ns + handler_ns, count);
                    match groups.iter_mut().find(|found| (found.0, found.1) == group) {
                        Some(found) => found.2 |= 1 << number,
                        None => groups.push((group.0, group.1, 1 << number)),
                    }
                }
            }
            if count < train.count {
                let lost = u64::from(train.count - count);
                self.counters.dropped_at_core += lost;
                let stuck = |core: &CoreSim| core.cell.inner.borrow().state != CoreState::Exited;
                if self.cores.get(index as usize).is_some_and(stuck) {
                    // Nobody takes them: they block the router. (Where no program runs, packets are thrown away.)
                    accepted_ns = accepted_ns.max(self.stall(chip, tail_ns, lost));
                }
            }
        }
        for &(time_ns, count, cores) in &groups {
            let part = Train { cores, words: train.words.part(0, count), count, head_ns, ..*train };
            self.push_train(part, time_ns, kind::DELIVER);
        }
        self.groups = groups;
        accepted_ns
    }

    pub(super) fn deliver(&mut self, train: Train) {
        let chip = train.chip as usize;
        self.note(u64::from(train.key) ^ u64::from(train.count) << 40);
        let cycles = self.config.timing.receive_cycles * u64::from(train.count);
        for number in bits(train.cores) {
            let core = self.chips[chip].cores[number];
            let taken = self.cores.get(core as usize).is_some_and(|core| {
                let inner = &mut *core.cell.inner.borrow_mut();
                let alive = matches!(inner.state, CoreState::Running | CoreState::Ready);
                if alive {
                    if train.count == 1 {
                        inner.interrupt(self.now_ns, cycles);
                    } else {
                        inner.interrupts(train.head_ns, self.now_ns, cycles);
                    }
                    inner.inbox.push_back(Arrival { key: train.key, words: train.words.clone() });
                }
                alive
            });
            if taken {
                self.counters.packets_delivered += u64::from(train.count);
                self.fire(core, wait::PACKET);
            } else {
                self.counters.dropped_at_core += u64::from(train.count);
            }
        }
    }
}
