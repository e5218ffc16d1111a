@ Functions of every word of one or two vectors, and the smallest functions.

    .section .text.spidnn_loops, "ax", %progbits
    .arm
    .balign 4
    .global spidnn_map
    .type spidnn_map, %function
@ map(function: r0, x: r1, count: r2, parameter: r3): x = function(x, parameter)
spidnn_map:
    stmfd sp!, {r4-r7, r8, lr}
    cmp   r2, #0
    beq   2f
    mov   r4, r0
    mov   r5, r1
    mov   r6, r2
    mov   r7, r3
1:  ldr   r0, [r5]
    mov   r1, r7
    blx   r4
    subs  r6, r6, #1
    str   r0, [r5], #4
    bne   1b
2:  ldmfd sp!, {r4-r7, r8, pc}

    .global spidnn_zip
    .type spidnn_zip, %function
@ zip(zip: r0, count: r1): see `Zip`.
spidnn_zip:
    stmfd sp!, {r4-r10, lr}
    cmp   r1, #0
    beq   2f
    mov   r10, r1
    ldmia r0, {r4-r9}
1:  ldr   r0, [r5], r6
    ldr   r1, [r7], r8
    blx   r4
    subs  r10, r10, #1
    str   r0, [r9], #4
    bne   1b
2:  ldmfd sp!, {r4-r10, pc}

    .global spidnn_relu
    .type spidnn_relu, %function
@ The larger of r0 and +0; a NaN if it is one.
spidnn_relu:
    mov   r1, r0, lsl #1
    cmp   r1, #0xFF000000
    bhi   nan
    cmp   r0, #0
    movlt r0, #0
    bx    lr
nan:
    mov   r0, #0x7F000000
    orr   r0, r0, #0x00C00000
    bx    lr

    .global spidnn_leaky_relu
    .type spidnn_leaky_relu, %function
@ r0, or times r1 below zero.
spidnn_leaky_relu:
    cmp   r0, #0x80000000
    bhi   spidnn_mul
    @ Falls through.

    .global spidnn_number
    .type spidnn_number, %function
@ r0; every NaN as the one that is stored.
spidnn_number:
    mov   r2, r0, lsl #1
    cmp   r2, #0xFF000000
    movhi r0, #0x7F000000
    orrhi r0, r0, #0x00C00000
    bx    lr

@ The larger or smaller of r0 and r1 (r1 if they are equal); a NaN if there is one.
    .macro extreme name, first, second
    .global \name
    .type \name, %function
\name:
    mov   r3, #0xFF000000
    cmp   r3, r0, lsl #1
    cmphs r3, r1, lsl #1
    blo   nan
    movs  r2, r0
    rsbmi r2, r2, #0x80000000
    movs  r3, r1
    rsbmi r3, r3, #0x80000000
    cmp   \first, \second
    movge r0, r1
    bx    lr
    .endm
    extreme spidnn_max, r3, r2
    extreme spidnn_min, r2, r3

    .global spidnn_pool_max
    .type spidnn_pool_max, %function
@ pool_max(best: r0, x: r1, count: r2): the larger word by the order of integers that numbers have; best where they are equal.
spidnn_pool_max:
    stmfd sp!, {r4, lr}
1:  ldr   r12, [r0]
    ldr   r3, [r1], #4
    movs  r4, r12
    rsbmi r4, r4, #0x80000000
    movs  r14, r3
    rsbmi r14, r14, #0x80000000
    cmp   r14, r4
    movgt r12, r3
    subs  r2, r2, #1
    str   r12, [r0], #4
    bne   1b
    ldmfd sp!, {r4, pc}

    .global spidnn_less
    .type spidnn_less, %function
@ 1 if r0 < r1 (not with a NaN), else 0.
spidnn_less:
    mov   r3, #0xFF000000
    cmp   r3, r0, lsl #1
    cmphs r3, r1, lsl #1
    blo   1f
    movs  r2, r0
    rsbmi r2, r2, #0x80000000
    movs  r3, r1
    rsbmi r3, r3, #0x80000000
    cmp   r2, r3
    movlt r0, #1
    bxlt  lr
1:  mov   r0, #0
    bx    lr

    .global spidnn_relu_grad
    .type spidnn_relu_grad, %function
@ r0 times 1 where r1 is above zero, else times 0; a NaN if there is one.
spidnn_relu_grad:
    mov   r2, r1, lsl #1
    cmp   r2, #0xFF000000
    bhi   nan
    cmp   r1, #0
    bgt   spidnn_number
    mov   r2, r0, lsl #1
    cmp   r2, #0xFF000000
    andlo r0, r0, #0x80000000
    bxlo  lr
    b     nan
