@ Gradients of a convolution's weights from halves: for a tap, products of pairs of input channels (words of x) by pairs of output channels (words of
@ dy), summed over pixels, rounded and added to what is there. See `GradientRows` in mod.rs.
@
@ r0-r7: sums of the four products of two halves, as in product.s, r8, r9: words, r10, r14: steps, r11, r12: pointers. Low registers have room for
@ four pixels; one after the other is brought up to date before a pixel, while words are loaded, and all after the last of a row.

    .equ W_A_STEP, 0
    .equ W_B_STEP, 4
    .equ W_TERMS, 8
    .equ W_SEGMENTS, 12
    .equ W_A_Y, 16
    .equ W_B_Y, 20
    .equ W_A, 24
    .equ W_B, 28
    .equ W_C, 32
    .equ W_COLUMNS, 36
    .equ W_ROWS, 40
    .equ W_A_EXP, 44
    .equ W_B_EXP, 48

    .equ W_ROW, 0
    .equ W_LEFT, 4
    .equ W_END, 8
    .equ W_ENTRY, 12
    .equ W_BYTES, 16                  @ of dy, in a segment
    .equ W_ROWS_LEFT, 20
    .equ W_COLUMNS_LEFT, 24
    .equ W_PLACE_A, 28
    .equ W_PLACE_B, 32
    .equ W_PLACE_C, 36
    .equ W_ROW_C, 40
    .equ W_RESULTS, 44
    .equ W_EXPS, 60
    .equ W_FRAME, 76

    .macro pixel low, high
    ldr   r8, [r11], r10
    ldr   r9, [r12], r14
    carry halves, 1, \low, \high
    smlabb r0, r8, r9, r0
    smlabt r2, r8, r9, r2
    smlatb r4, r8, r9, r4
    smlatt r6, r8, r9, r6
    .endm

    .section .text.spidnn_gradient_halves, "ax", %progbits
    .arm
    .balign 4
    .global spidnn_gradient_halves
    .type spidnn_gradient_halves, %function
spidnn_gradient_halves:
    stmfd sp!, {r4-r11, lr}
    sub   sp, sp, #W_FRAME
    mov   r14, r0
    str   r0, [sp, #W_ROW]
    ldr   r1, [r14, #W_B_EXP]
    ldr   r2, [r14, #W_ROWS]
    str   r1, [sp, #W_EXPS]
    str   r1, [sp, #W_EXPS + 4]
    str   r1, [sp, #W_EXPS + 8]
    str   r1, [sp, #W_EXPS + 12]
    ldr   r3, [r14, #W_A]
    ldr   r4, [r14, #W_C]
    str   r2, [sp, #W_ROWS_LEFT]
    str   r3, [sp, #W_PLACE_A]
    str   r4, [sp, #W_ROW_C]
gradient_rows:
    ldr   r8, [r14, #W_COLUMNS]
    ldr   r9, [r14, #W_B]
    ldr   r10, [sp, #W_ROW_C]
    str   r8, [sp, #W_COLUMNS_LEFT]
    str   r9, [sp, #W_PLACE_B]
    str   r10, [sp, #W_PLACE_C]
gradient_tile:
    ldr   r8, [r14, #W_SEGMENTS]
    mov   r0, #0
    mov   r1, #0
    mov   r2, #0
    mov   r3, #0
    mov   r4, #0
    mov   r5, #0
    mov   r6, #0
    mov   r7, #0
    cmp   r8, #0
    beq   gradient_sums
    str   r8, [sp, #W_LEFT]
    ldr   r9, [r14, #W_TERMS]
    ldr   r10, [r14, #W_A_STEP]
    ldr   r14, [r14, #W_B_STEP]
    ldr   r11, [sp, #W_PLACE_A]
    ldr   r12, [sp, #W_PLACE_B]
    mul   r8, r9, r14
    rsb   r9, r9, #0
    and   r9, r9, #7
    str   r8, [sp, #W_BYTES]
    add   r8, r8, r12
    str   r8, [sp, #W_END]
    adr   r8, gradient_loop
    add   r9, r8, r9, lsl #5          @ eight instructions a pixel
    str   r9, [sp, #W_ENTRY]
    mov   pc, r9
gradient_loop:
    .rept 2
    pixel r0, r1
    pixel r2, r3
    pixel r4, r5
    pixel r6, r7
    .endr
    ldr   r8, [sp, #W_END]
    ldr   r9, [sp, #W_LEFT]
    cmp   r12, r8
    bne   gradient_loop
    carry halves, 1, r0, r1
    carry halves, 1, r2, r3
    carry halves, 1, r4, r5
    carry halves, 1, r6, r7
    subs  r9, r9, #1
    beq   gradient_sums
    str   r9, [sp, #W_LEFT]
    ldr   r8, [sp, #W_ROW]
    nop
    ldr   r9, [r8, #W_A_Y]
    ldr   r8, [r8, #W_B_Y]
    add   r11, r11, r9
    ldr   r9, [sp, #W_BYTES]
    add   r12, r12, r8
    ldr   r8, [sp, #W_ENTRY]
    add   r9, r9, r12
    str   r9, [sp, #W_END]
    mov   pc, r8
gradient_sums:
    ldr   r14, [sp, #W_ROW]
    add   r8, sp, #W_RESULTS
    add   r9, sp, #W_EXPS
    ldr   r10, [r14, #W_A_EXP]
    nop
    add   r10, r10, #137              @ as in product.s
    finish_one halves, r0, r1
    finish_one halves, r2, r3
    finish_one halves, r4, r5
    finish_one halves, r6, r7
    ldr   r6, [sp, #W_PLACE_C]
    ldr   r7, [sp, #W_COLUMNS_LEFT]
    ldr   r8, [sp, #W_ROWS_LEFT]
    add   r5, sp, #W_RESULTS
1:  ldr   r0, [r5]
    ldr   r1, [r6]
    bl    spidnn_add
    cmp   r7, #1
    str   r0, [r6]
    ble   2f
    ldr   r0, [r5, #4]
    ldr   r1, [r6, #4]
    bl    spidnn_add
    str   r0, [r6, #4]
2:  ldr   r14, [sp, #W_ROW]
    subs  r8, r8, #1                  @ the other row, if there is one
    add   r9, sp, #W_RESULTS
    beq   3f
    cmp   r5, r9
    ldr   r4, [r14, #W_COLUMNS]
    add   r5, r5, #8
    add   r6, r6, r4, lsl #2
    beq   1b
3:  ldr   r8, [sp, #W_PLACE_B]
    ldr   r9, [sp, #W_PLACE_C]
    subs  r7, r7, #2
    add   r8, r8, #4
    add   r9, r9, #8
    str   r7, [sp, #W_COLUMNS_LEFT]
    str   r8, [sp, #W_PLACE_B]
    str   r9, [sp, #W_PLACE_C]
    bgt   gradient_tile
    ldr   r7, [sp, #W_ROWS_LEFT]
    ldr   r8, [sp, #W_PLACE_A]
    ldr   r9, [sp, #W_ROW_C]
    ldr   r4, [r14, #W_COLUMNS]
    subs  r7, r7, #2
    add   r8, r8, #4
    add   r9, r9, r4, lsl #3
    str   r7, [sp, #W_ROWS_LEFT]
    str   r8, [sp, #W_PLACE_A]
    str   r9, [sp, #W_ROW_C]
    bgt   gradient_rows
    add   sp, sp, #W_FRAME
    ldmfd sp!, {r4-r11, pc}
