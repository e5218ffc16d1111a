//! Waiting: for interrupts, in counted delays and in polls, as if every turn had been made.

use crate::bench::{Memory, WAIT, WAIT_CYCLES, cpu, halves, words};
use spinnaker_sim::arm968::{Access, Bus, BusError, Cpu, DTCM_START, Exit, Mode, Size};

const START: u32 = 0x200;

#[test]
fn a_wait_ends_with_a_masked_interrupt_and_is_left_for_one_that_is_allowed() {
    for masked in [true, false] {
        let mut cpu = cpu(START, &words(&[WAIT, 0xe3a0_0007, 0xeaff_fffe]), false);
        cpu.set_cpsr(if masked { 0xdf } else { 0x1f });
        cpu.write_tcm(0x18, &words(&[0xeaff_fffe])).expect("vector fits");
        let mut bus = Memory::default();
        assert_eq!(cpu.run(&mut bus, 100), Exit::WaitForInterrupt);
        assert_eq!((cpu.cycles(), cpu.is_waiting(), cpu.quiet_until()), (WAIT_CYCLES, true, u64::MAX));
        assert_eq!(cpu.run(&mut bus, 100), Exit::WaitForInterrupt);
        cpu.set_cycles(1000);
        cpu.set_lines(true, false);
        assert_eq!(cpu.run(&mut bus, 1001), Exit::Until);
        if masked {
            assert_eq!((cpu.register(0), cpu.mode()), (7, Mode::System));
        } else {
            assert_eq!((cpu.register(14), cpu.mode(), cpu.pc()), (START + 8, Mode::Irq, 0x18));
        }
    }
}

/// Registers, flags, clock and instruction count.
fn state(cpu: &Cpu) -> (Vec<u32>, u32, u64, u64) {
    ((0..16).map(|register| cpu.register(register)).collect(), cpu.cpsr(), cpu.cycles(), cpu.instructions())
}

/// Counted loops in all forms that are known and some that are not, with starts around the limits: at once in runs of some
/// length, and turn by turn.
#[test]
fn counted_delays_end_as_if_counted() {
    let mut loops: Vec<(Vec<u8>, bool)> = Vec::new();
    for step in [1, 2, 3, 0x80] {
        for condition in [0u32, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13] {
            // SUBS r0, r0, #step; Bcc back; wait.
            loops.push((words(&[0xe250_0000 | step, condition << 28 | 0x0aff_fffd, WAIT]), false));
        }
    }
    loops.push((words(&[0xe1a0_0000, 0xe250_0001, 0xe1a0_1001, 0x1aff_fffb, WAIT]), false));
    loops.push((halves(&[0x3801, 0xd1fd, 0x4778, 0x46c0, WAIT as u16, (WAIT >> 16) as u16]), true));
    for (code, thumb) in loops {
        for count in [0u32, 1, 2, 3, 7, 200, 0x7fff_ffff, 0x8000_0000, 0x8000_0005, 0xffff_ffff] {
            let mut bus = Memory::default();
            let prepare = || {
                let mut cpu = cpu(START, &code, thumb);
                cpu.set_register(0, count);
                cpu
            };
            let mut stepped = prepare();
            let mut run = prepare();
            for until in [10, 11, 57, 300, 1000] {
                run.run(&mut bus, until);
                while stepped.instructions() < run.instructions() {
                    stepped.step(&mut bus);
                }
                assert_eq!(state(&run), state(&stepped), "{code:02x?} from {count:x} until {until}");
                assert!(run.cycles() >= until || run.is_waiting());
            }
        }
    }
}

#[test]
fn a_delay_of_a_second_takes_no_time_and_tells_its_end() {
    let mut cpu = cpu(START, &words(&[0xe250_0001, 0x1aff_fffd, WAIT]), false);
    cpu.set_register(0, 50_000_000);
    assert_eq!(cpu.run(&mut Memory::default(), 100), Exit::Until);
    let end = cpu.quiet_until();
    assert!((199_999_000..=200_000_000).contains(&end), "{end}");
    assert_eq!(cpu.run(&mut Memory::default(), 300_000_000), Exit::WaitForInterrupt);
    assert_eq!(cpu.cycles() - WAIT_CYCLES, 50_000_000 * 4 - 2);
}

/// A device register that becomes 1 at some cycle.
struct Device {
    ready_at: u64,
    /// Whether it tells that it is quiet until then.
    tells: bool,
    reads: u64,
    attention: bool,
}

const DEVICE: u32 = 0x1000_0000;

impl Bus for Device {
    fn read(&mut self, address: u32, _size: Size, at: u64) -> Result<Access, BusError> {
        assert_eq!(address, DEVICE);
        self.reads += 1;
        Ok(Access { value: u32::from(at >= self.ready_at), wait: 5 })
    }

    fn write(&mut self, _address: u32, _size: Size, _value: u32, _at: u64) -> Result<u32, BusError> {
        self.attention = true;
        Ok(0)
    }

    fn fetch(&mut self, _address: u32, _at: u64) -> Result<Access, BusError> {
        Err(BusError)
    }

    fn attention(&mut self) -> bool {
        std::mem::take(&mut self.attention)
    }

    fn quiet_until(&mut self, _address: u32, _size: Size, at: u64) -> u64 {
        if self.tells { self.ready_at } else { at }
    }
}

#[test]
fn a_poll_that_sleeps_ends_as_one_that_does_not() {
    // LDR r0, [r1]; TST r0, #1; BEQ back; wait. The same in Thumb with CMP, and with the literal loaded every time.
    let codes = [
        (words(&[0xe591_0000, 0xe310_0001, 0x0aff_fffc, WAIT]), false),
        (halves(&[0x6808, 0x2800, 0xd0fc, 0x46c0, 0x4778, 0x46c0, WAIT as u16, (WAIT >> 16) as u16]), true),
        (words(&[0xe59f_1008, 0xe591_0000, 0xe310_0001, 0x0aff_fffb, DEVICE, WAIT]), false),
    ];
    for (code, thumb) in codes {
        for ready_at in [3, 100, 1001, 5000] {
            let run = |tells, quantum: u64| {
                let mut cpu = cpu(START, &code, thumb);
                cpu.set_register(1, DEVICE);
                let mut device = Device { ready_at, tells, reads: 0, attention: false };
                while cpu.cycles() < ready_at {
                    let until = cpu.cycles() + quantum;
                    cpu.run(&mut device, until);
                }
                let until = cpu.cycles() + 40;
                cpu.run(&mut device, until);
                (state(&cpu), device.reads)
            };
            let (expected, turns) = run(false, 1);
            for quantum in [1, 50, 400] {
                assert_eq!(run(false, quantum).0.0, expected.0);
                let (slept, reads) = run(true, quantum);
                assert_eq!(slept.0, expected.0, "{code:02x?} until {ready_at} by {quantum}");
                assert!(quantum < 400 || ready_at < 1000 || reads < turns / 8, "{reads} reads instead of {turns}");
            }
            // In one run, the clock is the same, too.
            let whole = |tells| {
                let mut cpu = cpu(START, &code, thumb);
                cpu.set_register(1, DEVICE);
                let mut device = Device { ready_at, tells, reads: 0, attention: false };
                cpu.run(&mut device, 6000);
                state(&cpu)
            };
            assert_eq!(whole(true), whole(false));
        }
    }
}

#[test]
fn a_poll_of_tightly_coupled_memory_sleeps_until_somebody_writes_there() {
    let code = words(&[0xe591_0000, 0xe310_0001, 0x0aff_fffc, WAIT]);
    let mut cpu = cpu(START, &code, false);
    cpu.set_register(1, DTCM_START);
    let mut bus = Memory::default();
    assert_eq!(cpu.run(&mut bus, 1_000_000_000_000), Exit::Until);
    assert_eq!(cpu.quiet_until(), u64::MAX);
    cpu.write_tcm(DTCM_START, &[1]).expect("data fits");
    let until = cpu.cycles() + 20;
    assert_eq!(cpu.run(&mut bus, until), Exit::WaitForInterrupt);
}

#[test]
fn a_loop_that_reads_what_it_changes_is_no_poll() {
    // LDRB r0, [r1], #1; CMP r0, #0; BNE back: the length of a string.
    let mut cpu = cpu(START, &words(&[0xe4d1_0001, 0xe350_0000, 0x1aff_fffc, WAIT]), false);
    cpu.write_tcm(DTCM_START, b"a string\0").expect("data fits");
    cpu.set_register(1, DTCM_START);
    cpu.run(&mut Memory::default(), 1000);
    assert_eq!(cpu.register(1), DTCM_START + 9);
}

#[test]
fn attention_returns_after_the_instruction_that_drew_it() {
    // STR r0, [r1] in the middle of a block.
    let mut cpu = cpu(START, &words(&[0xe1a0_0000, 0xe581_0000, 0xe1a0_0000, 0xeaff_fffe]), false);
    cpu.set_register(1, DEVICE);
    let mut device = Device { ready_at: 0, tells: false, reads: 0, attention: false };
    assert_eq!(cpu.run(&mut device, 1000), Exit::Attention);
    assert_eq!((cpu.pc(), cpu.instructions(), cpu.cycles()), (START + 8, 2, 2));
    assert_eq!(cpu.run(&mut device, 1000), Exit::Until);
}

#[test]
fn what_is_late_is_so_after_attention() {
    // LDRB r2, [r3] is two cycles late; STR r0, [r1] takes one of them; ADD r4, r2, #1 waits for the other.
    let code = words(&[0xe5d3_2000, 0xe581_0000, 0xe282_4001, WAIT]);
    let run = |watched: bool| {
        let mut cpu = cpu(START, &code, false);
        cpu.set_register(1, DEVICE);
        cpu.set_register(3, DTCM_START);
        cpu.set_profile(watched);
        let mut device = Device { ready_at: 0, tells: false, reads: 0, attention: false };
        assert_eq!(cpu.run(&mut device, 1000), Exit::Attention);
        assert_eq!((cpu.pc(), cpu.cycles()), (START + 8, 2));
        assert_eq!(cpu.run(&mut device, 1000), Exit::WaitForInterrupt);
        cpu.cycles()
    };
    assert_eq!(run(false), 4 + WAIT_CYCLES);
    assert_eq!(run(true), 4 + WAIT_CYCLES);
}

#[test]
fn an_endless_loop_until_the_end_of_time_returns() {
    // B to itself; SUBS r0, r0, #1; BNE back.
    for code in [vec![0xeaff_fffe], vec![0xe250_0001, 0x1aff_fffd, WAIT]] {
        let mut cpu = cpu(START, &words(&code), false);
        cpu.run(&mut Memory::default(), u64::MAX);
        assert!(cpu.cycles() >= 1 << 34);
    }
}
