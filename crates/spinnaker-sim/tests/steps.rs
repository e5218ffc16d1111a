//! In how many steps a caller lets time pass, and on how many threads, is nothing that the machine notices: same trace, same
//! datagrams at the same times.

mod common;

use common::bare::*;
use common::{MS, boot, boot_image, datagram, patch, scp};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};

/// Takes what others have left in a word and leaves its own: what it sums up depends on who is when. `r4`: the word, `r5`: its own.
const EXCHANGE: [u32; 4] = [
    0xE594_1000, // loop: ldr r1, [r4]
    0xE086_6001, //       add r6, r6, r1
    0xE584_5000, //       str r5, [r4]
    0xEAFF_FFFB, //       b   loop
];
const SHARED: u32 = 0xF500_0000;

/// Steps of sizes that look random, nanoseconds, that sum up to `sum`.
fn steps(seed: u64, sum: u64) -> Vec<u64> {
    const SIZES: [u64; 6] = [1, 40, 700, 3_000, 90_000, 2_000_000];
    let (mut state, mut left, mut steps) = (seed, sum, Vec::new());
    while left > 0 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let size = SIZES[(state >> 33) as usize % SIZES.len()];
        let step = (1 + (state >> 40) % size).min(left);
        steps.push(step);
        left -= step;
    }
    steps
}

/// Cores that share a word, and some that send and answer packets: the trace after these steps, and what the cores have summed up.
fn run_bare(threads: usize, steps: &[u64]) -> (u64, Vec<u32>) {
    let (a, b) = (ChipXy::new(0, 0), ChipXy::new(1, 0));
    // East from a to core 2 of b; west from b to core 2 of a.
    let entries = [(a, 1, 1 << 0), (b, 1, 1 << 8), (b, 2, 1 << 3), (a, 2, 1 << 8)];
    let config = CycleConfig { threads, hand_off_cores: 1, ..CycleConfig::default() };
    let mut bare = Bare::with_config(&Machine::spin3(), &entries, &config);
    for xy in [a, b] {
        for core in 3..9 {
            bare.start(xy, core, &[], &EXCHANGE, &[(4, SHARED), (5, 1 << core)]);
        }
    }
    bare.sender(a, 2, &PING, 1);
    bare.sender(b, 2, &PONG, 2);
    for &step in steps {
        bare.machine.run_for(step);
    }
    let trace = bare.machine.trace_hash();
    let cores = [a, b].into_iter().flat_map(|xy| (2..9).map(move |core| (xy, core)));
    let sums = cores.filter_map(|(xy, core)| Some(bare.machine.cpu(xy, core)?.register(6))).collect();
    (trace, sums)
}

#[test]
fn bare_programs_run_the_same_in_steps_of_any_size() {
    const SUM: u64 = 5 * MS;
    let whole = run_bare(1, &[SUM]);
    assert!(whole.1.iter().all(|&sum| sum > 100), "{:?}", whole.1);
    for (threads, steps) in [(1, steps(1, SUM)), (1, vec![1_000; 5_000]), (2, steps(2, SUM)), (2, vec![SUM])] {
        assert_eq!(run_bare(threads, &steps), whole, "{threads} threads, {} steps", steps.len());
    }
}

/// A SpiNN-3 that boots and is asked something each 50 ms: its trace, and what came out.
fn run_booted(image: &[u8], threads: usize, seed: Option<u64>) -> (u64, Vec<(u64, Vec<u8>)>) {
    let mut machine = CycleMachine::new(&Machine::spin3(), &CycleConfig { threads, ..CycleConfig::default() });
    boot(&mut machine, image);
    let mut replies = Vec::new();
    for number in 0..14 {
        let chip = ChipXy::new(number & 1, number >> 1 & 1);
        let request = datagram(&machine, 17893, scp(chip, 0, 2, [0x6000_0000, 64, 2], &[]));
        machine.send(&request);
        let steps = seed.map_or(vec![50 * MS], |seed| steps(seed + u64::from(number), 50 * MS));
        for step in steps {
            machine.run_for(step);
            while let Some(reply) = machine.receive() {
                assert!(reply.time_ns <= machine.now_ns(), "it is not out yet");
                replies.push((reply.time_ns, reply.data));
            }
        }
    }
    (machine.trace_hash(), replies)
}

#[test]
fn a_board_boots_and_answers_the_same_in_steps_of_any_size() {
    let Some(mut image) = boot_image() else {
        println!("not run: no SC&MP boot image (SPINNAKER_BOOT_IMAGE)");
        return;
    };
    patch(&mut image, 3, 0x502);
    let whole = run_booted(&image, 1, None);
    assert!(whole.1.len() >= 10, "{} replies", whole.1.len());
    for (threads, seed) in [(1, Some(5)), (2, Some(6))] {
        assert_eq!(run_booted(&image, threads, seed), whole, "{threads} threads");
    }
}
