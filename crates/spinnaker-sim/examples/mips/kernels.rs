//! Code to measure, each as ARM words with its assembly beside it (arm-none-eabi-as -march=armv5te).

/// All of it, to be put at one address.
#[rustfmt::skip]
pub const CODE: &[u32] = &[
    // Copies r2 bytes (a multiple of 4, not 0) from r1 to r0 word by word.
    // copy:
    0xe4913004, // ldr r3, [r1], #4
    0xe4803004, // str r3, [r0], #4
    0xe2522004, // subs r2, r2, #4
    0x1afffffb, // bne copy
    0xe12fff1e, // bx lr
    // Copies r2 bytes (a multiple of 32, not 0) from r1 to r0.
    // memcpy:
    0xe92d47f0, // push {r4, r5, r6, r7, r8, r9, sl, lr}
    0xe8b107f8, // ldm r1!, {r3, r4, r5, r6, r7, r8, r9, sl}
    0xe8a007f8, // stmia r0!, {r3, r4, r5, r6, r7, r8, r9, sl}
    0xe2522020, // subs r2, r2, #32
    0x1afffffb, // bne memcpy+4
    0xe8bd87f0, // pop {r4, r5, r6, r7, r8, r9, sl, pc}
    // r2 outputs of an FIR filter with 8 taps of 16 bits: inputs from r0, taps from r1, outputs to r3 (32 bits each).
    // fir:
    0xe92d4ff0, // push {r4, r5, r6, r7, r8, r9, sl, fp, lr}
    0xe8910f00, // ldm r1, {r8, r9, sl, fp}
    0xe0d040b2, // ldrh r4, [r0], #2
    0xe1d050b0, // ldrh r5, [r0]
    0xe1d060b2, // ldrh r6, [r0, #2]
    0xe1d070b4, // ldrh r7, [r0, #4]
    0xe16c0884, // smulbb ip, r4, r8
    0xe1d040b6, // ldrh r4, [r0, #6]
    0xe10cc8c5, // smlabt ip, r5, r8, ip
    0xe1d050b8, // ldrh r5, [r0, #8]
    0xe10cc986, // smlabb ip, r6, r9, ip
    0xe1d060ba, // ldrh r6, [r0, #10]
    0xe10cc9c7, // smlabt ip, r7, r9, ip
    0xe1d070bc, // ldrh r7, [r0, #12]
    0xe10cca84, // smlabb ip, r4, sl, ip
    0xe10ccac5, // smlabt ip, r5, sl, ip
    0xe10ccb86, // smlabb ip, r6, fp, ip
    0xe10ccbc7, // smlabt ip, r7, fp, ip
    0xe2522001, // subs r2, r2, #1
    0xe483c004, // str ip, [r3], #4
    0x1affffec, // bne fir+8
    0xe8bd8ff0, // pop {r4, r5, r6, r7, r8, r9, sl, fp, pc}
    // Dot product of r2 (a multiple of 8, not 0) halves at r0 and r1, to r0.
    // dot:
    0xe92d4ff0, // push {r4, r5, r6, r7, r8, r9, sl, fp, lr}
    0xe3a0b000, // mov fp, #0
    0xe8b00078, // ldm r0!, {r3, r4, r5, r6}
    0xe8b10780, // ldm r1!, {r7, r8, r9, sl}
    0xe10bb783, // smlabb fp, r3, r7, fp
    0xe10bb7e3, // smlatt fp, r3, r7, fp
    0xe10bb884, // smlabb fp, r4, r8, fp
    0xe10bb8e4, // smlatt fp, r4, r8, fp
    0xe10bb985, // smlabb fp, r5, r9, fp
    0xe10bb9e5, // smlatt fp, r5, r9, fp
    0xe10bba86, // smlabb fp, r6, sl, fp
    0xe10bbae6, // smlatt fp, r6, sl, fp
    0xe2522008, // subs r2, r2, #8
    0x1afffff3, // bne dot+8
    0xe1a0000b, // mov r0, fp
    0xe8bd8ff0, // pop {r4, r5, r6, r7, r8, r9, sl, fp, pc}
    // Product of the single-precision numbers r0 and r1, to r0; for normal numbers whose product is one.
    // fmul:
    0xe020c001, // eor ip, r0, r1
    0xe20cc102, // and ip, ip, #-2147483648
    0xe1a02080, // lsl r2, r0, #1
    0xe1a03081, // lsl r3, r1, #1
    0xe1a02c22, // lsr r2, r2, #24
    0xe0822c23, // add r2, r2, r3, lsr #24
    0xe2422080, // sub r2, r2, #128
    0xe1a00400, // lsl r0, r0, #8
    0xe1a01401, // lsl r1, r1, #8
    0xe3800102, // orr r0, r0, #-2147483648
    0xe3811102, // orr r1, r1, #-2147483648
    0xe0803091, // umull r3, r0, r1, r0
    0xe3530000, // cmp r3, #0
    0x13800001, // orrne r0, r0, #1
    0xe3500000, // cmp r0, #0
    0x51a00080, // lslpl r0, r0, #1
    0x42822001, // addmi r2, r2, #1
    0xe20030ff, // and r3, r0, #255
    0xe1a00420, // lsr r0, r0, #8
    0xe3530080, // cmp r3, #128
    0x82800001, // addhi r0, r0, #1
    0x02003001, // andeq r3, r0, #1
    0x00800003, // addeq r0, r0, r3
    0xe0800b82, // add r0, r0, r2, lsl #23
    0xe180000c, // orr r0, r0, ip
    0xe12fff1e, // bx lr
    // r2 products of the numbers at r0 and r1, to r3.
    // fmuls:
    0xe92d40f0, // push {r4, r5, r6, r7, lr}
    0xe1a04000, // mov r4, r0
    0xe1a05001, // mov r5, r1
    0xe1a06002, // mov r6, r2
    0xe1a07003, // mov r7, r3
    0xe4940004, // ldr r0, [r4], #4
    0xe4951004, // ldr r1, [r5], #4
    0xebffffdd, // bl fmul
    0xe4870004, // str r0, [r7], #4
    0xe2566001, // subs r6, r6, #1
    0x1afffff9, // bne fmuls+14
    0xe8bd80f0, // pop {r4, r5, r6, r7, pc}
    // A mix like that of Dhrystone, r2 times: records copied by fields, a comparison of two strings at r0 and r1, a call with
    // saved registers, an array element by a scaled index, a case distinction. Work space at r3. Result in r0.
    // mix:
    0xe92d4ff0, // push {r4, r5, r6, r7, r8, r9, sl, fp, lr}
    0xe1a04000, // mov r4, r0
    0xe1a05001, // mov r5, r1
    0xe1a06002, // mov r6, r2
    0xe1a07003, // mov r7, r3
    0xe3a08000, // mov r8, #0
    0xe5970004, // ldr r0, [r7, #4]
    0xe5971008, // ldr r1, [r7, #8]
    0xe0800006, // add r0, r0, r6
    0xe587000c, // str r0, [r7, #12]
    0xe0811080, // add r1, r1, r0, lsl #1
    0xe5871010, // str r1, [r7, #16]
    0xe2062007, // and r2, r6, #7
    0xe2873020, // add r3, r7, #32
    0xe7939102, // ldr r9, [r3, r2, lsl #2]
    0xe2899003, // add r9, r9, #3
    0xe7839102, // str r9, [r3, r2, lsl #2]
    0xe1a00004, // mov r0, r4
    0xe1a01005, // mov r1, r5
    0xeb000010, // bl compare
    0xe0888000, // add r8, r8, r0
    0xe1a00009, // mov r0, r9
    0xe1a01006, // mov r1, r6
    0xeb000014, // bl classify
    0xe0888000, // add r8, r8, r0
    0xe5d72040, // ldrb r2, [r7, #64]
    0xe3520041, // cmp r2, #65
    0x03a03001, // moveq r3, #1
    0x13a03002, // movne r3, #2
    0xe0888003, // add r8, r8, r3
    0xe5c78041, // strb r8, [r7, #65]
    0xe3580801, // cmp r8, #65536
    0x82488801, // subhi r8, r8, #65536
    0xe2566001, // subs r6, r6, #1
    0x1affffe2, // bne mix+18
    0xe1a00008, // mov r0, r8
    0xe8bd8ff0, // pop {r4, r5, r6, r7, r8, r9, sl, fp, pc}
    // compare:
    0xe4d02001, // ldrb r2, [r0], #1
    0xe4d13001, // ldrb r3, [r1], #1
    0xe3520000, // cmp r2, #0
    0x0a000001, // beq compare+18
    0xe1520003, // cmp r2, r3
    0x0afffff9, // beq compare
    0xe0420003, // sub r0, r2, r3
    0xe12fff1e, // bx lr
    // classify:
    0xe92d4010, // push {r4, lr}
    0xe1a04000, // mov r4, r0
    0xe2112003, // ands r2, r1, #3
    0x0a000005, // beq classify+28
    0xe3520001, // cmp r2, #1
    0x0a000006, // beq classify+34
    0xe3520002, // cmp r2, #2
    0x02840001, // addeq r0, r4, #1
    0x12640009, // rsbne r0, r4, #9
    0xe8bd8010, // pop {r4, pc}
    0xe1a000c4, // asr r0, r4, #1
    0xe0200001, // eor r0, r0, r1
    0xe8bd8010, // pop {r4, pc}
    0xe1840001, // orr r0, r4, r1
    0xe3c000ff, // bic r0, r0, #255
    0xe8bd8010, // pop {r4, pc}
];

/// Byte offset of `copy`.
pub const COPY: u32 = 0x0;

/// Byte offset of `memcpy`.
pub const MEMCPY: u32 = 0x14;

/// Byte offset of `fir`.
pub const FIR: u32 = 0x2c;

/// Byte offset of `dot`.
pub const DOT: u32 = 0x84;

/// Byte offset of `fmuls`.
pub const FMULS: u32 = 0x12c;

/// Byte offset of `mix`.
pub const MIX: u32 = 0x15c;
