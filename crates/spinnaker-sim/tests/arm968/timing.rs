//! Cycles against the tables.

use crate::bench::{Memory, cpu, halves, words};

/// SARK's delay: a Thumb subtraction and a taken branch take four cycles a turn.
#[test]
fn a_delay_loop_takes_four_cycles_a_turn() {
    let turns = 1000;
    for (code, thumb) in [(halves(&[0x3801, 0xd1fd]), true), (words(&[0xe250_0001, 0x1aff_fffd]), false)] {
        let mut cpu = cpu(0x100, &code, thumb);
        cpu.set_register(0, turns);
        cpu.run(&mut Memory::default(), u64::from(turns) * 4 - 2);
        assert_eq!(cpu.cycles(), u64::from(turns) * 4 - 2);
        assert_eq!(cpu.pc(), 0x100 + code.len() as u32);
        assert_eq!(cpu.instructions(), u64::from(turns) * 2);
    }
}
