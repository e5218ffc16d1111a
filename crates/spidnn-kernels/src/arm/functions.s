@ Exponential, hyperbolic tangent, logistic function, logarithm, division and roots of binary32 numbers: argument and result in r0,
@ r1 to r3 and r12 are lost. The arithmetic is that of `functions` and `num::integer`, step by step; rare arguments go there.

    .section .text.spidnn_exp, "ax", %progbits
    .arm
    .balign 4

@ exp(x) of |x| <= 128, x in r0, its bits without the sign shifted up by one in r1: mantissa with about 30 fraction bits to r0, sixteenths of
@ the power of two to r1. r2 to r5 and r12 are lost.
    .macro exp_core
    mov   r2, r1, lsr #24
    mov   r3, #0x80000000
    orr   r3, r3, r0, lsl #8
    subs  r2, r2, #117              @ 41 fraction bits, r5:r4
    rsb   r12, r2, #32
    mov   r5, r3, lsr r12
    rsblt r2, r2, #0
    movge r4, r3, lsl r2
    movlt r4, r3, lsr r2
    cmp   r0, #0
    bpl   10f
    rsbs  r4, r4, #0
    rsc   r5, r5, #0
10: mov   r2, #0x5C00               @ log2 e with 14 fraction bits
    add   r2, r2, #0x55
    mov   r3, #0x40000
    mla   r1, r5, r2, r3
    ldr   r3, =0xD1BD0106           @ less the lower half of ln 2 / 16
    ldr   r12, =spidnn_table_POWERS
    mov   r1, r1, asr #19
    sub   r5, r5, r1, lsl #4
    sub   r5, r5, r1, lsl #2
    sub   r5, r5, r1, lsl #1
    smlal r4, r5, r1, r3
    and   r2, r1, #15
    mov   r3, #0xAB0                @ 1/24
    mov   r4, r4, lsr #5
    orr   r4, r4, r5, lsl #27       @ 36 fraction bits
    ldr   r12, [r12, r2, lsl #2]
    smull r2, r5, r4, r3
    add   r5, r5, #0x2A800          @ 1/6
    add   r5, r5, #0x2AC
    smull r2, r3, r4, r5
    add   r3, r3, #0x800000         @ 1/2
    smull r2, r5, r4, r3
    add   r5, r5, #0x10000000       @ 1
    smull r2, r3, r4, r5
    smull r2, r5, r12, r3
    add   r0, r12, r5
    .endm

not_a_number:
    mov   r0, #0x7F000000
    orr   r0, r0, #0x00C00000
    bx    lr

    .global spidnn_exp
    .type spidnn_exp, %function
spidnn_exp:
    mov   r1, r0, lsl #1
    cmp   r1, #0x86000000           @ 128
    bhs   2f
1:  stmfd sp!, {r4, r5}
    exp_core
    ldmfd sp!, {r4, r5}
    mov   r1, r1, asr #4
    add   r1, r1, #127
@ r0 * 2^(r1 - 157) for a positive r0: rounded, and back to the caller.
pack:
    clz   r2, r0
    mov   r0, r0, lsl r2
    sub   r1, r1, r2
    cmp   r1, #254
    bhs   pack_rare
    mov   r3, #0x80000000
    teq   r3, r0, lsl #24
    biceq r0, r0, #0x80
    beq   pack_half
    movs  r0, r0, lsr #8
    adc   r0, r0, r1, lsl #23
    bx    lr
2:  cmp   r1, #0xFF000000
    bhi   not_a_number
    and   r0, r0, #0x80000000       @ beyond 128 as 128
    orr   r0, r0, #0x43000000
    mov   r1, #0x86000000
    b     1b
pack_rare:
    cmp   r1, #0
    movge r0, #0x7F000000           @ infinity
    orrge r0, r0, #0x00800000
    bxge  lr
    rsb   r1, r1, #8                @ subnormal: half to even
    rsb   r2, r1, #32
    mov   r3, r0, lsl r2
    mov   r0, r0, lsr r1
    cmp   r3, #0x80000000
    andeq r3, r0, #1
    addhi r0, r0, #1
    addeq r0, r0, r3
    bx    lr
pack_half:
    tst   r0, #0x100
    orrne r0, r0, #0x80
    movs  r0, r0, lsr #8
    adc   r0, r0, r1, lsl #23
    bx    lr

@ The polynomial of the segment r12 of the table r3 at r4 (31 fraction bits), to r0. r1, r2, r3, r12 are lost.
    .macro polynomial
    add   r12, r12, r12, lsl #2
    add   r12, r3, r12, lsl #2
    ldmia r12, {r0, r1, r2, r3, r12}
    smull r5, r12, r4, r12
    add   r3, r3, r12
    smull r5, r12, r4, r3
    add   r2, r2, r12
    smull r5, r12, r4, r2
    add   r1, r1, r12
    smull r5, r12, r4, r1
    add   r0, r0, r12
    .endm

    .ltorg

    .section .text.spidnn_sigmoid, "ax", %progbits
    .balign 4
@ The segment of the table of tanh, 27 fraction bits: r12 its number, r3 the table, r4 the place in it. r5 is lost.
    .macro segment_of_tanh magnitude
    add   r3, \magnitude, #0x08000000
    clz   r4, r3
    sub   r5, r4, #1
    mov   r5, r3, lsl r5
    ldr   r3, =spidnn_table_TANH_RATIO
    rsb   r12, r4, #3
    mov   r12, r12, lsl #4
    add   r12, r12, r5, lsr #26
    mov   r4, r5, lsl #6
    mov   r4, r4, lsr #1
    .endm

    .global spidnn_sigmoid
    .type spidnn_sigmoid, %function
spidnn_sigmoid:
    movs  r1, r0, lsl #1
    bcs   sigmoid_below
    cmp   r1, #0x83000000           @ 16
    bhs   sigmoid_above
1:  stmfd sp!, {r4-r7}
    mov   r2, r1, lsr #24
    mov   r3, #0x80000000
    orr   r3, r3, r0, lsl #8
    mov   r7, r0
    rsb   r2, r2, #132
    mov   r6, r3, lsr r2            @ half of it with 27 fraction bits
    segment_of_tanh r6
    polynomial
    add   r0, r0, #1
    smull r1, r2, r6, r0
    cmp   r7, #0
    mov   r1, r1, lsr #27
    orr   r1, r1, r2, lsl #5
    rsbmi r1, r1, #0
    add   r0, r1, #0x40000000
    ldmfd sp!, {r4-r7}
    clz   r2, r0
    mov   r0, r0, lsl r2
    rsb   r1, r2, #126
    tst   r0, #0x7F
    beq   2f
    movs  r0, r0, lsr #8
    adc   r0, r0, r1, lsl #23
    bx    lr
2:  mov   r3, #0x80000000           @ exact, or exactly half
    teq   r3, r0, lsl #24
    biceq r0, r0, #0x80
    beq   pack_half
    mov   r0, r0, lsr #8
    add   r0, r0, r1, lsl #23
    bx    lr

sigmoid_below:
    cmp   r1, #0x81000000           @ -4
    blo   1b
    cmp   r1, #0x86000000           @ -128
    bhs   sigmoid_zero
    stmfd sp!, {r4-r6}
    adr   r2, sigmoid_constants
    mov   r3, r1, lsr #24
    ldmia r2, {r2, r4, r5, r6, r12}
    mov   r0, r0, lsl #8
    orr   r0, r0, #0x80000000
    rsb   r3, r3, #134
    mov   r0, r0, lsr r3            @ 24 fraction bits
    umull r1, r3, r0, r2
    mov   r2, r3, lsr #23           @ n of 2^-n 2^(f - 1)
    mov   r3, r3, lsl #9
    orr   r3, r3, r1, lsr #23
    mvn   r3, r3                    @ f
    mov   r1, r3, lsr #28
    ldr   r12, [r12, r1, lsl #2]
    mov   r3, r3, lsl #4
    umull r1, r0, r3, r4
    add   r0, r0, r5
    umull r1, r4, r3, r0
    add   r4, r4, r6
    umull r1, r0, r3, r4
    mov   r4, #0x80000000
    umull r1, r3, r12, r0
    sub   r5, r2, #5
    add   r0, r12, r3, lsr #4       @ 2^f with 30 fraction bits
    mov   r3, r0, lsr r5            @ u with 36
    sub   r1, r3, r3, lsr #6
    sub   r1, r4, r1, lsr #5
    umull r5, r6, r3, r1
    sub   r1, r4, r6, lsr #4
    umull r5, r6, r3, r1
    sub   r1, r4, r6, lsr #4        @ 1 / (1 + u) with 31
    umull r5, r6, r0, r1
    clz   r1, r6
    mov   r0, r6, lsl r1
    add   r1, r1, r2
    rsbs  r1, r1, #127
    ldmfd sp!, {r4-r6}
    bmi   3f
    movs  r0, r0, lsr #8
    adc   r0, r0, r1, lsl #23
    bx    lr
3:  rsb   r1, r1, #8                @ subnormal
    movs  r0, r0, lsr r1
    adc   r0, r0, #0
    bx    lr

@ log2 e with 31 fraction bits; 2^(r / 16) - 1 by powers of r with 36, the third first.
sigmoid_constants:
    .word 3098164009, 950804, 64473910, 2977046353, spidnn_table_POWERS

@ 1, less a unit of the last place below 25 ln 2, and less another below 24 ln 2 - ln 1.5.
sigmoid_above:
    cmp   r1, #0xFF000000
    bhi   not_a_number
    ldr   r2, =0x418AA123
    ldr   r3, =0x4181D72D
    cmp   r0, r2
    mov   r1, #0x3F800000
    sublo r1, r1, #1
    cmp   r0, r3
    sublo r1, r1, #1
    mov   r0, r1
    bx    lr
sigmoid_zero:
    cmp   r1, #0xFF000000
    bhi   not_a_number
    mov   r0, #0
    bx    lr

    .section .text.spidnn_tanh, "ax", %progbits
    .balign 4
    .global spidnn_tanh
    .type spidnn_tanh, %function
spidnn_tanh:
    mov   r1, r0, lsl #1
    mov   r2, #0x82000000
    orr   r2, r2, #0x00210000
    cmp   r1, r2
    bhs   tanh_large
    cmp   r1, #0x73000000           @ 2^-12
    blo   tanh_small
    stmfd sp!, {r4-r7}
    mov   r2, r1, lsr #24
    mov   r3, #0x80000000
    orr   r6, r3, r0, lsl #8
    and   r7, r0, r3                @ sign
    rsb   r3, r2, #131
    mov   r3, r6, lsr r3
    orr   r7, r7, r2                @ and exponent
    segment_of_tanh r3
    polynomial
    add   r0, r0, #1
    mov   r0, r0, lsr #1
    umull r1, r0, r6, r0
    and   r4, r7, #0xFF
    add   r4, r4, #2
    clz   r2, r0
    mov   r0, r0, lsl r2
    rsb   r3, r2, #32
    orr   r0, r0, r1, lsr r3
    sub   r4, r4, r2
    tst   r0, #0x7F
    beq   2f
1:  movs  r0, r0, lsr #8
    adc   r0, r0, r4, lsl #23
    and   r7, r7, #0x80000000
    cmp   r0, #0x3F800000
    movhi r0, #0x3F800000
    orr   r0, r0, r7
    ldmfd sp!, {r4-r7}
    bx    lr
2:  movs  r1, r1, lsl r2            @ exactly half?
    bne   1b
    tst   r0, #0x100
    biceq r0, r0, #0x80
    b     1b
tanh_large:
    cmp   r1, #0xFF000000
    and   r0, r0, #0x80000000
    orr   r0, r0, #0x3F800000
    movhi r0, #0x7F000000           @ NaN
    orrhi r0, r0, #0x00C00000
    bx    lr
tanh_small:
    bx    lr                        @ x - x^3 / 3 is nearest to x

    .section .text.spidnn_div, "ax", %progbits
    .balign 4
    .global spidnn_div
    .type spidnn_div, %function
spidnn_div:
    mov   r12, #0xFF
    ands  r2, r12, r0, lsr #23
    andsne r3, r12, r1, lsr #23
    beq   div_rare
    teq   r2, #0xFF
    teqne r3, #0xFF
    beq   div_rare
    stmfd sp!, {r4-r9}
    sub   r6, r2, r3
    eor   r7, r0, r1
    mov   r12, #0x80000000
    and   r7, r7, r12
    orr   r8, r12, r0, lsl #8
    orr   r9, r12, r1, lsl #8
    ldr   r3, =spidnn_table_RECIPROCAL
    mov   r12, r9, lsl #1
    mov   r4, r9, lsl #5
    mov   r12, r12, lsr #28
    mov   r4, r4, lsr #1
    polynomial
    umull r1, r2, r8, r0
    mov   r9, r9, lsr #8
    mov   r8, r8, lsr #8
    mov   r2, r2, lsr #4            @ the quotient with 25 fraction bits, nearly
    mul   r1, r2, r9
    rsbs  r1, r1, r8, lsl #25       @ what is left
    bmi   4f
1:  cmp   r1, r9
    bhs   5f
    add   r6, r6, #126
2:  movs  r3, r2, lsr #25
    mov   r0, r2, lsl #6
    moveq r0, r0, lsl #1
    subeq r6, r6, #1
    cmp   r6, #254
    bhs   6f
    movs  r0, r0, lsr #8            @ never exactly half: no quotient has 25 bits
    adc   r0, r0, r6, lsl #23
    orr   r0, r0, r7
    ldmfd sp!, {r4-r9}
    bx    lr
4:  sub   r2, r2, #1
    adds  r1, r1, r9
    bmi   4b
    b     1b
5:  sub   r1, r1, r9
    add   r2, r2, #1
    b     1b
6:  cmp   r1, #0                    @ beyond the exponents: (mantissa, exponent, sign)
    orrne r0, r0, #1
    mov   r1, r6
    mov   r2, r7
    ldmfd sp!, {r4-r9}
    b     spidnn_round_rare
div_rare:
    b     spidnn_div_rare

    .section .text.spidnn_sqrt, "ax", %progbits
    .balign 4
    .global spidnn_sqrt
    .type spidnn_sqrt, %function
spidnn_sqrt:
    sub   r2, r0, #0x00800000
    cmp   r2, #0x7F000000
    bhs   sqrt_special
    mov   r2, r0, lsr #23
    mov   r12, #0x80000000
    orr   r12, r12, r0, lsl #8
@ The root of r12 * 2^(r2 - 127 - 31).
sqrt_normal:
    stmfd sp!, {r4-r8}
    sub   r6, r2, #127
    mov   r8, r12
    ldr   r3, =spidnn_table_RECIPROCAL_SQRT
    mov   r12, r8, lsl #1
    mov   r4, r8, lsl #5
    mov   r12, r12, lsr #28
    mov   r4, r4, lsr #1
    polynomial
    umull r1, r2, r8, r0
    mov   r8, r8, lsr #8
    movs  r6, r6, asr #1
    bcs   3f
    mov   r2, r2, lsr #5            @ the root with 24 fraction bits, nearly
    mov   r8, r8, lsl #25
1:  mul   r1, r2, r2
    subs  r1, r8, r1                @ what is left
    bmi   4f
2:  cmp   r1, r2, lsl #1
    bgt   5f
    add   r6, r6, #126
    mov   r0, r2, lsl #7
    movs  r0, r0, lsr #8            @ never half: no root has 25 bits
    adc   r0, r0, r6, lsl #23
    ldmfd sp!, {r4-r8}
    bx    lr
3:  ldr   r3, =0xB504F334           @ sqrt 2
    mov   r0, r2
    umull r1, r2, r0, r3
    mov   r8, r8, lsl #26
    mov   r2, r2, lsr #4
    b     1b
4:  sub   r2, r2, #1
    add   r1, r1, r2, lsl #1
    adds  r1, r1, #1
    bmi   4b
    b     2b
5:  sub   r1, r1, r2, lsl #1
    sub   r1, r1, #1
    add   r2, r2, #1
    b     2b

sqrt_special:
    movs  r1, r0, lsl #1
    bxeq  lr                        @ both zeros
    bcs   not_a_number
    cmp   r1, #0xFF000000
    bhi   not_a_number
    bxeq  lr
    clz   r3, r0                    @ subnormal: its top bit to the top
    mov   r12, r0, lsl r3
    rsb   r2, r3, #9
    b     sqrt_normal

    .section .text.spidnn_rsqrt, "ax", %progbits
    .balign 4
    .global spidnn_rsqrt
    .type spidnn_rsqrt, %function
spidnn_rsqrt:
    sub   r2, r0, #0x00800000
    cmp   r2, #0x7F000000
    bhs   rsqrt_special
    stmfd sp!, {r4-r6}
    mov   r6, r0, lsr #23
@ Of a mantissa r0 (what is above its 23 bits is not looked at) and an exponent field r6, which may be below 1.
rsqrt_normal:
    mov   r12, r0, lsl #9
    mov   r4, r0, lsl #13
    ldr   r3, =spidnn_table_RECIPROCAL_SQRT
    mov   r12, r12, lsr #28
    mov   r4, r4, lsr #1
    polynomial
    movs  r6, r6, asr #1
    mov   r3, #0x80000000
    ldrcc r3, =0x5A82799A           @ an odd exponent leaves the root of 1/2
    rsb   r6, r6, #188
    addcc r6, r6, #1
    umull r1, r2, r0, r3
    ldmfd sp!, {r4, r5}
    movs  r2, r2, lsr #5
    adc   r0, r2, r6, lsl #23       @ a mantissa of 2^24 adds one to the exponent
    ldr   r6, [sp], #4
    bx    lr
rsqrt_special:
    movs  r1, r0, lsl #1
    moveq r0, #0x7F000000           @ infinity of both zeros
    orreq r0, r0, #0x00800000
    bxeq  lr
    bcs   not_a_number
    cmp   r1, #0xFF000000
    bhi   not_a_number
    moveq r0, #0
    bxeq  lr
    stmfd sp!, {r4-r6}
    clz   r3, r0                    @ subnormal: its top bit to bit 23
    rsb   r6, r3, #9
    sub   r3, r3, #8
    mov   r0, r0, lsl r3
    b     rsqrt_normal

    .section .text.spidnn_ln, "ax", %progbits
    .balign 4
    .global spidnn_ln
    .type spidnn_ln, %function
spidnn_ln:
    sub   r2, r0, #0x00800000
    cmp   r2, #0x7F000000
    bhs   ln_special
    mov   r1, r0, lsr #23
    mov   r2, #0x80000000
    orr   r2, r2, r0, lsl #8
@ The logarithm of r2 * 2^(r1 - 127 - 31).
ln_normal:
    stmfd sp!, {r4-r8}
    mov   r4, #0x10000000
    cmp   r2, #0xC0000000           @ (1 + f) 2^n, f of -1/4 .. 1/2 with 24 fraction bits
    movhs r6, r2, lsr #8
    subhs r6, r6, #0x01000000
    biclo r6, r2, #0x80000000
    movlo r6, r6, lsr #7
    sublo r7, r1, #127
    subhs r7, r1, #126
    add   r4, r4, r6, lsl #6
    ldr   r3, =spidnn_table_LN_RATIO
    mov   r12, r4, lsr #26
    mov   r4, r4, lsl #6
    mov   r4, r4, lsr #1
    polynomial
    mov   r0, r0, asr #1
    smull r1, r2, r6, r0
    mov   r8, #136                  @ 189 - 53
    cmp   r7, #0
    beq   1f
    ldr   r3, =0xFEFA39EF           @ ln 2 with 53 fraction bits
    ldr   r12, =0x00162E43
    smlal r1, r2, r7, r3
    mla   r2, r7, r12, r2
    mov   r1, r1, lsr #8
    orr   r1, r1, r2, lsl #24
    mov   r2, r2, asr #8
    mov   r8, #144
1:  ands  r5, r2, #0x80000000
    beq   2f
    rsbs  r1, r1, #0
    rsc   r2, r2, #0
2:  cmp   r2, #0
    beq   5f
3:  clz   r3, r2
    mov   r2, r2, lsl r3
    rsb   r12, r3, #32
    orr   r2, r2, r1, lsr r12
    sub   r8, r8, r3
    tst   r2, #0x7F
    beq   6f
4:  movs  r0, r2, lsr #8
    adc   r0, r0, r8, lsl #23
    orr   r0, r0, r5
    ldmfd sp!, {r4-r8}
    bx    lr
5:  sub   r8, r8, #32
    movs  r2, r1
    mov   r1, #0
    bne   3b
    mov   r0, #0                    @ of 1
    ldmfd sp!, {r4-r8}
    bx    lr
6:  movs  r1, r1, lsl r3            @ exactly half?
    bne   4b
    tst   r2, #0x100
    biceq r2, r2, #0x80
    b     4b

ln_special:
    movs  r1, r0, lsl #1
    moveq r0, #0xFF000000           @ minus infinity of both zeros
    orreq r0, r0, #0x00800000
    bxeq  lr
    bcs   not_a_number
    cmp   r1, #0xFF000000
    bxeq  lr
    bhi   not_a_number
    clz   r3, r0                    @ subnormal: its top bit to the top
    mov   r2, r0, lsl r3
    rsb   r1, r3, #9
    b     ln_normal

    .ltorg
