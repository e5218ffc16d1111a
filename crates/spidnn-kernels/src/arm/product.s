@ Products of mantissas, or of words of two halves: rows of results, each in tiles of four, three, two and one columns. See
@ `ProductRows` in mod.rs. Both forms are made by the macro `products` with \k = words or halves.
@
@ Sums are in r0-r7, the last column in r6, r7: of words 64 bits. Of halves the high register counts 2^24, and the low one has room for four
@ products beside the 24 bits that are left in it: what is above goes to the high one after every second word of a segment, and always after the
@ last (`carry`). A loop is entered where so many words are left; so its words come in pairs, the second with the carry. In the loops r8: left operand, r9, r10: right operands, r11, r12: pointers,
@ r14: step of the right pointer; in tiles of less than four columns also r0: step of the left pointer, r1: turns.

    .equ A_STEP, 0
    .equ B_STEP, 4
    .equ TERMS, 8
    .equ SEGMENTS, 12
    .equ X_COUNT, 16
    .equ A_X, 20                      @ then B_X, A_Y, B_Y
    .equ A_EXP, 36
    .equ ACCUMULATE, 40
    .equ B_EXPS_STEP, 44
    .equ A, 48
    .equ C, 52                        @ then exponents, columns, right operand
    .equ ROWS, 68
    .equ A_NEXT, 72
    .equ C_NEXT, 76
    .equ A_EXPS, 80
    .equ A_EXPS_STEP, 84

    @ On the stack. From X_A on a copy of A_X, B_X, A_Y, B_Y; at TILE results, exponents, columns and right operand of the tile.
    .equ ROW, 0
    .equ LEFT, 4
    .equ X_LEFT, 8
    .equ A_END, 12
    .equ WIDTH, 16
    .equ ENTRY, 20
    .equ TURNS, 24
    .equ X_MORE, 28
    .equ X_A, 32
    .equ X_B, 36
    .equ Y_A, 40
    .equ Y_B, 44
    .equ TILE, 48
    .equ RESULTS, 64
    @ Of tiles of four columns: the columns that a row must have left for one, bytes of a segment, the way into the loop.
    .equ FOUR, 80
    .equ BYTES, 84
    .equ ENTRY_FOUR, 88
    .equ FRAME, 96

@ Counters; r10: terms of a segment, r11: left pointer, Z: there are no segments. r12 and r14 stay.
    .macro first width
    ldr   r8, [r14, #SEGMENTS]
    ldr   r9, [sp, #X_MORE]
    ldr   r10, [r14, #TERMS]
    ldr   r11, [r14, #A]
    str   r8, [sp, #LEFT]
    str   r9, [sp, #X_LEFT]
    mov   r9, #\width
    str   r9, [sp, #WIDTH]
    cmp   r8, #0
    .endm

@ Both pointers to the next segment; to 2 if there is none.
    .macro next
    ldr   r9, [sp, #LEFT]
    ldr   r10, [sp, #X_LEFT]
    subs  r9, r9, #1
    beq   2f
    str   r9, [sp, #LEFT]
    subs  r10, r10, #1
    bpl   1f
    ldr   r9, [sp, #X_MORE]
    ldr   r8, [sp, #Y_A]
    ldr   r10, [sp, #Y_B]
    str   r9, [sp, #X_LEFT]
3:  add   r11, r11, r8
    add   r12, r12, r10
    ldr   r9, [sp, #ENTRY]
    .subsection 1
1:  str   r10, [sp, #X_LEFT]
    ldr   r8, [sp, #X_A]
    ldr   r10, [sp, #X_B]
    b     3b
    .previous
    .endm

@ \to = \skipped * instructions of a term, which are 4 \width + 1 for halves: as many less \width in the first word of a pair, more in the second.
@ Changes \skipped.
    .macro instructions k, width, to, skipped
    .ifc \k, halves
    tst   \skipped, #1
    .if \width == 3
    add   \to, \skipped, \skipped, lsl #1
    add   \to, \skipped, \to, lsl #2
    .else
    add   \to, \skipped, \skipped, lsl #\width / 2 + 2
    .endif
    subne \to, \to, #\width
    .elseif \width == 3
    rsb   \to, \skipped, \skipped, lsl #3
    .elseif \width == 2
    add   \to, \skipped, \skipped, lsl #2
    .elseif \width == 1
    add   \to, \skipped, \skipped, lsl #1
    .else
    add   \to, \skipped, \skipped, lsl #3
    .endif
    .endm

@ A tile of less than four columns.
    .macro tile k, width
tile_\width\()_\k:
    first \width
    ldr   r0, [r14, #A_STEP]
    beq   finish_\k
    ldr   r14, [r14, #B_STEP]
    add   r1, r10, #3
    mov   r1, r1, lsr #2
    str   r1, [sp, #TURNS]
    rsb   r10, r10, #0
    and   r10, r10, #3
    instructions \k, \width, r8, r10
    adr   r9, loop_\width\()_\k
    add   r9, r9, r8, lsl #2
    str   r9, [sp, #ENTRY]
    mov   pc, r9
loop_\width\()_\k:
    .rept 2
    term_\width \k, 0
    term_\width \k, 1
    .endr
    subs  r1, r1, #1
    bne   loop_\width\()_\k
    next
    ldr   r1, [sp, #TURNS]
    mov   pc, r9
2:  b     finish_\k
    .endm

@ Adds the product of a word of each side: mantissas, or two halves each.
    .macro mac_words low, high, a, b
    smlal \low, \high, \a, \b
    .endm
    .macro mac_halves low, high, a, b
    smlabb \low, \a, \b, \low
    smlatt \low, \a, \b, \low
    .endm

@ Brings what is above the 24 bits of a low register to the high one, in the second word of a pair of halves. Not directly after a product of it.
    .macro carry k, second, low, high
    .ifc \k, halves
    .if \second
    add   \high, \high, \low, asr #24
    bic   \low, \low, #0xFF000000
    .endif
    .endif
    .endm

    .macro term_4 k, second, last
    ldr   r8, [r11], #4
    ldr   r9, [r12, #12]
    ldr   r10, [r12, #8]
    mac_\k r6, r7, r8, r9
    ldr   r9, [r12, #4]
    carry \k, \second, r6, r7
    mac_\k r4, r5, r8, r10
    ldr   r10, [r12], r14
    carry \k, \second, r4, r5
    mac_\k r2, r3, r8, r9
    .ifnb \last
    ldr   r9, [sp, #A_END]
    .endif
    mac_\k r0, r1, r8, r10
    carry \k, \second, r2, r3
    carry \k, \second, r0, r1
    .endm

    .macro term_3 k, second
    ldr   r8, [r11], r0
    ldr   r9, [r12, #8]
    ldr   r10, [r12, #4]
    mac_\k r6, r7, r8, r9
    ldr   r9, [r12], r14
    mac_\k r4, r5, r8, r10
    carry \k, \second, r6, r7
    mac_\k r2, r3, r8, r9
    carry \k, \second, r4, r5
    carry \k, \second, r2, r3
    .endm

    .macro term_2 k, second
    ldr   r8, [r11], r0
    ldr   r9, [r12, #4]
    ldr   r10, [r12], r14
    mac_\k r6, r7, r8, r9
    mac_\k r4, r5, r8, r10
    carry \k, \second, r6, r7
    carry \k, \second, r4, r5
    .endm

    .macro term_1 k, second
    ldr   r8, [r11], r0
    ldr   r9, [r12], r14
    mac_\k r6, r7, r8, r9
    carry \k, \second, r6, r7
    .endm

@ Rounds a sum and stores it: to 24 bits, half to even, if the result is an ordinary number. Sums of halves are below 2^41 and mostly below
@ 2^32: they are shifted up by 22, so that few have an empty high word. What is below zero is cut to 32 bits before it is turned to a magnitude: this
@ may be too large by less than one, which matters where no bit below the 24 and their successor is set.
@ r8: results, r9: exponents of the columns, r10: exponent of the row.
    .macro finish_one k, low, high
    .ifc \k, halves
    mov   \high, \high, lsl #14
    orr   \high, \high, \low, lsr #10
    mov   \low, \low, lsl #22
    .endif
    eors  r11, \high, \high, asr #31
    ldr   r12, [r9], #4
    .ifc \k, words
    beq   30f                         @ of halves the test of the lowest bits finds it
    .endif
    clz   r11, r11
    add   r12, r12, r10
    sub   r12, r12, r11               @ exponent field, less one
    cmp   r12, #254
    bhs   30f
    movs  r14, \high, lsl r11         @ the sign goes; its complement is on top
    rsb   r11, r11, #32
    orr   r14, r14, \low, lsr r11
    rsbpl r14, r14, #0
    addpl r12, r12, #0x100            @ the sign
    tst   r14, #0x7F                  @ perhaps half, or exact
    beq   40f
10: movs  r14, r14, lsr #8
    adc   r14, r14, r12, lsl #23
11: str   r14, [r8], #4
    .subsection 1
30: mov   r11, \low
    mov   r12, \high
    bl    rare_\k
    mov   r14, r12
    b     11b
40: cmp   r14, #0                     @ a power of two below zero, zero, or small
    cmpne r11, #0
    beq   30b
    rsb   r11, r11, #32
    movs  r11, \low, lsl r11
    moveq r11, r14                    @ half or exact: the bit above decides
    eorne r11, r12, #0x100            @ else the sign: below zero this is less than half
    tst   r11, #0x100
    biceq r14, r14, #0x80
    b     10b
    .previous
    .endm

@ r8: where results go, r9: exponents of the columns, r10: exponent of the row.
    .macro outputs k
    ldr   r11, [sp, #ROW]
    ldr   r8, [sp, #TILE]
    ldr   r9, [sp, #TILE + 4]
    ldr   r10, [r11, #A_EXP]
    ldr   r12, [r11, #ACCUMULATE]
    add   r10, r10, #137              @ 63 + 127 - 52 - 1: see finish_one; halves have 22 fraction bits less, and are shifted up
    cmp   r12, #0
    addne r8, sp, #RESULTS
    .endm

    .macro products k
    .arm
    .balign 4
    .global spidnn_product_rows_\k
    .type spidnn_product_rows_\k, %function
spidnn_product_rows_\k:
    stmfd sp!, {r4-r11, lr}
    sub   sp, sp, #FRAME
    mov   r14, r0
    str   r0, [sp, #ROW]
    ldr   r8, [r14, #X_COUNT]
    ldr   r9, [r14, #TERMS]
    add   r0, r0, #A_X
    ldmia r0, {r1-r4}
    sub   r8, r8, #1
    str   r8, [sp, #X_MORE]
    add   r0, sp, #X_A
    stmia r0, {r1-r4}
    @ Tiles of four columns are for left operands side by side.
    ldr   r10, [r14, #A_STEP]
    ldr   r11, [r14, #SEGMENTS]
    mov   r8, r9, lsl #2
    str   r8, [sp, #BYTES]
    mov   r8, #4
    cmp   r10, #4
    mvnne r8, #0
    cmp   r11, #0
    mvneq r8, #0
    str   r8, [sp, #FOUR]
    b     prepare_four_\k
next_row_\k:
    ldr   r8, [r14, #A_EXPS]
    ldr   r9, [r14, #A_EXPS_STEP]
    add   r0, r14, #C
    ldr   r10, [r8], r9
    str   r8, [r14, #A_EXPS]
    str   r10, [r14, #A_EXP]
    ldmia r0, {r9-r12}                @ results, exponents, columns, right operand
    add   r0, sp, #TILE
    stmia r0, {r9-r12}
    mov   r0, #4
    str   r0, [sp, #WIDTH]
next_tile_\k:
    @ r11: columns, r12: right operand, r14: the row.
    ldr   r9, [sp, #FOUR]
    mov   r2, #0
    mov   r3, #0
    mov   r4, #0
    mov   r5, #0
    mov   r6, #0
    mov   r7, #0
    cmp   r11, r9
    blo   few_columns_\k
    ldr   r8, [r14, #SEGMENTS]
    ldr   r9, [sp, #X_MORE]
    ldr   r11, [r14, #A]
    ldr   r10, [sp, #BYTES]
    str   r8, [sp, #LEFT]
    str   r9, [sp, #X_LEFT]
    ldr   r9, [sp, #ENTRY_FOUR]
    add   r8, r11, r10
    str   r8, [sp, #A_END]
    mov   r0, #0
    mov   r1, #0
    ldr   r14, [r14, #B_STEP]
    mov   pc, r9
prepare_four_\k:
    rsb   r10, r9, #0
    .ifc \k, halves
    and   r10, r10, #7
    .else
    and   r10, r10, #15
    .endif
    instructions \k, 4, r8, r10
    adr   r9, loop_4_\k
    add   r9, r9, r8, lsl #2
    str   r9, [sp, #ENTRY_FOUR]
    b     next_row_\k
loop_4_\k:
    .ifc \k, words
    .rept 4
    term_4 \k, 0
    term_4 \k, 1
    .endr
    .endif
    .rept 3
    term_4 \k, 0
    term_4 \k, 1
    .endr
    term_4 \k, 0
    term_4 \k, 1, last
    cmp   r11, r9
    bne   loop_4_\k
    ldr   r9, [sp, #LEFT]
    ldr   r10, [sp, #X_LEFT]
    subs  r9, r9, #1
    bne   more_4_\k
finish_4_\k:
    outputs \k
    finish_one \k, r0, r1
finish_3_\k:
    finish_one \k, r2, r3
finish_2_\k:
    finish_one \k, r4, r5
finish_1_\k:
    finish_one \k, r6, r7
    @ Results and exponents of the next tile are in r8, r9.
    ldr   r14, [sp, #ROW]
    ldr   r4, [sp, #WIDTH]
    ldr   r11, [sp, #TILE + 8]
    ldr   r5, [r14, #ACCUMULATE]
    ldr   r12, [sp, #TILE + 12]
    cmp   r5, #0
    bne   accumulate_\k
tile_done_\k:
    subs  r11, r11, r4
    add   r0, sp, #TILE
    add   r12, r12, r4, lsl #2
    stmne r0, {r8, r9, r11, r12}
    bne   next_tile_\k
    ldr   r8, [r14, #ROWS]
    ldr   r9, [r14, #A]
    ldr   r10, [r14, #A_NEXT]
    subs  r8, r8, #1
    beq   rows_done_\k
    ldr   r11, [r14, #C]
    ldr   r12, [r14, #C_NEXT]
    add   r9, r9, r10
    str   r8, [r14, #ROWS]
    add   r11, r11, r12
    str   r9, [r14, #A]
    str   r11, [r14, #C]
    b     next_row_\k
rows_done_\k:
    add   sp, sp, #FRAME
    ldmfd sp!, {r4-r11, pc}

@ Both pointers and the end to the next segment.
more_4_\k:
    str   r9, [sp, #LEFT]
    subs  r10, r10, #1
    bpl   1f
    ldr   r9, [sp, #X_MORE]
    ldr   r8, [sp, #Y_A]
    ldr   r10, [sp, #Y_B]
    str   r9, [sp, #X_LEFT]
2:  add   r11, r11, r8
    ldr   r8, [sp, #BYTES]
    add   r12, r12, r10
    ldr   r9, [sp, #ENTRY_FOUR]
    add   r8, r8, r11
    str   r8, [sp, #A_END]
    mov   pc, r9
1:  str   r10, [sp, #X_LEFT]
    ldr   r8, [sp, #X_A]
    ldr   r10, [sp, #X_B]
    b     2b

few_columns_\k:
    cmp   r11, #2
    blo   tile_1_\k
    beq   tile_2_\k
    b     tile_3_\k

finish_\k:
    outputs \k
    ldr   r11, [sp, #WIDTH]
    cmp   r11, #2
    blo   finish_1_\k
    beq   finish_2_\k
    b     finish_3_\k

    tile  \k, 3
    tile  \k, 2
    tile  \k, 1

@ Adds the results on the stack, r4 of them, to those in memory.
accumulate_\k:
    add   r5, sp, #RESULTS
    ldr   r6, [sp, #TILE]
    add   r7, r6, r4, lsl #2
1:  ldr   r0, [r5], #4
    ldr   r1, [r6]
    bl    spidnn_add
    str   r0, [r6], #4
    cmp   r6, r7
    bne   1b
    mov   r8, r6
    ldr   r14, [sp, #ROW]
    ldr   r5, [r14, #B_EXPS_STEP]
    ldr   r11, [sp, #TILE + 8]
    cmp   r5, #0
    ldreq r9, [sp, #TILE + 4]
    ldr   r12, [sp, #TILE + 12]
    b     tile_done_\k

@ The sum r11, r12 by the portable form, to r12. Keeps the other registers. Zero is zero, unless a block has a NaN.
rare_\k:
    stmfd sp!, {r0-r3, r11, lr}
    .ifc \k, halves
    mov   r11, r11, lsr #22
    orr   r11, r11, r12, lsl #10
    mov   r12, r12, asr #22
    .endif
    ldr   r3, [r9, #-4]
    orrs  r0, r11, r12
    add   r2, r10, r3
    bne   1f
    cmp   r2, #0x4000
    blt   2f
1:  mov   r0, r11
    mov   r1, r12
    sub   r2, r10, #137
    bl    spidnn_product_rare_\k
    mov   r12, r0
2:  ldmfd sp!, {r0-r3, r11, pc}
    .endm

    .section .text.spidnn_product_rows_words, "ax", %progbits
    products words
    .section .text.spidnn_product_rows_halves, "ax", %progbits
    products halves
