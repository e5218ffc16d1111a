//! Whatever is executed: no panic, no endless call.

use crate::bench::{BUS_START, Memory};
use proptest::collection::vec;
use proptest::prelude::*;
use spinnaker_sim::arm968::{Cpu, DTCM_START, Exit};

/// Words that are code more often than noise would be.
fn code_word() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        any::<u32>().prop_map(|word| word & 0x0fff_ffff | 0xe000_0000),
        any::<u32>().prop_map(|word| {
            // Small constants and registers near the vectors.
            word & 0x0f0f_f00f | 0xe000_0000
        })
    ]
}

/// Addresses near the edges of everything.
fn register() -> impl Strategy<Value = u32> {
    let edges = vec![0, 0x8000, DTCM_START, DTCM_START + 0x1_0000, 0x0080_0000, BUS_START, BUS_START + 0x1_0000, 0x200];
    prop_oneof![
        any::<u32>(),
        (prop::sample::select(edges), -64i32..64).prop_map(|(edge, off)| edge.wrapping_add_signed(off))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_words_as_code_never_panic_or_run_away(
        code in vec(code_word(), 64),
        registers in vec(register(), 15),
        cpsr in any::<u32>(),
        control in any::<u32>(),
        start in 0u32..0x100,
        lines in vec(any::<(bool, bool)>(), 20),
    ) {
        let mut cpu = Cpu::new();
        let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        cpu.write_tcm(0, &bytes).expect("code fits");
        cpu.write_tcm(0x7f00, &bytes).expect("code fits");
        cpu.set_control(control);
        cpu.set_cpsr(cpsr);
        for (index, value) in registers.into_iter().enumerate() {
            cpu.set_register(index, value);
        }
        cpu.set_pc(start);
        let mut bus = Memory { read_wait: 3, write_wait: 1, ..Memory::default() };
        for (irq, fiq) in lines {
            cpu.set_lines(irq, fiq);
            let until = cpu.cycles() + 500;
            match cpu.run(&mut bus, until) {
                Exit::WaitForInterrupt => cpu.set_lines(true, true),
                Exit::Until => prop_assert!(cpu.cycles() >= until),
                exit => prop_assert!(false, "{exit:?}"),
            }
            // A block may pass the end by its own length.
            prop_assert!(cpu.cycles() < until + 64 * 200);
        }
    }
}
