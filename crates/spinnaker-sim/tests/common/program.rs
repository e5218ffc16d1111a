//! A small program that a boot ROM starts instead of a monitor.
#![allow(dead_code)]

/// Where it counts, in data memory.
pub const COUNT_AT: u32 = 0x0040_0000;
/// Its loop, and the function that the loop calls.
pub const LOOP: u32 = 0x28;
pub const FUNCTION: u32 = 0x40;

/// Counts in r0 and at [`COUNT_AT`], and calls a function each time.
pub fn counting() -> Vec<u8> {
    let mut words = vec![0xEAFF_FFFE; 256];
    words[0] = 0xEA00_0006; // b 0x20
    words[8] = 0xE3A0_0000; // mov r0, #0
    words[9] = 0xE3A0_4501; // mov r4, #0x00400000
    words[10] = 0xE280_0001; // loop: add r0, r0, #1
    words[11] = 0xE584_0000; // str r0, [r4]
    words[12] = 0xEB00_0002; // bl function
    words[13] = 0xEAFF_FFFB; // b loop
    words[16] = 0xE080_1000; // function: add r1, r0, r0
    words[17] = 0xE12F_FF1E; // bx lr
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}
