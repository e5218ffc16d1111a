@ Copies and fills of words.

    .section .text.spidnn_moves, "ax", %progbits
    .arm
    .balign 4
    .global spidnn_copy
    .type spidnn_copy, %function
@ copy(from: r0, to: r1, count: r2); the areas are apart.
spidnn_copy:
    stmfd sp!, {r4-r9, lr}
    subs  r2, r2, #8
    blo   2f
1:  ldmia r0!, {r3-r9, r12}
    subs  r2, r2, #8
    stmia r1!, {r3-r9, r12}
    bhs   1b
2:  adds  r2, r2, #8
    beq   4f
3:  ldr   r3, [r0], #4
    subs  r2, r2, #1
    str   r3, [r1], #4
    bne   3b
4:  ldmfd sp!, {r4-r9, pc}

    .global spidnn_fill
    .type spidnn_fill, %function
@ fill(to: r0, count: r1, value: r2)
spidnn_fill:
    stmfd sp!, {r4-r8, lr}
    mov   r3, r2
    mov   r4, r2
    mov   r5, r2
    mov   r6, r2
    mov   r7, r2
    mov   r8, r2
    mov   r12, r2
    subs  r1, r1, #16
    blo   2f
1:  stmia r0!, {r2-r8, r12}
    subs  r1, r1, #16
    stmia r0!, {r2-r8, r12}
    bhs   1b
2:  adds  r1, r1, #16
    beq   4f
3:  subs  r1, r1, #1
    str   r2, [r0], #4
    bne   3b
4:  ldmfd sp!, {r4-r8, pc}
