//! A chip at rest: one core wakes by its timer and sleeps again, everything else waits.
//!
//! The chip of an idle monitor has nothing to do but the monitor's wakes, which change nothing that other chips could see.
//! When the core falls asleep and the next wakes are known ([`Beat`]), they are put off: up to the first one that goes another way,
//! or before which something else happens here. That is the chip's next event then. When it comes, or anything from outside before
//! it, the wakes that are over by then are made at once; one that is not is executed as ever. So all happens as it would
//! without, and at the same time.
//!
//! Beside the core's own state, which [`Beat`] knows, a wake depends on the devices that it uses: its interrupt controller, which must be
//! as it was, and the timer whose interrupt it takes back.

use std::sync::Arc;

use super::bus::CoreBus;
use super::vic::{Vic, source};
use super::{Chip, Event};
use crate::arm968::{Ahead, Beat};

/// Most wakes that are put off at once.
const WAKES_MAX: u64 = 64;
/// Ways of waking that a core keeps.
const KEPT: usize = 32;
/// Wakes by the timer between two recordings, at first and at most.
const PATIENCE: (u32, u32) = (2, 512);

/// Devices that a wake depends on and leaves as they were.
struct Devices {
    vic: Vic,
    /// Of the GPIO pins, with the LEDs.
    latch: u32,
}

impl Devices {
    fn of(bus: &CoreBus) -> Self {
        Self { vic: bus.local.vic.clone(), latch: bus.noc.system.latch() }
    }

    fn are(&self, bus: &CoreBus) -> bool {
        self.vic == bus.local.vic && self.latch == bus.noc.system.latch()
    }
}

/// A wake that is known.
struct Known {
    beat: Arc<Beat>,
    devices: Devices,
    /// Cycles after which the timer's interrupt is taken back, and after which the bridge has done the stores.
    cleared_after: u64,
    stored_after: u64,
}

/// What a core does each time that its timer wakes it.
#[derive(Default)]
pub(super) struct Habits {
    /// The one that fitted last comes first.
    known: Vec<Known>,
    /// [`Cpu::code_version`](crate::arm968::Cpu::code_version) of what is known.
    code_version: u64,
    /// Wakes left until the next recording, and how many there are from one to the next.
    wait: u32,
    patience: u32,
    recording: Option<Recording>,
    ahead: Ahead,
}

/// What was when a recording began.
struct Recording {
    devices: Devices,
    /// When the core is to wake.
    at: u64,
    /// Events before.
    happened: u64,
}

/// Wakes that are put off.
pub(super) struct Rest {
    core: usize,
    /// Cycle of the first, from one to the next, and how many there are.
    at: u64,
    period: u64,
    count: u64,
}

/// The next wake by a timer.
struct Next {
    at: u64,
    period: u64,
    /// Cycle of the other timer's; the end of time without one.
    other: u64,
    /// What happens before this is to be nothing else, cycles.
    alone_until: u64,
}

impl Chip {
    /// A core has fallen asleep: its next wakes may be known.
    pub(super) fn fell_asleep(&mut self, core: usize) {
        let unit = &mut self.cores[core];
        let recorded = unit.habits.recording.take();
        let watched = self.probe.is_some() || unit.cpu.is_watched();
        if !self.rests || self.going != 0 || self.polling != 0 || watched {
            return;
        }
        if let Some(recording) = recorded {
            self.end_recording(core, recording);
        }
        let Some(next) = self.next_wake(core) else { return };
        if self.rest(core, &next) {
            return;
        }
        let habits = &mut self.cores[core].habits;
        habits.wait = habits.wait.saturating_sub(1);
        if habits.wait == 0 {
            self.begin_recording(core, next.at);
        }
    }

    /// The next wake, if the core's first timer is what happens next and the interrupt controller does not wait for the slow clock.
    fn next_wake(&mut self, core: usize) -> Option<Next> {
        let unit = &self.cores[core];
        let at = unit.local.timers[0].next_interrupt()?;
        let (period, at_ps) = (unit.local.timers[0].period()?, unit.clock.ps(at));
        let timer = Event::Timer { core: core as u8, generation: unit.local.timer_generation };
        let steady = unit.local.slow_clock.flag(unit.clock.ps(unit.cpu.cycles()))
            && !unit.local.vic.enabled(source::SLOW_CLOCK)
            && unit.local.bridge_free <= at;
        let other = unit.local.timers[1].next_interrupt().unwrap_or(u64::MAX);
        self.drop_old_timers();
        if !steady || self.noc.events.peek() != Some((at_ps, timer)) {
            return None;
        }
        self.noc.events.pop();
        self.drop_old_timers();
        let alone_until = self.cores[core].clock.cycles_by(self.noc.events.next_ps()).min(other);
        self.noc.events.push(at_ps, timer);
        Some(Next { at, period, other, alone_until })
    }

    /// Drops the next events as long as they are for timers that were set anew since.
    fn drop_old_timers(&mut self) {
        while let Some((_, Event::Timer { core, generation })) = self.noc.events.peek()
            && self.cores[usize::from(core)].local.timer_generation != generation
        {
            self.noc.events.pop();
        }
    }

    /// Puts off the wakes that are known. Whether there are any.
    fn rest(&mut self, core: usize, next: &Next) -> bool {
        let unit = &mut self.cores[core];
        let habits = &mut unit.habits;
        let bus = CoreBus::new(core, &mut unit.local, &mut self.noc, unit.clock);
        if habits.code_version != unit.cpu.code_version() {
            return false;
        }
        let found = habits.known.iter().enumerate().find_map(|(index, known)| {
            if !known.devices.are(&bus) || known.beat.cycles >= next.period {
                return None;
            }
            let room = next.alone_until.checked_sub(next.at + known.beat.cycles);
            let most = room.map_or(0, |room| room / next.period + 1).min(WAKES_MAX);
            let count = unit.cpu.beats(&known.beat, &bus, most, &mut habits.ahead);
            (count > 0).then_some((index, count))
        });
        let Some((index, count)) = found else { return false };
        habits.known[..=index].rotate_right(1);
        // The timers' event comes at the first wake that is not put off, or by the other timer.
        self.noc.events.pop();
        unit.local.timer_generation = unit.local.timer_generation.wrapping_add(1);
        let event = Event::Timer { core: core as u8, generation: unit.local.timer_generation };
        self.noc.events.push(unit.clock.ps(next.other.min(next.at + count * next.period)), event);
        self.rest = Some(Rest { core, at: next.at, period: next.period, count });
        true
    }

    /// Makes the wakes that are over at a time. How many are left.
    fn make_wakes(&mut self, rest: &mut Rest, now_ps: u64) -> u64 {
        let unit = &mut self.cores[rest.core];
        let Some(known) = unit.habits.known.first() else { return 0 };
        let over = |number: u64| unit.clock.ps(rest.at + number * rest.period + known.beat.cycles) <= now_ps;
        let (mut count, mut beyond) = (0, rest.count);
        while count < beyond {
            let middle = (count + beyond) / 2;
            if over(middle) { count = middle + 1 } else { beyond = middle }
        }
        if count > 0 {
            let last = rest.at + (count - 1) * rest.period;
            unit.local.timers.iter_mut().for_each(|timer| timer.advance(last));
            unit.local.timers[0].take_back(last + known.cleared_after);
            unit.local.bridge_free = unit.local.bridge_free.max(last + known.stored_after);
            let mut bus = CoreBus::new(rest.core, &mut unit.local, &mut self.noc, unit.clock);
            unit.cpu.make_beats(&known.beat, &mut bus, &mut unit.habits.ahead, count, last);
            rest.at += count * rest.period;
            rest.count -= count;
        }
        rest.count
    }

    /// Makes the wakes that are over at a time, and puts off the others no more. Whether none is left.
    fn leave_rest(&mut self, now_ps: u64) -> bool {
        let Some(mut rest) = self.rest.take() else { return true };
        let over = self.make_wakes(&mut rest, now_ps) == 0;
        if !over {
            // The event for the end of the rest counts no more.
            self.schedule_timers(rest.core);
        }
        over
    }

    /// Something happens here at a time.
    pub(super) fn end_rest(&mut self, now_ps: u64) {
        let Some(core) = self.rest.as_ref().map(|rest| rest.core) else { return };
        // If it is the next wake, that may be known, too.
        if self.leave_rest(now_ps)
            && let Some(next) = self.next_wake(core)
        {
            self.rest(core, &next);
        }
    }

    /// Makes the wakes that are over at a time, for somebody who wants to see.
    pub fn come_to(&mut self, now_ps: u64) {
        if let Some(mut rest) = self.rest.take()
            && self.make_wakes(&mut rest, now_ps) > 0
        {
            self.rest = Some(rest);
        }
    }

    /// No more rest, for somebody who changes things.
    pub fn rouse(&mut self, now_ps: u64) {
        self.leave_rest(now_ps);
        self.cores.iter_mut().for_each(|core| core.habits.recording = None);
    }

    fn begin_recording(&mut self, core: usize, at: u64) {
        let unit = &mut self.cores[core];
        let bus = CoreBus::new(core, &mut unit.local, &mut self.noc, unit.clock);
        unit.cpu.record_beat(&bus);
        let devices = Devices::of(&bus);
        let habits = &mut unit.habits;
        habits.patience = (2 * habits.patience).clamp(PATIENCE.0, PATIENCE.1);
        habits.wait = habits.patience;
        habits.recording = Some(Recording { devices, at, happened: self.happened });
    }

    /// Keeps what was recorded, if it is what the timer alone brought about and leaves the devices as they were.
    fn end_recording(&mut self, core: usize, recording: Recording) {
        let unit = &mut self.cores[core];
        let cycles = unit.cpu.cycles().saturating_sub(recording.at);
        let bus = CoreBus::new(core, &mut unit.local, &mut self.noc, unit.clock);
        let beat = unit.cpu.take_beat(&bus, cycles);
        let timer = &bus.local.timers[0];
        let next = timer.period().map(|period| recording.at + period);
        let same = self.happened == recording.happened + 1
            && recording.devices.are(&bus)
            && next.is_some()
            && timer.next_interrupt() == next;
        let stored_after = bus.local.bridge_free.saturating_sub(recording.at);
        let cleared_after = timer.since().checked_sub(recording.at);
        let (Some(beat), Some(cleared_after), true) = (beat, cleared_after, same) else { return };
        let habits = &mut unit.habits;
        // There may be more.
        habits.patience = (habits.patience / 4).max(PATIENCE.0);
        habits.wait = habits.patience;
        let code_version = unit.cpu.code_version();
        if habits.code_version != code_version {
            habits.code_version = code_version;
            habits.known.clear();
        }
        habits.known.truncate(KEPT - 1);
        habits.known.insert(0, Known { beat, devices: recording.devices, cleared_after, stored_after });
    }
}
