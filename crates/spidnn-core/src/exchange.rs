//! Everything that travels between cores: barriers, and reliable streams of blocks over the tree of replicas.
//!
//! **Keys.** `chip << 20 | core << 15 | kind << 12 | low`; the kinds are the constants of [`kind`].
//!
//! **Barriers.** Every core sends `arrive` (its epoch in the low bits) to the leader; the leader, when it has heard all, multicasts
//! `release` with that epoch. Who waits too long repeats its `arrive`; the leader answers an `arrive` of an epoch that is over
//! by repeating its `release`.
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
use crate::program::CoreConfig;

/// Kinds of channels, bits 14:12 of a key.
pub mod kind {
    /// Core to the leader of its chip.
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
/// Bits of an `arrive` that are the same for every core: kind and epoch.
const ARRIVE_MASK: u32 = 0x700F;
/// A peer that has not answered for so long (two minutes) is given up; the host finds dead cores long before.
const SILENCE_CYCLES: u64 = 24_000_000_000;
/// Cycles for a packet of a barrier, which the interrupt handler counts (measured, as those of the interpreter).
const BARRIER_PACKET_CYCLES: u32 = 31;
/// Cycles of a barrier beyond those of its packets and its command.
const BARRIER_CYCLES: u32 = 250;
/// Cycles for another packet: the handler, the ring, and what it asks for.
const PACKET_CYCLES: u32 = 160;
/// Cycles for each packet of a run with payload.
const PAYLOAD_CYCLES: u32 = 60;
/// What a core knows of its barriers and streams.
#[derive(Debug)]
pub(crate) struct Links {
    config: CoreConfig,
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
        epoch: 0,
        arrived: [0; 2],
        released: 0,
        #[cfg(feature = "exchanges")]
        streams: stream::Streams::EMPTY,
    };

    /// Takes the configuration of the core.
    pub fn configure<C: Core>(&mut self, core: &C, config: &CoreConfig) {
        self.config = *config;
        core.expect(self.meeting(1));
    }

    /// What comes at the barrier of an epoch: to the leader all others' `arrive`, to the others the leader's `release`.
    fn meeting(&self, epoch: u32) -> Meeting {
        if self.config.slot == 0 {
            Meeting { key: kind::ARRIVE << 12 | (epoch & 15), mask: ARRIVE_MASK, numbers: self.all() & !1 }
        } else {
            let key = self.config.leader | kind::RELEASE << 12 | (epoch & 0xFF);
            Meeting { key, mask: u32::MAX, numbers: 1 << (key >> 4 & 31) }
        }
    }

    /// A bit for each core of the chip.
    fn all(&self) -> u32 {
        u32::MAX >> (32 - self.config.cores)
    }

    fn key(&self, kind: u32, low: u32) -> u32 {
        self.config.key | kind << 12 | low
    }

    /// Meets all other cores of the chip.
    pub async fn barrier<C: Core>(&mut self, core: &C) -> Result<(), Failure> {
        self.epoch = self.epoch.wrapping_add(1);
        let epoch = self.epoch;
        if self.config.cores == 1 {
            return Ok(());
        }
        core.charge(BARRIER_CYCLES);
        let all = self.all();
        if self.config.slot == 0 {
            self.arrived[(epoch & 1) as usize] |= 1;
            let mut watch = Watch::new(core, self.config.key, epoch, BARRIER_TIMEOUT_CYCLES);
            while (self.arrived[(epoch & 1) as usize] | core.met()) & all != all {
                self.wait(core, &mut watch).await?;
            }
            self.arrived[(epoch & 1) as usize] = 0;
            self.released = epoch;
            core.expect(self.meeting(epoch.wrapping_add(1)));
            core.send(self.key(kind::RELEASE, epoch & 0xFF), None).await;
        } else {
            core.send(self.key(kind::ARRIVE, self.config.slot << 4 | (epoch & 15)), None).await;
            let mut watch = Watch::new(core, self.config.leader, epoch, BARRIER_TIMEOUT_CYCLES);
            while self.released != epoch && core.met() == 0 {
                if self.wait(core, &mut watch).await? {
                    core.send(self.key(kind::ARRIVE, self.config.slot << 4 | (epoch & 15)), None).await;
                }
            }
            self.released = epoch;
            core.expect(self.meeting(epoch.wrapping_add(1)));
        }
        Ok(())
    }

    /// Answers everything that has arrived.
    pub async fn answer<C: Core>(&mut self, core: &C) {
        while core.has_arrivals() {
            let Some(arrival) = core.take() else { return };
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
            _ => PACKET_CYCLES + packets * PAYLOAD_CYCLES,
        });
        let sender = key & SENDER_MASK;
        let low = key & 0xFFF;
        match key >> 12 & 7 {
            kind::ARRIVE => self.arrive(core, low).await,
            kind::RELEASE => {
                if sender == self.config.leader && self.epoch & 0xFF == low {
                    self.released = self.epoch;
                }
            }
            #[cfg(feature = "exchanges")]
            kind::UP_DATA..=kind::DOWN_CONTROL => self.stream_arrival(core, key, words).await,
            _ => core.count(Counter::PacketsUnexpected, packets),
        }
    }

    async fn arrive<C: Core>(&mut self, core: &C, low: u32) {
        let (slot, epoch) = (low >> 4 & 31, low & 15);
        if slot >= self.config.cores || self.config.slot != 0 {
            return;
        }
        if epoch == self.released & 15 {
            // It did not hear that this one is over.
            core.send(self.key(kind::RELEASE, self.released & 0xFF), None).await;
        } else if epoch == self.released.wrapping_add(1) & 15 {
            self.arrived[(epoch & 1) as usize] |= 1 << slot;
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
