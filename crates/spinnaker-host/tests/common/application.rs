//! An application of few instructions, and the same as a native program.
//!
//! It waits for SYNC0 and SYNC1 in turn and counts them in user 1; or it stops with a run-time error.

use std::rc::Rc;

use spinnaker_sim::Program;
use spinnaker_sim::monitor::{Application, Place, Programs};
use spinnaker_wire::aplx;

/// The error that the second kind stops with: registers r0 to r2.
pub const ERROR: [u32; 3] = [0x0BAD_F00D, 7, 9];
/// Where the instructions have the word that is zero, or the error.
const ERROR_AT: usize = 43;

/// Assembled by `arm-none-eabi-as` (ARMv5TE).
const CODE: [u32; 45] = [
    0xE3A0_1151, // 0: mov r1, #1073741844
    0xE591_1000, // 4: ldr r1, [r1]
    0xE1A0_1C21, // 8: lsr r1, r1, #24
    0xE59F_2090, // c: ldr r2, [pc, #144]
    0xE7D2_1001, // 10: ldrb r1, [r2, r1]
    0xE59F_408C, // 14: ldr r4, [pc, #140]
    0xE084_4381, // 18: add r4, r4, r1, lsl #7
    0xE3A0_5001, // 1c: mov r5, #1
    0xE1A0_5115, // 20: lsl r5, r5, r1
    0xE594_007C, // 24: ldr r0, [r4, #124]
    0xE584_0058, // 28: str r0, [r4, #88]
    0xE59F_2078, // 2c: ldr r2, [pc, #120]
    0xE352_0000, // 30: cmp r2, #0
    0x1A00_0010, // 34: bne 7c <fails>
    0xE3A0_7000, // 38: mov r7, #0
    0xE59F_606C, // 3c: ldr r6, [pc, #108]
    0xE584_7074, // 40: str r7, [r4, #116]
    0xE3A0_0008, // 44: mov r0, #8
    0xE5C4_002E, // 48: strb r0, [r4, #46]
    0xE596_0000, // 4c: ldr r0, [r6]
    0xE110_0005, // 50: tst r0, r5
    0x1AFF_FFFC, // 54: bne 4c <zero>
    0xE287_7001, // 58: add r7, r7, #1
    0xE584_7074, // 5c: str r7, [r4, #116]
    0xE3A0_0009, // 60: mov r0, #9
    0xE5C4_002E, // 64: strb r0, [r4, #46]
    0xE596_0000, // 68: ldr r0, [r6]
    0xE110_0005, // 6c: tst r0, r5
    0x0AFF_FFFC, // 70: beq 68 <one>
    0xE287_7001, // 74: add r7, r7, #1
    0xEAFF_FFF0, // 78: b 40 <again>
    0xE584_2000, // 7c: str r2, [r4]
    0xE3A0_0007, // 80: mov r0, #7
    0xE584_0004, // 84: str r0, [r4, #4]
    0xE3A0_0009, // 88: mov r0, #9
    0xE584_0008, // 8c: str r0, [r4, #8]
    0xE3A0_000D, // 90: mov r0, #13
    0xE5C4_002C, // 94: strb r0, [r4, #44]
    0xE3A0_0002, // 98: mov r0, #2
    0xE5C4_002E, // 9c: strb r0, [r4, #46]
    0xEAFF_FFFE, // a0: b a0 <stay>
    0xF500_7F94, // a4: .word 0xf5007f94
    0xE500_7000, // a8: .word 0xe5007000
    0,           // ac: .word 0x0badf00d
    0xF200_0058, // b0: .word 0xf2000058
];

/// Its file; `error`: of the kind that stops.
pub fn file(error: bool) -> Vec<u8> {
    let mut code = CODE;
    code[ERROR_AT] = if error { ERROR[0] } else { 0 };
    let mut file = vec![0; aplx::HEADER_BYTES];
    aplx::emit_header(code.len() as u32 * 4, 0, 0, &mut file).expect("a header");
    file.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    file
}

/// What a core has written, as the official kernel keeps it: the instructions above write no text themselves, but show the
/// block that user 3 points to.
pub fn text(core: u8) -> String {
    format!("core {core}\n")
}

/// Knows the application.
pub struct Known;

struct Native {
    error: bool,
}

impl Programs for Known {
    fn application(&self, found: &[u8]) -> Result<Rc<dyn Application>, String> {
        let kinds = [false, true].into_iter().find(|error| found.starts_with(&file(*error)));
        kinds.map(|error| Rc::new(Native { error }) as Rc<dyn Application>).ok_or("not the application".to_string())
    }
}

impl Application for Native {
    fn name(&self) -> &str {
        "count"
    }

    fn version(&self) -> u32 {
        0x0001_0000
    }

    fn title(&self) -> &[u8] {
        b"Count/SpiNNaker\0"
    }

    fn program(&self, place: &mut Place<'_>) -> Program {
        let (core, error) = (place.core, self.error);
        Box::new(move |handle| {
            Box::pin(async move {
                handle.log(text(core).trim_end());
                if error {
                    handle.fail(ERROR[0], [ERROR[1], ERROR[2]]);
                }
                for starts in 1.. {
                    while !handle.wait_start().await {}
                    handle.show(1, starts);
                }
            })
        })
    }
}
