//! What everything is doing: states of cores, counters, hashes.

use spinnaker_machine::ChipXy;

use super::CycleMachine;
use crate::chip::{Activity, CORES, Chip};

/// What a core is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoreActivity {
    /// It does not work.
    Broken,
    /// In the boot ROM.
    BootRom,
    /// Executing instructions.
    Running,
    /// Waiting for an interrupt.
    Asleep,
    /// In reset, or its clock is off.
    Held,
}

/// A core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreSnapshot {
    /// What it is doing.
    pub activity: CoreActivity,
    /// Address of the next instruction.
    pub pc: u32,
    /// Status register.
    pub cpsr: u32,
    /// Registers of the present mode.
    pub registers: [u32; 15],
    /// Instructions since power on.
    pub instructions: u64,
    /// Its clock, cycles.
    pub cycles: u64,
    /// Packets it sent, took, and lost because its transmit register was full.
    pub packets: [u64; 3],
    /// DMA transfers and the bytes that they moved.
    pub dma: [u64; 2],
}

/// A chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChipSnapshot {
    /// Its place.
    pub place: ChipXy,
    /// Physical number of the monitor that the boot ROM elected.
    pub monitor: u8,
    /// Its cores by physical number.
    pub cores: Vec<CoreSnapshot>,
    /// Packets that its router took, and dropped.
    pub routed: [u64; 2],
    /// LEDs that are on: bits 0, 1, 6, 7.
    pub leds: u32,
    /// Bytes of host memory that its SDRAM takes.
    pub sdram_host_bytes: usize,
}

/// The whole machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Machine time, ns.
    pub time_ns: u64,
    /// Chips by place.
    pub chips: Vec<ChipSnapshot>,
    /// Hash of all that happened.
    pub trace_hash: u64,
}

/// Sums over a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Instructions executed.
    pub instructions: u64,
    /// Packets that routers took.
    pub routed: u64,
    /// Packets that routers dropped.
    pub dropped: u64,
}

fn core(chip: &Chip, number: usize) -> CoreSnapshot {
    let core = &chip.cores[number];
    let activity = match core.activity {
        Activity::Broken => CoreActivity::Broken,
        _ if core.held => CoreActivity::Held,
        Activity::Rom => CoreActivity::BootRom,
        Activity::Running => CoreActivity::Running,
        Activity::Asleep => CoreActivity::Asleep,
    };
    let (comms, dma) = (&core.local.comms, &core.local.dma);
    CoreSnapshot {
        activity,
        pc: core.cpu.pc(),
        cpsr: core.cpu.cpsr(),
        registers: std::array::from_fn(|r| core.cpu.register(r)),
        instructions: core.cpu.instructions(),
        cycles: core.cpu.cycles(),
        packets: [comms.sent, comms.taken, comms.lost],
        dma: [dma.transfers, dma.bytes],
    }
}

impl CycleMachine {
    /// What everything is doing now.
    pub fn snapshot(&mut self) -> Snapshot {
        let trace_hash = self.trace_hash();
        let mut chips = Vec::with_capacity(self.chips.len());
        for (chip, &place) in self.chips.iter_mut().zip(&self.places) {
            let Ok(chip) = chip.get_mut() else { continue };
            chips.push(ChipSnapshot {
                place,
                monitor: chip.rom.monitor,
                cores: (0..CORES).map(|number| core(chip, number)).collect(),
                routed: [chip.noc.router.packets, chip.noc.router.dropped],
                leds: chip.noc.system.leds(),
                sdram_host_bytes: chip.noc.sdram.host_bytes(),
            });
        }
        Snapshot { time_ns: self.now_ns(), chips, trace_hash }
    }

    /// Sums over all chips.
    pub fn counts(&mut self) -> Counts {
        let mut counts = Counts::default();
        for chip in &mut self.chips {
            let Ok(chip) = chip.get_mut() else { continue };
            chip.come_to(self.now_ps);
            counts.instructions += chip.cores.iter().map(|core| core.cpu.instructions()).sum::<u64>();
            counts.routed += chip.noc.router.packets;
            counts.dropped += chip.noc.router.dropped;
        }
        counts
    }

    /// A hash of all that happened: every packet at every router and every frame with its time, and where every core
    /// stands now.
    pub fn trace_hash(&mut self) -> u64 {
        let mut hash = 0;
        let now_ps = self.now_ps;
        for (chip, next_ps) in self.chips.iter_mut().zip(&mut self.next_ps) {
            let Ok(chip) = chip.get_mut() else { continue };
            chip.settle(now_ps);
            *next_ps = chip.next_ps();
            let mut trace = chip.noc.trace;
            for core in &chip.cores {
                trace.add([core.cpu.cycles(), core.cpu.instructions(), u64::from(core.cpu.pc())]);
            }
            hash = (hash ^ trace.0).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17);
        }
        hash
    }
}
