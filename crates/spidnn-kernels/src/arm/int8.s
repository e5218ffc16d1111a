@ Products of halves to bytes: a row of pixels by one panel of columns. See `Panel` in int8.rs.
@
@ In the loops r0-r3: sums of a pixel, r4-r7: of the other, r8, r9: left operands, r10, r11: right operands, r12, r13: left
@ pointers, r14: right pointer. r13 is no stack here: code in this mode has none until the end, and interrupts have modes of their own.

    .equ Y, 0
    .equ X, 4
    .equ Y_STEP, 8
    .equ X_STEP, 12
    .equ OPERANDS, 16          @ X again for LDM: X, DX, W
    .equ DX, 20
    .equ W, 24
    .equ SCALES, 28
    .equ ENTRY, 32
    .equ TURNS, 36
    .equ SEGMENTS, 40
    .equ X_NEXT, 44
    .equ DY, 48
    .equ ZERO, 52
    .equ SHIFT, 56
    .equ COUNT, 60
    .equ LEFT, 64
    .equ SEGMENTS_LEFT, 68
    .equ STACK, 72

    .equ UNROLL, 16

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

@ A column of results: its multiplier is in r9, of the next one comes there. r10: last shift, r11: multipliers, r12, r13: results,
@ r14: zero point.
    .macro column pixels, sum, other, more
    smulwb \sum, \sum, r9
    .if \pixels == 2
    smulwb \other, \other, r9
    .endif
    .if \more
    ldr   r9, [r11], #4
    .endif
    movs  \sum, \sum, asr r10
    adc   \sum, \sum, r14
    .if \pixels == 2
    movs  \other, \other, asr r10
    adc   \other, \other, r14
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

@ A row of tiles of \p pixels by \w columns.
    .macro panel p, w
    .global spidnn_panel_\p\w
spidnn_panel_\p\w:
    stmfd sp!, {r4-r11, lr}
    ldr   r8, =spidnn_panel
    str   sp, [r8, #STACK]
1:
    ldr   r11, [r8, #SCALES]
    add   r10, r8, #OPERANDS
    ldmia r10, {r12, r13, r14}
    .if \w == 4
    ldmia r11, {r0-r3}
    .elseif \w == 3
    ldmia r11, {r0-r2}
    .elseif \w == 2
    ldmia r11, {r0-r1}
    .else
    ldr   r0, [r11]
    .endif
    ldr   r9, [r8, #SEGMENTS]
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
    cmp   r9, #0
    str   r9, [r8, #SEGMENTS_LEFT]
    beq   3f
2:
    ldr   r9, [r8, #TURNS]
    str   r9, [r8, #LEFT]
    mov   pc, r10
    .global spidnn_pairs_\p\w
spidnn_pairs_\p\w:
    .rept UNROLL
    pair_\p\w
    .endr
    ldr   r8, =spidnn_panel
    ldr   r9, [r8, #LEFT]
    ldr   r10, [r8, #X_NEXT]
    subs  r9, r9, #1
    str   r9, [r8, #LEFT]
    bpl   spidnn_pairs_\p\w
    ldr   r9, [r8, #SEGMENTS_LEFT]
    add   r12, r12, r10
    .if \p == 2
    add   r13, r13, r10
    .endif
    ldr   r10, [r8, #ENTRY]
    subs  r9, r9, #1
    str   r9, [r8, #SEGMENTS_LEFT]
    bne   2b
3:
    ldr   r11, [r8, #SCALES]
    ldr   r12, [r8, #Y]
    add   r10, r8, #DY
    add   r11, r11, #4 * \w
    ldr   r9, [r11], #4
    ldmia r10, {r13, r14}
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
    str   r1, [r8, #OPERANDS]
    subs  r9, r9, #1
    str   r9, [r8, #COUNT]
    bne   1b
    ldr   sp, [r8, #STACK]
    ldmfd sp!, {r4-r11, lr}
    bx    lr
    .ltorg
    .endm

    .arm
    .section .text.spidnn_panel_24, "ax"
    panel 2, 4
    .section .text.spidnn_panel_23, "ax"
    panel 2, 3
    .section .text.spidnn_panel_22, "ax"
    panel 2, 2
    .section .text.spidnn_panel_21, "ax"
    panel 2, 1
    .section .text.spidnn_panel_14, "ax"
    panel 1, 4
