//! Kernels of neuron models whose cycles were measured on SpiNNaker with a timer: measurements.md section 2.

use crate::bench::{Memory, WAIT_CYCLES, cpu, words};
use spinnaker_sim::arm968::{Cpu, DTCM_START, Exit};

/// A leaky integrate-and-fire neuron and what it calls when the refractory time runs or the threshold is reached.
#[rustfmt::skip]
const LIF: &[u32] = &[
    0xe5940000, // ldr r0, [r4]
    0xe5941004, // ldr r1, [r4, #4]
    0xe5942008, // ldr r2, [r4, #8]
    0xe0803001, // add r3, r0, r1
    0xe3520000, // cmp r2, #0
    0xe1273880, // smlawb r7, r0, r8, r3
    0xe129a881, // smlawb r9, r1, r8, sl
    0xe12c98c7, // smlawt ip, r7, r8, r9
    0xe5849004, // str r9, [r4, #4]
    0xb05c500b, // subslt r5, ip, fp
    0xab000001, // blge spike
    0xe584c000, // str ip, [r4]
    0xee076f90, // mcr 15, 0, r6, cr7, cr0, {4}
    0xe3520000, // cmp r2, #0
    0x03a0c000, // moveq ip, #0
    0xc2422001, // subgt r2, r2, #1
    0xa12fff1e, // bxge lr
    0xe3a0c000, // mov ip, #0
    0xe5842008, // str r2, [r4, #8]
    0xe12fff1e, // bx lr
];

/// Clears 256 words.
#[rustfmt::skip]
const CLEAR: &[u32] = &[
    0xeb000000, // bl clear+0x8
    0xee076f90, // mcr 15, 0, r6, cr7, cr0, {4}
    0xe3a03000, // mov r3, #0
    0xe3a05000, // mov r5, #0
    0xe3a07000, // mov r7, #0
    0xe3a08000, // mov r8, #0
    0xe3a09000, // mov r9, #0
    0xe3a01000, // mov r1, #0
    0xe3a0200f, // mov r2, #15
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe4841004, // str r1, [r4], #4
    0xe2522001, // subs r2, r2, #1
    0x5affffed, // bpl clear+0x24
    0xe1a0f00e, // mov pc, lr
];

/// Two synaptic events, interleaved.
#[rustfmt::skip]
const SYNAPSE: &[u32] = &[
    0xe4940004, // ldr r0, [r4], #4
    0xe4941004, // ldr r1, [r4], #4
    0xe08a2ba0, // add r2, sl, r0, lsr #23
    0xe08a3ba1, // add r3, sl, r1, lsr #23
    0xe1d250b0, // ldrh r5, [r2]
    0xe1d370b0, // ldrh r7, [r3]
    0xe08c8800, // add r8, ip, r0, lsl #16
    0xe08c9801, // add r9, ip, r1, lsl #16
    0xe0555828, // subs r5, r5, r8, lsr #16
    0xe0577829, // subs r7, r7, r9, lsr #16
    0xe1c250b0, // strh r5, [r2]
    0xe1c370b0, // strh r7, [r3]
    0x4bfffff2, // blmi synapse
    0xee076f90, // mcr 15, 0, r6, cr7, cr0, {4}
];

fn measure(code: &[u32], prepare: impl Fn(&mut Cpu)) -> (u64, Cpu) {
    let mut cpu = cpu(0x200, &words(code), false);
    cpu.set_register(4, DTCM_START + 0x100);
    prepare(&mut cpu);
    assert_eq!(cpu.run(&mut Memory::default(), 10_000), Exit::WaitForInterrupt);
    (cpu.cycles() - WAIT_CYCLES, cpu)
}

/// Cycles of a neuron update with a refractory time and a threshold.
fn neuron(refractory: i32, threshold: u32) -> u64 {
    let prepare = |cpu: &mut Cpu| {
        cpu.write_tcm(DTCM_START + 0x108, &refractory.to_le_bytes()).expect("data fits");
        cpu.set_register(11, threshold);
    };
    measure(LIF, prepare).0
}

#[test]
fn a_neuron_below_the_threshold_takes_12_cycles() {
    assert_eq!(neuron(-1, 100), 12);
}

#[test]
fn a_refractory_neuron_takes_20_cycles() {
    assert_eq!(neuron(5, 100), 20);
}

#[test]
fn a_spike_takes_23_cycles() {
    assert_eq!(neuron(-1, 0), 23);
}

#[test]
fn clearing_256_words_takes_331_cycles() {
    let fill = |cpu: &mut Cpu| cpu.dtcm_mut().fill(0xff);
    let (cycles, cpu) = measure(CLEAR, fill);
    assert_eq!(cycles, 331);
    assert!(cpu.dtcm()[0x100..0x500].iter().all(|&byte| byte == 0));
    assert_eq!((cpu.dtcm()[0xff], cpu.dtcm()[0x500]), (0xff, 0xff));
}

#[test]
fn two_synaptic_events_take_13_cycles() {
    let prepare = |cpu: &mut Cpu| {
        cpu.write_tcm(DTCM_START + 0x100, &words(&[4 << 23 | 1, 8 << 23 | 2])).expect("data fits");
        cpu.write_tcm(DTCM_START + 0x200, &words(&[9, 9, 9])).expect("data fits");
        cpu.set_register(10, DTCM_START + 0x200);
    };
    let (cycles, cpu) = measure(SYNAPSE, prepare);
    assert_eq!(cycles, 13);
    assert_eq!((cpu.dtcm()[0x204], cpu.dtcm()[0x208]), (8, 7));
}
