//! Bare programs, a few hand-assembled words each, on cores of a machine that runs no system software.

use std::ops::Range;

use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};

/// Communications controller, buffered.
pub const CC: u32 = 0x1000_0000;
/// DMA controller, unbuffered.
pub const DMA: u32 = 0x3000_0000;
/// Interrupt controller.
pub const VIC: u32 = 0x1F00_0000;
/// Router.
pub const ROUTER: u32 = 0xF100_0000;
const SYSTEM: u32 = 0xF200_0000;
const DTCM: u32 = 0x0040_0000;

/// Where a FIQ enters, and where programs are.
const FIQ: u32 = 0x1C;
const PROGRAM: u32 = 0x100;

/// Writes the values of a list of (address, value) at `r0`, up to address 0.
const SET_UP: [u32; 5] = [
    0xE490_1004, // loop: ldr   r1, [r0], #4
    0xE490_2004, //       ldr   r2, [r0], #4
    0xE351_0000, //       cmp   r1, #0
    0x1581_2000, //       strne r2, [r1]
    0x1AFF_FFFA, //       bne   loop
];

/// Counts turns of four cycles in `r6`.
pub const COUNT: [u32; 2] = [
    0xE286_6001, // loop: add r6, r6, #1
    0xEAFF_FFFD, //       b   loop
];

/// Sends packets of key `r5` whenever all before have left. `r4`: communications controller.
pub const SEND: [u32; 6] = [
    0xE594_1000, // loop: ldr r1, [r4]          transmit status
    0xE351_0000, //       cmp r1, #0            bit 31: empty
    0x5AFF_FFFC, //       bpl loop
    0xE584_5008, //       str r5, [r4, #8]
    0xE286_6001, //       add r6, r6, #1
    0xEAFF_FFF9, //       b   loop
];

/// The same with payload `r7`.
pub const SEND_LONG: [u32; 7] = [
    0xE594_1000, // loop: ldr r1, [r4]
    0xE351_0000, //       cmp r1, #0
    0x5AFF_FFFC, //       bpl loop
    0xE584_7004, //       str r7, [r4, #4]
    0xE584_5008, //       str r5, [r4, #8]
    0xE286_6001, //       add r6, r6, #1
    0xEAFF_FFF8, //       b   loop
];

/// Sends packets whenever the register takes one.
pub const SEND_FAST: [u32; 6] = [
    0xE594_1000, // loop: ldr r1, [r4]
    0xE311_0201, //       tst r1, #0x10000000   not full
    0x0AFF_FFFC, //       beq loop
    0xE584_5008, //       str r5, [r4, #8]
    0xE286_6001, //       add r6, r6, #1
    0xEAFF_FFF9, //       b   loop
];

/// Sends a packet, waits for one to come, and so on.
pub const PING: [u32; 7] = [
    0xE584_5008, // loop: str r5, [r4, #8]
    0xE594_100C, // wait: ldr r1, [r4, #12]     receive status
    0xE351_0000, //       cmp r1, #0            bit 31: received
    0x5AFF_FFFC, //       bpl wait
    0xE594_1014, //       ldr r1, [r4, #20]
    0xE286_6001, //       add r6, r6, #1
    0xEAFF_FFF8, //       b   loop
];

/// Sends a packet for each that comes.
pub const PONG: [u32; 7] = [
    0xE594_100C, // loop: ldr r1, [r4, #12]
    0xE351_0000, //       cmp r1, #0
    0x5AFF_FFFC, //       bpl loop
    0xE594_1014, //       ldr r1, [r4, #20]
    0xE584_5008, //       str r5, [r4, #8]
    0xE286_6001, //       add r6, r6, #1
    0xEAFF_FFF8, //       b   loop
];

/// Interrupt on reception: the key goes into a ring of 256 words at `r10` (FIQ's own registers; `r8`: communications
/// controller, `r9`: packets so far).
pub const RECEIVE_FIQ: [u32; 5] = [
    0xE598_B014, // ldr  r11, [r8, #20]
    0xE209_C0FF, // and  r12, r9, #255
    0xE78A_B10C, // str  r11, [r10, r12, lsl #2]
    0xE289_9001, // add  r9, r9, #1
    0xE25E_F004, // subs pc, lr, #4
];

/// Lets the FIQ in, and counts.
pub const WITH_FIQ: [u32; 3] = [
    0xE321_F093, //       msr cpsr_c, #0x93
    0xE286_6001, // loop: add r6, r6, #1
    0xEAFF_FFFD, //       b   loop
];

/// DMA transfers one after the other, by polling. `r4`: controller, `r5` and `r7`: addresses, `r8`: description, `r9`: 8.
pub const TRANSFER: [u32; 9] = [
    0xE584_5004, // loop: str r5, [r4, #4]
    0xE584_7008, //       str r7, [r4, #8]
    0xE584_800C, //       str r8, [r4, #12]     commits
    0xE594_1014, // wait: ldr r1, [r4, #20]
    0xE311_0B01, //       tst r1, #1024         done
    0x0AFF_FFFC, //       beq wait
    0xE584_9010, //       str r9, [r4, #16]
    0xE286_6001, //       add r6, r6, #1
    0xEAFF_FFF6, //       b   loop
];

/// 32 loads from `r4`, and so on.
pub fn load_32() -> Vec<u32> {
    let mut words = vec![0xE594_1000; 32]; // ldr r1, [r4]
    words.extend([
        0xE286_6001, // add r6, r6, #1
        0xEAFF_FFDD, // b   the first
    ]);
    words
}

/// A machine without system software, after the boot ROM's start, clocks as the system software sets them: 200 MHz
/// cores, 130 MHz router; blocked packets are dropped after 240 router cycles.
pub struct Bare {
    pub machine: CycleMachine,
}

impl Bare {
    pub fn new(machine: &Machine, entries: &[(ChipXy, u32, u32)]) -> Self {
        Self::with_config(machine, entries, &CycleConfig::default())
    }

    /// The same with a configuration; entries are chip, key and route.
    pub fn with_config(machine: &Machine, entries: &[(ChipXy, u32, u32)], config: &CycleConfig) -> Self {
        // The ROM's monitor is out of the way.
        let monitors = machine.chips.keys().map(|&xy| (xy, 0)).collect();
        let mut bare = Self { machine: CycleMachine::new(machine, &CycleConfig { monitors, ..config.clone() }) };
        bare.machine.run_for(150 * super::MS);
        for xy in machine.chips.keys().copied() {
            let mut list = vec![
                (SYSTEM + 0x50, 0x0007_0128),
                (SYSTEM + 0x54, 0x0007_011A),
                (SYSTEM + 0x60, 0x8094_88A5),
                (ROUTER, 0x0040_0001),
            ];
            for (entry, &(_, key, route)) in (0..).zip(entries.iter().filter(|(chip, ..)| *chip == xy)) {
                list.extend([
                    (ROUTER + 0x4000 + 4 * entry, route),
                    (ROUTER + 0x8000 + 4 * entry, key),
                    (ROUTER + 0xC000 + 4 * entry, u32::MAX),
                ]);
            }
            bare.start(xy, 1, &list, &COUNT, &[]);
            bare.machine.run_for(100_000);
        }
        bare
    }

    /// Starts a program on a core, after writes to devices. Registers are numbers and values.
    pub fn start(&mut self, xy: ChipXy, core: u8, list: &[(u32, u32)], program: &[u32], registers: &[(usize, u32)]) {
        assert!(self.machine.start(xy, core, PROGRAM), "a core that works");
        let cpu = self.machine.cpu(xy, core).expect("a core");
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let list: Vec<u32> = list.iter().chain(&[(0, 0)]).flat_map(|&(address, value)| [address, value]).collect();
        cpu.write_tcm(DTCM, &bytes(&list)).expect("room");
        cpu.write_tcm(FIQ, &bytes(&RECEIVE_FIQ)).expect("room");
        cpu.write_tcm(PROGRAM, &bytes(&[&SET_UP, program].concat())).expect("room");
        // FIQ's registers, then the program's.
        let supervisor = cpu.cpsr();
        cpu.set_cpsr(0xD1);
        for (register, value) in [(8, CC), (9, 0), (10, DTCM + 0x8000)] {
            cpu.set_register(register, value);
        }
        cpu.set_cpsr(supervisor);
        cpu.set_register(0, DTCM);
        cpu.set_register(6, 0);
        for &(register, value) in registers {
            cpu.set_register(register, value);
        }
    }

    /// A core that sends packets of a key.
    pub fn sender(&mut self, xy: ChipXy, core: u8, program: &[u32], key: u32) {
        self.start(xy, core, &[], program, &[(4, CC), (5, key), (7, 0x1234)]);
    }

    fn turns(&mut self, xy: ChipXy, core: u8) -> u32 {
        self.machine.stop(xy, core);
        let turns = self.machine.cpu(xy, core).expect("a core").register(6);
        self.machine.resume(xy, core);
        turns
    }

    /// Nanoseconds for each of the turns that some cores of a chip make together, in the steady state.
    pub fn ns_per_turn(&mut self, xy: ChipXy, cores: Range<u8>, ns: u64) -> f64 {
        self.machine.run_for(ns / 4);
        let all = |bare: &mut Self| cores.clone().map(|core| u64::from(bare.turns(xy, core))).sum::<u64>();
        let before = all(self);
        self.machine.run_for(ns);
        ns as f64 / (all(self) - before) as f64
    }

    /// Packets that a core has taken.
    pub fn taken(&mut self, xy: ChipXy, core: u8) -> u64 {
        let snapshot = self.machine.snapshot();
        let chip = snapshot.chips.iter().find(|chip| chip.place == xy).expect("a chip");
        chip.cores[usize::from(core)].packets[1]
    }

    /// Packets that a chip's router has taken and dropped.
    pub fn routed(&mut self, xy: ChipXy) -> [u64; 2] {
        let snapshot = self.machine.snapshot();
        snapshot.chips.iter().find(|chip| chip.place == xy).expect("a chip").routed
    }
}
