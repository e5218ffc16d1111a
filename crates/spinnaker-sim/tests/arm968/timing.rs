//! Cycles against the tables.

use crate::bench::{Memory, WAIT, cpu, halves, run_to_wait, words};

/// SARK's delay: a subtraction and a taken branch take four cycles a turn; the last branch is not taken.
#[test]
fn a_delay_loop_takes_four_cycles_a_turn() {
    let turns = 1000;
    let thumb_end = words(&[0x46c0_4778, WAIT]);
    for (mut code, thumb, end_cycles) in
        [(halves(&[0x3801, 0xd1fd]), true, 3), (words(&[0xe250_0001, 0x1aff_fffd]), false, 0)]
    {
        code.extend(if thumb { thumb_end.clone() } else { words(&[WAIT]) });
        let mut cpu = cpu(0x100, &code, thumb);
        cpu.set_register(0, turns);
        let cycles = run_to_wait(&mut cpu, &mut Memory::default());
        assert_eq!(cycles, u64::from(turns) * 4 - 2 + end_cycles);
        assert_eq!(cpu.instructions(), u64::from(turns) * 2 + if thumb { 2 } else { 1 });
        assert_eq!(cpu.register(0), 0);
        assert_eq!(cpu.cpsr() >> 28, 0b0110);
    }
}
