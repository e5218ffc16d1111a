@ Products of halves to bytes: a row of pixels by one panel of columns. See `Panel` in int8.rs.
@
@ In the loops r0-r3: sums of a pixel, r4-r7: of the other, r8, r9: left operands, r10, r11: right operands, r12, r13: left
@ pointers, r14: right pointer. r13 is no stack here: code in this mode has none until the end, and interrupts have modes of their own.

    .equ Y, 0
    .equ X, 4
    .equ Y_STEP, 8
    .equ X_STEP, 12
    .equ DX, 16
    .equ W, 20
    .equ SCALES, 24
    .equ ENTRY, 28
    .equ TURNS, 32
    .equ SEGMENTS, 36
    .equ X_NEXT, 40
    .equ DY, 44
    .equ ROUND, 48
    .equ SHIFT, 52
    .equ COUNT, 56
    .equ LEFT, 60
    .equ SEGMENTS_LEFT, 64
    .equ STACK, 68

    .macro two sum, x, w
    smlabb \sum, \x, \w, \sum
    smlatt \sum, \x, \w, \sum
    .endm

@ One pair of terms: loads, and two products for each output. No operand is used in the turn after its load.
    .macro pair_24
    ldr   r8, [r12], #4
    ldr   r9, [r13], #4
    ldr   r10, [r14], #4
    ldr   r11, [r14], #4
    two   r0, r8, r10
    two   r4, r9, r10
    ldr   r10, [r14], #4
    two   r1, r8, r11
    two   r5, r9, r11
    ldr   r11, [r14], #4
    two   r2, r8, r10
    two   r6, r9, r10
    two   r3, r8, r11
    two   r7, r9, r11
    .endm
    .macro pair_23
    ldr   r8, [r12], #4
    ldr   r9, [r13], #4
    ldr   r10, [r14], #4
    ldr   r11, [r14], #4
    two   r0, r8, r10
    two   r4, r9, r10
    ldr   r10, [r14], #4
    two   r1, r8, r11
    two   r5, r9, r11
    two   r2, r8, r10
    two   r6, r9, r10
    .endm
    .macro pair_22
    ldr   r8, [r12], #4
    ldr   r9, [r13], #4
    ldr   r10, [r14], #4
    ldr   r11, [r14], #4
    two   r0, r8, r10
    two   r4, r9, r10
    two   r1, r8, r11
    two   r5, r9, r11
    .endm
    .macro pair_21
    ldr   r10, [r14], #4
    ldr   r8, [r12], #4
    ldr   r9, [r13], #4
    two   r0, r8, r10
    two   r4, r9, r10
    .endm
    .macro pair_14
    ldr   r8, [r12], #4
    ldr   r10, [r14], #4
    ldr   r11, [r14], #4
    two   r0, r8, r10
    ldr   r10, [r14], #4
    two   r1, r8, r11
    ldr   r11, [r14], #4
    two   r2, r8, r10
    two   r3, r8, r11
    .endm

@ A column of results: its multiplier is in r9, the next one comes there. r10: last shift, r11: multipliers, r12, r13: results,
@ r14: zero point and one half, as they are before the shift.
    .macro column pixels, sum, other, more
    smlawb \sum, \sum, r9, r14
    .if \pixels == 2
    smlawb \other, \other, r9, r14
    .endif
    .if \more
    ldr   r9, [r11, #4]!
    .endif
    mov   \sum, \sum, asr r10
    .if \pixels == 2
    mov   \other, \other, asr r10
    .endif
    cmp   \sum, #255
    mvnhi \sum, \sum, asr #31
    strb  \sum, [r12], #1
    .if \pixels == 2
    cmp   \other, #255
    mvnhi \other, \other, asr #31
    strb  \other, [r13], #1
    .endif
    .endm

@ A row of tiles of \p pixels by \w columns; \unroll pairs of terms in a turn.
    .macro panel p, w, unroll
    .global spidnn_panel_\p\w
spidnn_panel_\p\w:
    stmfd sp!, {r4-r11, lr}
    ldr   r8, =spidnn_panel
    str   sp, [r8, #STACK]
1:
    ldr   r11, [r8, #SCALES]
    ldr   r9, [r8, #SEGMENTS]
    ldr   r12, [r8, #X]
    ldr   r13, [r8, #DX]
    ldr   r14, [r8, #W]
    str   r9, [r8, #SEGMENTS_LEFT]
    .if \w == 4
    ldmia r11, {r0-r3}
    .elseif \w == 3
    ldmia r11, {r0-r2}
    .elseif \w == 2
    ldmia r11, {r0-r1}
    .else
    ldr   r0, [r11]
    .endif
    ldr   r9, [r8, #TURNS]
    ldr   r10, [r8, #ENTRY]
    .if \p == 2
    add   r13, r12, r13
    mov   r4, r0
    .if \w > 1
    mov   r5, r1
    .endif
    .if \w > 2
    mov   r6, r2
    .endif
    .if \w > 3
    mov   r7, r3
    .endif
    .endif
    str   r9, [r8, #LEFT]
    mov   pc, r10
4:
    str   r9, [r8, #LEFT]
    .global spidnn_pairs_\p\w
spidnn_pairs_\p\w:
    .rept \unroll
    pair_\p\w
    .endr
    ldr   r8, =spidnn_panel
    ldr   r9, [r8, #LEFT]
    ldr   r10, [r8, #SEGMENTS_LEFT]
    subs  r9, r9, #1
    bpl   4b
    subs  r10, r10, #1
    ldr   r11, [r8, #SCALES]
    bne   5f
    ldr   r12, [r8, #Y]
    ldr   r13, [r8, #DY]
    ldr   r9, [r11, #4 * \w]!
    ldr   r14, [r8, #ROUND]
    ldr   r10, [r8, #SHIFT]
    add   r13, r12, r13
    column \p, r0, r4, (\w > 1)
    .if \w > 1
    column \p, r1, r5, (\w > 2)
    .endif
    .if \w > 2
    column \p, r2, r6, (\w > 3)
    .endif
    .if \w > 3
    column \p, r3, r7, 0
    .endif
    ldmia r8, {r0-r3}
    ldr   r9, [r8, #COUNT]
    add   r0, r0, r2
    add   r1, r1, r3
    stmia r8, {r0, r1}
    subs  r9, r9, #1
    str   r9, [r8, #COUNT]
    bne   1b
    ldr   sp, [r8, #STACK]
    ldmfd sp!, {r4-r11, lr}
    bx    lr
5:
    ldr   r11, [r8, #X_NEXT]
    str   r10, [r8, #SEGMENTS_LEFT]
    ldr   r9, [r8, #TURNS]
    add   r12, r12, r11
    .if \p == 2
    add   r13, r13, r11
    .endif
    ldr   r10, [r8, #ENTRY]
    str   r9, [r8, #LEFT]
    mov   pc, r10
    .ltorg
    .endm

    .arm
    .section .text.spidnn_panel_24, "ax"
    panel 2, 4, 32
    .section .text.spidnn_panel_23, "ax"
    panel 2, 3, 4
    .section .text.spidnn_panel_22, "ax"
    panel 2, 2, 16
    .section .text.spidnn_panel_21, "ax"
    panel 2, 1, 4
    .section .text.spidnn_panel_14, "ax"
    panel 1, 4, 16
