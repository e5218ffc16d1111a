@ Bytes to halves, and through tables.

    .section .text.spidnn_bytes, "ax", %progbits
    .arm
    .balign 4

@ One word of bytes in \w to two of halves in r4, r5; r12 is used.
    .macro unsigned w
    and   r4, \w, #0xff
    and   r5, \w, #0xff00
    mov   r12, \w, lsr #24
    and   \w, \w, #0xff0000
    orr   r4, r4, r5, lsl #8
    mov   r12, r12, lsl #16
    orr   r5, r12, \w, lsr #16
    stmia r1!, {r4, r5}
    .endm

    .global spidnn_widen_unsigned
    .type spidnn_widen_unsigned, %function
@ widen_unsigned(from: r0, to: r1, words: r2)
spidnn_widen_unsigned:
    stmfd sp!, {r4-r9, lr}
    subs  r2, r2, #4
    blo   2f
1:  ldmia r0!, {r6-r9}
    unsigned r6
    unsigned r7
    unsigned r8
    unsigned r9
    subs  r2, r2, #4
    bhs   1b
2:  adds  r2, r2, #4
    beq   4f
3:  ldr   r6, [r0], #4
    subs  r2, r2, #1
    unsigned r6
    bne   3b
4:  ldmfd sp!, {r4-r9, pc}

    .global spidnn_widen_signed
    .type spidnn_widen_signed, %function
@ widen_signed(from: r0, to: r1, words: r2): at least one; `from` may be the upper half of `to`.
spidnn_widen_signed:
    stmfd sp!, {r4-r7, lr}
1:  ldr   r3, [r0], #4
    subs  r2, r2, #1
    mov   r4, r3, lsl #24
    mov   r5, r3, lsl #16
    mov   r6, r3, lsl #8
    mov   r7, r3, asr #24
    mov   r4, r4, asr #8
    mov   r5, r5, asr #24
    mov   r6, r6, asr #8
    mov   r5, r5, lsl #16
    mov   r7, r7, lsl #16
    orr   r4, r5, r4, lsr #16
    orr   r5, r7, r6, lsr #16
    stmia r1!, {r4, r5}
    bne   1b
    ldmfd sp!, {r4-r7, pc}

    .global spidnn_shift_halves
    .type spidnn_shift_halves, %function
@ shift_halves(from: r0, to: r1, words: r2, zero: r3): each word from the half behind its first; `zero` at the end. At least one word.
spidnn_shift_halves:
    stmfd sp!, {r4-r8, lr}
    ldr   r12, [r0], #4
    subs  r2, r2, #5
    blo   2f
1:  ldmia r0!, {r5-r8}
    mov   r4, r12, lsr #16
    mov   r12, r8
    orr   r4, r4, r5, lsl #16
    mov   r5, r5, lsr #16
    orr   r5, r5, r6, lsl #16
    mov   r6, r6, lsr #16
    orr   r6, r6, r7, lsl #16
    mov   r7, r7, lsr #16
    orr   r7, r7, r8, lsl #16
    stmia r1!, {r4-r7}
    subs  r2, r2, #4
    bhs   1b
2:  adds  r2, r2, #4
    beq   4f
3:  mov   r4, r12, lsr #16
    ldr   r12, [r0], #4
    subs  r2, r2, #1
    orr   r4, r4, r12, lsl #16
    str   r4, [r1], #4
    bne   3b
4:  mov   r12, r12, lsr #16
    orr   r12, r12, r3, lsl #16
    str   r12, [r1]
    ldmfd sp!, {r4-r8, pc}

    .global spidnn_widen_rows
    .type spidnn_widen_rows, %function
@ widen_rows(from: r0, to: r1, words: r2, rows: r3; on the stack bytes from row to row of both): words and rows are at least one.
spidnn_widen_rows:
    stmfd sp!, {r4-r11, lr}
    ldr   r10, [sp, #36]
    ldr   r11, [sp, #40]
    sub   r10, r10, r2, lsl #2
    sub   r11, r11, r2, lsl #3
    mov   lr, r2
1:  subs  r2, lr, #4
    blo   3f
2:  ldmia r0!, {r6-r9}
    unsigned r6
    unsigned r7
    unsigned r8
    unsigned r9
    subs  r2, r2, #4
    bhs   2b
3:  adds  r2, r2, #4
    beq   5f
4:  ldr   r6, [r0], #4
    subs  r2, r2, #1
    unsigned r6
    bne   4b
5:  subs  r3, r3, #1
    add   r0, r0, r10
    add   r1, r1, r11
    bne   1b
    ldmfd sp!, {r4-r11, pc}

    .global spidnn_spread_rows
    .type spidnn_spread_rows, %function
@ spread_rows(from: r0, to: r1, count: r2, step: r3; on the stack rows, bytes from row to row of both): `spread` for several rows, at least one.
spidnn_spread_rows:
    stmfd sp!, {r4-r10, lr}
    ldr   r8, [sp, #32]
    ldr   r9, [sp, #36]
    ldr   r10, [sp, #40]
    mov   r7, r2
1:  stmfd sp!, {r0, r1}
    mov   r2, r7
    bl    spidnn_spread
    ldmfd sp!, {r0, r1}
    subs  r8, r8, #1
    add   r0, r0, r9
    add   r1, r1, r10
    bne   1b
    ldmfd sp!, {r4-r10, pc}

    .global spidnn_spread
    .type spidnn_spread, %function
@ spread(from: r0, to: r1, count: r2, step: r3): bytes to halves `step` bytes from one another.
spidnn_spread:
    stmfd sp!, {r4-r6, lr}
    subs  r2, r2, #4
    blo   2f
1:  ldrb  r4, [r0], #1
    ldrb  r5, [r0], #1
    ldrb  r6, [r0], #1
    ldrb  r12, [r0], #1
    strh  r4, [r1], r3
    strh  r5, [r1], r3
    strh  r6, [r1], r3
    subs  r2, r2, #4
    strh  r12, [r1], r3
    bhs   1b
2:  adds  r2, r2, #4
    beq   4f
3:  ldrb  r4, [r0], #1
    subs  r2, r2, #1
    strh  r4, [r1], r3
    bne   3b
4:  ldmfd sp!, {r4-r6, pc}

    .global spidnn_lookup
    .type spidnn_lookup, %function
@ lookup(from: r0, to: r1, words: r2, table: r3): at least one.
spidnn_lookup:
    stmfd sp!, {r4-r7, lr}
    ldr   r4, [r0], #4
1:  and   r5, r4, #0xff
    ldrb  r5, [r3, r5]
    mov   r6, r4, lsl #16
    mov   r7, r4, lsl #8
    ldrb  r6, [r3, r6, lsr #24]
    ldrb  r7, [r3, r7, lsr #24]
    ldrb  r12, [r3, r4, lsr #24]
    subs  r2, r2, #1
    orr   r5, r5, r6, lsl #8
    ldrne r4, [r0], #4
    orr   r5, r5, r7, lsl #16
    orr   r5, r5, r12, lsl #24
    str   r5, [r1], #4
    bne   1b
    ldmfd sp!, {r4-r7, pc}

    .global spidnn_pool_average
    .type spidnn_pool_average, %function
@ pool_average(upper row: r0, lower row: r1, results: r2, pixels: r3, channels: on the stack): windows of two by two that touch.
spidnn_pool_average:
    stmfd sp!, {r4-r9, lr}
    ldr   r8, [sp, #28]
1:  mov   r9, r8
2:  ldrb  r4, [r0, r8]
    ldrb  r5, [r0], #1
    ldrb  r6, [r1, r8]
    ldrb  r7, [r1], #1
    add   r4, r4, r5
    add   r4, r4, #2
    add   r4, r4, r6
    add   r4, r4, r7
    subs  r9, r9, #1
    mov   r4, r4, lsr #2
    strb  r4, [r2], #1
    bne   2b
    add   r0, r0, r8
    add   r1, r1, r8
    subs  r3, r3, #1
    bne   1b
    ldmfd sp!, {r4-r9, pc}

    .global spidnn_pool_maximum
    .type spidnn_pool_maximum, %function
@ As pool_average.
spidnn_pool_maximum:
    stmfd sp!, {r4-r9, lr}
    ldr   r8, [sp, #28]
1:  mov   r9, r8
2:  ldrb  r4, [r0, r8]
    ldrb  r5, [r0], #1
    ldrb  r6, [r1, r8]
    ldrb  r7, [r1], #1
    cmp   r4, r5
    movlo r4, r5
    cmp   r4, r6
    movlo r4, r6
    cmp   r4, r7
    movlo r4, r7
    subs  r9, r9, #1
    strb  r4, [r2], #1
    bne   2b
    add   r0, r0, r8
    add   r1, r1, r8
    subs  r3, r3, #1
    bne   1b
    ldmfd sp!, {r4-r9, pc}

    .section .text.spidnn_add8, "ax", %progbits
    .arm
    .balign 4
    .global spidnn_add8
    .type spidnn_add8, %function
@ add8(parameters: r0): see `Sum` in int8.rs. r10 to r14: two sums, and two bytes of the other side.
spidnn_add8:
    stmfd sp!, {r4-r11, lr}
    ldmia r0, {r1-r9}
1:  ldrb  r10, [r1], #1
    ldrb  r12, [r1], #1
    ldrb  r11, [r2], #1
    ldrb  r14, [r2], #1
    mla   r10, r5, r10, r7
    mla   r12, r5, r12, r7
    mla   r10, r6, r11, r10
    mla   r12, r6, r14, r12
    movs  r10, r10, asr r8
    adc   r10, r10, r9
    movs  r12, r12, asr r8
    adc   r12, r12, r9
    cmp   r10, #255
    mvnhi r10, r10, asr #31
    cmp   r12, #255
    mvnhi r12, r12, asr #31
    strb  r10, [r3], #1
    subs  r4, r4, #2
    strb  r12, [r3], #1
    bne   1b
    ldmfd sp!, {r4-r11, pc}

    .section .text.spidnn_quantise8, "ax", %progbits
    .balign 4
    .global spidnn_quantise8
    .type spidnn_quantise8, %function
@ quantise8(x: r0, out: r1, count: r2, inverse: r3, zero): bytes of numbers times `inverse`, at least one. `inverse` is positive and its exponent
@ field from 64 to 245. The product is rounded as by spidnn_mul, and then to an integer, half to even both times.
@ r4: significand of the inverse, r5: what the shift is counted from, r6: zero, r7: 0x80000000.
spidnn_quantise8:
    stmfd sp!, {r4-r9, lr}
    ldr   r6, [sp, #28]
    mov   r7, #0x80000000
    orr   r4, r7, r3, lsl #8
    mov   r5, r3, lsr #23
    rsb   r5, r5, #284              @ 2 * (127 + 31) - 32
    add   r5, r5, #1                @ less than 2^63 is the usual product
1:  ldr   r8, [r0], #4
    orr   r3, r7, r8, lsl #8
    umull r9, r3, r4, r3
    mov   r12, r8, lsl #1
    sub   r12, r5, r12, lsr #24     @ shift of the upper word to an integer
    cmp   r12, #24
    blt   7f
    cmp   r3, #0
    movpl r3, r3, lsl #1
    orrpl r3, r3, r9, lsr #31
    movpl r9, r9, lsl #1
    submi r12, r12, #1
    teq   r7, r3, lsl #24
    beq   5f
2:  adds  r3, r3, #0x80
    movcs r3, #0x80000000
    subcs r12, r12, #1
3:  bic   r3, r3, #0xFF
    mov   r9, r3, lsr r12
    rsb   r14, r12, #32
    mov   r3, r3, lsl r14           @ what is behind the point
    cmp   r3, r7
    addhi r9, r9, #1
    andeq r14, r9, #1
    addeq r9, r9, r14
    cmp   r8, #0
    rsbmi r9, r9, #0
    add   r9, r9, r6
    cmp   r9, #255
    mvnhi r9, r9, asr #31
4:  strb  r9, [r1], #1
    subs  r2, r2, #1
    bne   1b
    ldmfd sp!, {r4-r9, pc}
5:  cmp   r9, #0                    @ exactly half of the last bit?
    bne   2b
    tst   r3, #0x100
    bne   2b
    b     3b
7:  mov   r12, r8, lsl #1           @ 2^8 at least, or NaN
    cmp   r12, #0xFF000000
    mvn   r9, r8, asr #31           @ 255 or 0
    movhi r9, r6
    b     4b

    .section .text.spidnn_dequantise8, "ax", %progbits
    .balign 4
    .global spidnn_dequantise8
    .type spidnn_dequantise8, %function
@ dequantise8(x: r0, out: r1, count: r2, scale: r3, zero): numbers of bytes, at least one.
spidnn_dequantise8:
    stmfd sp!, {r4-r8, lr}
    ldr   r8, [sp, #24]
    mov   r4, r0
    mov   r5, r1
    mov   r6, r2
    mov   r7, r3
1:  ldrb  r0, [r4], #1
    mov   r1, r7
    mov   r12, #157
    subs  r0, r0, r8
    beq   2f
    and   r2, r0, #0x80000000
    rsbmi r0, r0, #0
    clz   r3, r0
    mov   r0, r0, lsl r3
    sub   r3, r12, r3               @ exponent field, less one for the hidden bit
    mov   r0, r0, lsr #8
    add   r0, r0, r3, lsl #23
    orr   r0, r0, r2
2:  bl    spidnn_mul
    subs  r6, r6, #1
    str   r0, [r5], #4
    bne   1b
    ldmfd sp!, {r4-r8, pc}

    .section .text.spidnn_pool_window, "ax", %progbits
    .arm
    .balign 4
    .global spidnn_pool_window
    .type spidnn_pool_window, %function
@ pool_window(cells: r0, result: r1, window: r2): see `Window` in int8.rs. For each channel (r11) r4: sum or largest, r5: rows left, r6: row, r8: cell,
@ r9: cells left.
spidnn_pool_window:
    stmfd sp!, {r4-r11, lr}
    ldmia r2, {r2, r3, r10, r11, r12, r14}  @ channels, columns, bytes of a row, rows, cells, reciprocal
    stmfd sp!, {r11, r12, r14}
    mov   r11, r2
    cmp   r14, #0
    beq   5f
1:  ldr   r5, [sp]
    mov   r4, #0
    mov   r6, r0
2:  mov   r8, r6
    mov   r9, r3
3:  ldrb  r7, [r8], r2
    subs  r9, r9, #1
    add   r4, r4, r7
    bne   3b
    add   r6, r6, r10
    subs  r5, r5, #1
    bne   2b
    add   r4, r12, r4, lsl #1       @ rounded: (2 * sum + cells) / (2 * cells)
    umull r7, r4, r14, r4
    add   r0, r0, #1
    subs  r11, r11, #1
    strb  r4, [r1], #1
    bne   1b
4:  add   sp, sp, #12
    ldmfd sp!, {r4-r11, pc}
5:  ldr   r5, [sp]
    mov   r4, #0
    mov   r6, r0
6:  mov   r8, r6
    mov   r9, r3
7:  ldrb  r7, [r8], r2
    sub   r9, r9, #1
    cmp   r4, r7
    movlo r4, r7
    cmp   r9, #0
    bne   7b
    add   r6, r6, r10
    subs  r5, r5, #1
    bne   6b
    add   r0, r0, #1
    subs  r11, r11, #1
    strb  r4, [r1], #1
    bne   5b
    b     4b
