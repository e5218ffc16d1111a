//! Everything that travels between cores: barriers, and reliable streams of blocks over the tree of replicas.
//!
//! **Keys.** `chip << 20 | core << 15 | kind << 12 | low`; the kinds are the constants of [`kind`].
//!
//! **Barriers.** Every core sends `arrive` (epoch and its slot in the low bits: [`crate::program::barrier`]) to the first core of its group,
//! those send `arrive` to the leader when they have heard all of theirs, and the leader then multicasts `release` with that
//! epoch to all, itself included. Who waits too long repeats what it sent; an `arrive` of an epoch that is over is answered by
//! the leader's `release`. A core's interrupt handler can do all of this by itself ([`Meeting`]).
//!
//! **Streams.** Blocks of 128 words (the last may be shorter) are numbered through the life of a core. Data keys carry the number
//! modulo 16 and the offset. A receiver has room for two blocks; when it enters an exchange, and whenever it has used up a block, it
//! tells how many blocks it has *used* (the acknowledgement: a sender holds a block until then) and its *credit*, the number of the
//! first block that it has no room for. What is lost is found in two ways: a receiver that sees the end of a block with holes in it
//! tells its bitmap at once; a sender that hears nothing probes, and is told the credit and the bitmaps. Only missing words are sent
//! again. Everything is idempotent: duplicates and late packets change nothing.

#[cfg(feature = "exchanges")]
mod stream;

use maybe_async::maybe_async;

use crate::core_trait::{Arrival, Core, Counter, Meeting};
use crate::error::{ErrorCode, Failure};
use crate::program::{CoreConfig, barrier};

/// Kinds of channels, bits 14:12 of a key.
pub mod kind {
    /// To the first core of a group or to the leader of the chip, whose core number the key has.
    pub const ARRIVE: u32 = 0;
    /// Leader to all cores of its chip.
    pub const RELEASE: u32 = 1;
    /// Data to the parent.
    pub const UP_DATA: u32 = 2;
    /// Control to the parent.
    pub const UP_CONTROL: u32 = 3;
    /// Data to all children.
    pub const DOWN_DATA: u32 = 4;
    /// Control to all children.
    pub const DOWN_CONTROL: u32 = 5;
}

/// Bits of a key that name chip and core.
const SENDER_MASK: u32 = !0x7FFF;
/// Longest wait before asking again (6.4 ms).
const TIMEOUT_MAX_CYCLES: u64 = 1_280_000;
/// The same at a barrier, where waiting for others is usual (2 ms).
const BARRIER_TIMEOUT_CYCLES: u64 = 400_000;
/// A peer that has not answered for so long (two minutes) is given up; the host finds dead cores long before.
const SILENCE_CYCLES: u64 = 24_000_000_000;
/// Cycles for a packet of a barrier, which the interrupt handler counts (measured, as those of the interpreter).
const BARRIER_PACKET_CYCLES: u32 = 31;
/// Cycles of a barrier beyond those of its packets and its command.
const BARRIER_CYCLES: u32 = 15;
/// Cycles for another packet: the handler, the ring, and what it asks for.
const PACKET_CYCLES: u32 = 160;
/// What a core knows of its barriers and streams.
#[derive(Debug)]
pub(crate) struct Links {
    config: CoreConfig,
    /// A bit for each slot that this core hears of at a barrier.
    gathered: u32,
    epoch: u32,
    arrived: [u32; 2],
    released: u32,
    #[cfg(feature = "exchanges")]
    streams: stream::Streams,
}

#[maybe_async]
impl Links {
    /// Before a configuration is read.
    pub const EMPTY: Links = Links {
        config: CoreConfig::EMPTY,
        gathered: 0,
        epoch: 0,
        arrived: [0; 2],
        released: 0,
        #[cfg(feature = "exchanges")]
        streams: stream::Streams::EMPTY,
    };

    /// Takes the configuration of the core.
    pub fn configure<C: Core>(&mut self, core: &C, config: &CoreConfig) {
        self.config = *config;
        self.gathered = barrier::gathered(config.slot, config.cores);
        core.expect(self.meeting(1));
    }

    /// What comes at the barrier of an epoch.
    fn meeting(&self, epoch: u32) -> Meeting {
        Meeting { epoch: barrier::key(epoch, 0), gathered: self.gathered, then: self.message(epoch) }
    }

    /// What a core sends when all that it has to hear of are there: the leader `release`, others `arrive`.
    fn message(&self, epoch: u32) -> u32 {
        if self.config.slot == 0 {
            self.release(epoch)
        } else {
            self.config.above | kind::ARRIVE << 12 | barrier::key(epoch, self.config.slot)
        }
    }

    fn release(&self, epoch: u32) -> u32 {
        self.config.leader | kind::RELEASE << 12 | barrier::key(epoch, barrier::RELEASE)
    }

    #[cfg(feature = "exchanges")]
    fn key(&self, kind: u32, low: u32) -> u32 {
        self.config.key | kind << 12 | low
    }

    /// Meets all other cores of the chip.
    pub async fn barrier<C: Core>(&mut self, core: &C) -> Result<(), Failure> {
        self.epoch = self.epoch.wrapping_add(1);
        let epoch = self.epoch;
        if self.config.cores == 1 {
            self.released = epoch;
            return Ok(());
        }
        core.charge(BARRIER_CYCLES);
        let come = self.arrived[(epoch & 1) as usize] | 1 << self.config.slot;
        if !core.meet(come, BARRIER_TIMEOUT_CYCLES).await {
            self.barrier_by_steps(core).await?;
        }
        self.released = epoch;
        self.arrived[(epoch & 1) as usize] = 0;
        core.part();
        Ok(())
    }

    /// A barrier on a core that does not count by itself, or at which something else happens.
    #[inline(never)]
    async fn barrier_by_steps<C: Core>(&mut self, core: &C) -> Result<(), Failure> {
        self.join(core, self.config.slot).await;
        let mut watch = Watch::new(core, self.config.leader, self.epoch, BARRIER_TIMEOUT_CYCLES);
        while !self.is_over(core) {
            if self.wait(core, &mut watch).await? && self.has_gathered(core) {
                core.send(self.message(self.epoch), None).await;
            }
        }
        Ok(())
    }

    /// Whether the leader has said that all are at the barrier that goes on.
    fn is_over<C: Core>(&self, core: &C) -> bool {
        self.released == self.epoch || core.met() >> barrier::RELEASE != 0
    }

    /// A core has come to the barrier that goes on.
    async fn join<C: Core>(&mut self, core: &C, slot: u32) {
        let arrived = &mut self.arrived[(self.epoch & 1) as usize];
        *arrived |= 1 << slot;
        if !core.join(*arrived) && self.has_gathered(core) {
            core.send(self.message(self.epoch), None).await;
        }
    }

    /// Whether all that this core has to hear of are at the barrier that goes on.
    fn has_gathered<C: Core>(&self, core: &C) -> bool {
        self.gathered & !(self.arrived[(self.epoch & 1) as usize] | core.met()) == 0
    }

    /// Answers everything that has arrived.
    #[inline(always)]
    pub async fn answer<C: Core>(&mut self, core: &C) {
        if core.has_arrivals() {
            self.answer_all(core).await;
        }
    }

    #[inline(never)]
    async fn answer_all<C: Core>(&mut self, core: &C) {
        while let Some(arrival) = core.take() {
            self.arrival(core, arrival).await;
        }
    }

    /// Takes what has arrived, or sleeps until something does; `true` when it is time to ask.
    async fn wait<C: Core>(&mut self, core: &C, watch: &mut Watch) -> Result<bool, Failure> {
        let mut heard = false;
        while let Some(arrival) = core.take() {
            self.arrival(core, arrival).await;
            heard = true;
        }
        if heard {
            return Ok(false);
        }
        if core.now_cycles() >= watch.deadline {
            return watch.again(core).map(|()| true);
        }
        core.event(Some(watch.deadline)).await;
        Ok(false)
    }

    async fn arrival<C: Core>(&mut self, core: &C, arrival: Arrival<C::Words>) {
        let words = arrival.words.as_ref();
        let packets = words.len().max(1) as u32;
        let key = arrival.key;
        core.charge(match key >> 12 & 7 {
            kind::ARRIVE | kind::RELEASE => packets * BARRIER_PACKET_CYCLES,
            _ => PACKET_CYCLES,
        });
        let sender = key & SENDER_MASK;
        let low = key & 0xFFF;
        match key >> 12 & 7 {
            kind::ARRIVE => self.arrive(core, low).await,
            kind::RELEASE => {
                if sender == self.config.leader && self.epoch & 15 == low >> barrier::EPOCH_SHIFT {
                    self.released = self.epoch;
                }
            }
            #[cfg(feature = "exchanges")]
            kind::UP_DATA..=kind::DOWN_CONTROL => self.stream_arrival(core, key, words).await,
            _ => core.count(Counter::PacketsUnexpected, packets),
        }
    }

    async fn arrive<C: Core>(&mut self, core: &C, low: u32) {
        let (slot, epoch) = (low & 0xFF, low >> barrier::EPOCH_SHIFT);
        if slot >= self.config.cores || barrier::above(slot) != self.config.slot {
            return;
        }
        let ahead = epoch.wrapping_sub(self.released) & 15;
        match ahead {
            // It did not hear that this one is over.
            0 => core.send(self.release(self.released), None).await,
            1 if self.epoch != self.released => self.join(core, slot).await,
            // This core has not come to that barrier yet, or does not know yet that the one before is over.
            1 | 2 => self.arrived[(epoch & 1) as usize] |= 1 << slot,
            _ => {}
        }
    }
}

/// How long to wait before asking, and when to give up.
struct Watch {
    deadline: u64,
    patience: u64,
    last: u64,
    peer: u32,
    number: u32,
}

impl Watch {
    fn new<C: Core>(core: &C, peer: u32, number: u32, patience: u64) -> Watch {
        let now = core.now_cycles();
        Watch { deadline: now + patience, patience, last: now + SILENCE_CYCLES, peer, number }
    }
    fn again<C: Core>(&mut self, core: &C) -> Result<(), Failure> {
        let now = core.now_cycles();
        if now > self.last {
            return Err(Failure::new(ErrorCode::PeerSilent, self.peer, self.number));
        }
        self.patience = (self.patience * 2).min(TIMEOUT_MAX_CYCLES.max(self.patience));
        self.deadline = now + self.patience;
        Ok(())
    }
}
