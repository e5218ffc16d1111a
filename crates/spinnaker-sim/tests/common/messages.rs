//! Cores that send each other messages by the monitors' mailboxes, as official libraries do, on a booted machine.
#![allow(dead_code)]

use spinnaker_machine::ChipXy;
use spinnaker_sim::cycle::CycleMachine;

/// Sends the message at `r7`, waits for a packet, and so on. `r4`: communications controller, `r5`: system variables, `r8`:
/// system controller, `r9`: the core's block, `r10`: the word that interrupts the monitor, `r11`: the core's bit.
const SEND: [u32; 35] = [
    0xE598_0100, // loop:  ldr   r0, [r8, #0x100]  lock 0: message buffers
    0xE350_0000, //        cmp   r0, #0
    0x4AFF_FFFC, //        bmi   loop
    0xE595_1068, //        ldr   r1, [r5, #0x68]   the first that is free
    0xE591_2000, //        ldr   r2, [r1]
    0xE585_2068, //        str   r2, [r5, #0x68]
    0xE1D5_26BC, //        ldrh  r2, [r5, #0x6c]
    0xE282_2001, //        add   r2, r2, #1
    0xE1C5_26BC, //        strh  r2, [r5, #0x6c]
    0xE598_0180, //        ldr   r0, [r8, #0x180]  unlock
    0xE281_3004, //        add   r3, r1, #4
    0xE3A0_0000, //        mov   r0, #0
    0xE797_2000, // copy:  ldr   r2, [r7, r0]
    0xE783_2000, //        str   r2, [r3, r0]
    0xE280_0004, //        add   r0, r0, #4
    0xE350_0F47, //        cmp   r0, #284
    0x1AFF_FFFA, //        bne   copy
    0xE589_1034, //        str   r1, [r9, #0x34]   to the monitor: a message
    0xE3A0_2001, //        mov   r2, #1
    0xE5C9_2039, //        strb  r2, [r9, #0x39]
    0xE598_0104, // flags: ldr   r0, [r8, #0x104]  lock 1: mailbox flags
    0xE350_0000, //        cmp   r0, #0
    0x4AFF_FFFC, //        bmi   flags
    0xE595_20EC, //        ldr   r2, [r5, #0xec]
    0xE182_300B, //        orr   r3, r2, r11
    0xE585_30EC, //        str   r3, [r5, #0xec]
    0xE598_0184, //        ldr   r0, [r8, #0x184]  unlock
    0xE352_0000, //        cmp   r2, #0
    0x0588_A008, //        streq r10, [r8, #8]     interrupts the monitor
    0xE594_100C, // wait:  ldr   r1, [r4, #12]     until the answer comes
    0xE351_0000, //        cmp   r1, #0
    0x5AFF_FFFC, //        bpl   wait
    0xE594_1014, //        ldr   r1, [r4, #20]
    0xE286_6001, //        add   r6, r6, #1
    0xEAFF_FFDC, //        b     loop
];

/// Copies each message that comes to `r7`, gives its buffer back and sends a packet. As before, but `r10`: the word that
/// takes the core's interrupt back, `r11`: the packet's key.
const RECEIVE: [u32; 26] = [
    0xE5D9_0038, // loop:  ldrb  r0, [r9, #0x38]   until there is a message
    0xE350_0001, //        cmp   r0, #1
    0x1AFF_FFFC, //        bne   loop
    0xE599_1030, //        ldr   r1, [r9, #0x30]
    0xE3A0_0000, //        mov   r0, #0
    0xE5C9_0038, //        strb  r0, [r9, #0x38]
    0xE588_A00C, //        str   r10, [r8, #12]    the interrupt is seen
    0xE281_3004, //        add   r3, r1, #4
    0xE793_2000, // copy:  ldr   r2, [r3, r0]
    0xE787_2000, //        str   r2, [r7, r0]
    0xE280_0004, //        add   r0, r0, #4
    0xE350_0F47, //        cmp   r0, #284
    0x1AFF_FFFA, //        bne   copy
    0xE598_0100, // put:   ldr   r0, [r8, #0x100]  lock 0: the buffer goes back
    0xE350_0000, //        cmp   r0, #0
    0x4AFF_FFFC, //        bmi   put
    0xE595_2068, //        ldr   r2, [r5, #0x68]
    0xE581_2000, //        str   r2, [r1]
    0xE585_1068, //        str   r1, [r5, #0x68]
    0xE1D5_26BC, //        ldrh  r2, [r5, #0x6c]
    0xE242_2001, //        sub   r2, r2, #1
    0xE1C5_26BC, //        strh  r2, [r5, #0x6c]
    0xE598_0180, //        ldr   r0, [r8, #0x180]  unlock
    0xE584_B008, //        str   r11, [r4, #8]     the answer
    0xE286_6001, //        add   r6, r6, #1
    0xEAFF_FFE5, //        b     loop
];

const PROGRAM: u32 = 0x100;
const MESSAGE: u32 = 0x0040_0000;
const KEY: u32 = 0x0077_0000;
const ROUTER: u32 = 0xF100_0000;
/// Entry of the multicast table, above what the monitor uses.
const ENTRY: u32 = 1000;

/// Has core 1 of a chip send messages of 256 bytes, with a header of SCP, to core 1 of the chip at the end of a link, which answers
/// each with a packet. Nanoseconds for each, over some.
pub fn ns_per_message(machine: &mut CycleMachine, from: ChipXy, to: ChipXy, back: u32) -> f64 {
    const MESSAGES: u32 = 50;
    let [sender, receiver] = [from, to].map(|xy| machine.physical(xy, 1).expect("a core"));
    for (xy, core, route) in [(to, receiver, 1 << back), (from, sender, 1 << (6 + sender))] {
        for (register, value) in [(0x4000, route), (0x8000, KEY), (0xC000, u32::MAX)] {
            assert!(machine.alter(xy, core, ROUTER + register + 4 * ENTRY, &u32::to_le_bytes(value)));
        }
    }
    let monitor = machine.physical(from, 0).expect("a core");
    let mut message = vec![24, 1, 0, 0, 0x07, 0xFF, 0x21, 0x21, to.y, to.x, from.y, from.x];
    message.resize(284, 0x5A);
    start(machine, to, receiver, &RECEIVE, &[(10, 0x5EC0_0000 | 1 << receiver), (11, KEY)]);
    start(machine, from, sender, &SEND, &[(10, 0x5EC0_0000 | 1 << monitor), (11, 1 << 1)]);
    machine.cpu(from, sender).expect("a core").write_tcm(MESSAGE, &message).expect("room");
    let mut until = |count: u32| {
        for _ in 0..1_000_000 {
            if machine.cpu(from, sender).expect("a core").register(6) >= count {
                return machine.now_ns();
            }
            machine.run_for(1_000);
        }
        panic!("fewer than {count} messages were answered");
    };
    let begin = until(5);
    let ns = (until(5 + MESSAGES) - begin) as f64 / f64::from(MESSAGES);
    let mut copy = vec![0; message.len()];
    machine.cpu(to, receiver).expect("a core").read_tcm(MESSAGE, &mut copy).expect("memory");
    assert_eq!((&copy[..2], &copy[12..]), (&message[..2], &message[12..]), "what was sent has come");
    ns
}

fn start(machine: &mut CycleMachine, xy: ChipXy, core: u8, program: &[u32], registers: &[(usize, u32)]) {
    assert!(machine.start(xy, core, PROGRAM), "a core that works");
    let cpu = machine.cpu(xy, core).expect("a core");
    let code: Vec<u8> = program.iter().flat_map(|word| word.to_le_bytes()).collect();
    cpu.write_tcm(PROGRAM, &code).expect("room");
    let common = [(4, 0x1000_0000), (5, 0xE500_7F00), (6, 0), (7, MESSAGE), (8, 0xF200_0000), (9, 0xE500_7080)];
    for &(register, value) in common.iter().chain(registers) {
        cpu.set_register(register, value);
    }
}
