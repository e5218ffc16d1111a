@ Alignment of numbers to mantissas that share an exponent.

    .section .text.spidnn_align, "ax", %progbits
    .arm
    .balign 4
    .global spidnn_largest
    .type spidnn_largest, %function
@ u32 largest(x: r0, step: r1, count: r2, most: r3); magnitudes are compared shifted up by one.
spidnn_largest:
    stmfd sp!, {r4, r5, r6, lr}
    mov   r3, r3, lsl #1
    subs  r2, r2, #4
    blo   2f
1:  ldr   r4, [r0], r1
    ldr   r5, [r0], r1
    ldr   r6, [r0], r1
    ldr   r12, [r0], r1
    cmp   r3, r4, lsl #1
    movlo r3, r4, lsl #1
    cmp   r3, r5, lsl #1
    movlo r3, r5, lsl #1
    cmp   r3, r6, lsl #1
    movlo r3, r6, lsl #1
    cmp   r3, r12, lsl #1
    movlo r3, r12, lsl #1
    subs  r2, r2, #4
    bhs   1b
2:  adds  r2, r2, #4
    beq   4f
3:  ldr   r4, [r0], r1
    subs  r2, r2, #1
    cmp   r3, r4, lsl #1
    movlo r3, r4, lsl #1
    cmp   r2, #0
    bne   3b
4:  mov   r0, r3, lsr #1
    ldmfd sp!, {r4, r5, r6, pc}

@ align(x: r0, out: r1, count: r2, exponent: r3, x_step, out_step). With t the significand at the top of a word, the mantissa is
@ t >> (exponent + 132 - field), half away from zero: the carry of the shift. A register shift takes the low byte, so the sign above
@ the exponent field does no harm; by 33 or more gives zero and no carry.
    .macro one x
    sub   r12, r3, \x, lsr #23
    orr   r11, r4, \x, lsl #8
    movs  r11, r11, lsr r12
    adc   r11, r11, #0
    cmp   \x, #0
    rsbmi r11, r11, #0
    str   r11, [r1], r6
    .endm

    .global spidnn_align
    .type spidnn_align, %function
spidnn_align:
    stmfd sp!, {r4-r11}
    ldr   r5, [sp, #32]
    ldr   r6, [sp, #36]
    add   r3, r3, #132
    mov   r4, #0x80000000
    subs  r2, r2, #4
    blo   2f
1:  ldr   r7, [r0], r5
    ldr   r8, [r0], r5
    ldr   r9, [r0], r5
    ldr   r10, [r0], r5
    one   r7
    one   r8
    one   r9
    one   r10
    subs  r2, r2, #4
    bhs   1b
2:  adds  r2, r2, #4
    beq   4f
3:  ldr   r7, [r0], r5
    subs  r2, r2, #1
    mov   r8, r2
    one   r7
    cmp   r8, #0
    bne   3b
4:  ldmfd sp!, {r4-r11}
    bx    lr

@ align_pairs(x: r0, out: r1, count: r2, exponent: r3, x_step, pair_step, out_step): `count` words, at least one, of two halves each, from
@ the numbers at x and pair_step bytes on.
    .macro one_low x
    sub   r12, r3, \x, lsr #23
    orr   r11, r4, \x, lsl #8
    movs  r11, r11, lsr r12
    adc   r11, r11, #0
    cmp   \x, #0
    rsbmi r11, r11, #0
    mov   \x, r11, lsl #16
    .endm
    .macro pair low, high
    one_low \low
    one_low \high
    orr   r11, \high, \low, lsr #16
    str   r11, [r1], r6
    .endm

    .section .text.spidnn_align_pairs, "ax", %progbits
    .balign 4
    .global spidnn_align_pairs
    .type spidnn_align_pairs, %function
spidnn_align_pairs:
    stmfd sp!, {r4-r11, lr}
    ldr   r5, [sp, #36]
    ldr   r14, [sp, #40]
    ldr   r6, [sp, #44]
    add   r3, r3, #132
    mov   r4, #0x80000000
    subs  r2, r2, #2
    blo   2f
1:  ldr   r8, [r0, r14]
    ldr   r7, [r0], r5
    ldr   r10, [r0, r14]
    ldr   r9, [r0], r5
    pair  r7, r8
    pair  r9, r10
    subs  r2, r2, #2
    bhs   1b
2:  adds  r2, r2, #2
    beq   3f
    ldr   r8, [r0, r14]
    ldr   r7, [r0]
    pair  r7, r8
3:  ldmfd sp!, {r4-r11, pc}

    .section .text.spidnn_align_singles, "ax", %progbits
    .balign 4
    .global spidnn_align_singles
    .type spidnn_align_singles, %function
@ align_singles(x: r0, out: r1, count: r2, exponent: r3, x_step, out_step): words of one half and zero; at least one.
spidnn_align_singles:
    stmfd sp!, {r4-r11}
    ldr   r5, [sp, #32]
    ldr   r6, [sp, #36]
    add   r3, r3, #132
    mov   r4, #0x80000000
1:  ldr   r7, [r0], r5
    one_low r7
    mov   r7, r7, lsr #16
    subs  r2, r2, #1
    str   r7, [r1], r6
    bne   1b
    ldmfd sp!, {r4-r11}
    bx    lr
