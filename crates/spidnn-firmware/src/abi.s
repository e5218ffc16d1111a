    @ What the compiler calls: copying and filling memory (words go by fours where both sides are aligned), products and quotients of
    @ whole numbers, for which Thumb code has no instruction (Run-time ABI for the ARM Architecture, sections 4.2 and 4.3).
    .section .text.abi, "ax"
    .arm
    .balign 4

    .global memcpy, __aeabi_memcpy, __aeabi_memcpy4, __aeabi_memcpy8
    .type memcpy, %function
    .type __aeabi_memcpy, %function
    .type __aeabi_memcpy4, %function
    .type __aeabi_memcpy8, %function
memcpy:
__aeabi_memcpy:
    orr   r3, r0, r1
    tst   r3, #3
    bne   copy_bytes
__aeabi_memcpy4:
__aeabi_memcpy8:
    stmfd sp!, {r0, r4, lr}
    subs  r2, r2, #16
    bcc   2f
1:
    ldmia r1!, {r3, r4, r12, lr}
    stmia r0!, {r3, r4, r12, lr}
    subs  r2, r2, #16
    bcs   1b
2:
    adds  r2, r2, #12               @ carry: a word at least is left
    bcc   4f
3:
    ldr   r3, [r1], #4
    str   r3, [r0], #4
    subs  r2, r2, #4
    bcs   3b
4:
    adds  r2, r2, #4                @ bytes
    beq   6f
5:
    ldrb  r3, [r1], #1
    strb  r3, [r0], #1
    subs  r2, r2, #1
    bne   5b
6:
    ldmfd sp!, {r0, r4, pc}
copy_bytes:
    cmp   r2, #0
    bxeq  lr
    mov   r12, r0
1:
    ldrb  r3, [r1], #1
    strb  r3, [r12], #1
    subs  r2, r2, #1
    bne   1b
    bx    lr

    .global memset, __aeabi_memset, __aeabi_memset4, __aeabi_memset8
    .global __aeabi_memclr, __aeabi_memclr4, __aeabi_memclr8
    .type memset, %function
    .type __aeabi_memset, %function
    .type __aeabi_memset4, %function
    .type __aeabi_memset8, %function
    .type __aeabi_memclr, %function
    .type __aeabi_memclr4, %function
    .type __aeabi_memclr8, %function
memset:
    mov   r3, r1
    mov   r1, r2
    mov   r2, r3
__aeabi_memset:
__aeabi_memset4:
__aeabi_memset8:
    and   r2, r2, #0xFF
    orr   r2, r2, r2, lsl #8
    orr   r2, r2, r2, lsl #16
    b     fill
__aeabi_memclr:
__aeabi_memclr4:
__aeabi_memclr8:
    mov   r2, #0
fill:
    stmfd sp!, {r0, lr}
1:
    tst   r0, #3                    @ bytes up to a word
    beq   2f
    subs  r1, r1, #1
    bcc   8f
    strb  r2, [r0], #1
    b     1b
2:
    mov   r3, r2
    mov   r12, r2
    mov   lr, r2
    subs  r1, r1, #16
    bcc   4f
3:
    stmia r0!, {r2, r3, r12, lr}
    subs  r1, r1, #16
    bcs   3b
4:
    adds  r1, r1, #12
    bcc   6f
5:
    str   r2, [r0], #4
    subs  r1, r1, #4
    bcs   5b
6:
    adds  r1, r1, #4
    beq   8f
7:
    strb  r2, [r0], #1
    subs  r1, r1, #1
    bne   7b
8:
    ldmfd sp!, {r0, pc}

    @ r1:r0 times r3:r2, modulo 2^64.
    .global __aeabi_lmul
    .type __aeabi_lmul, %function
__aeabi_lmul:
    mul   r3, r0, r3
    mla   r3, r2, r1, r3
    umull r0, r1, r2, r0
    add   r1, r1, r3
    bx    lr

    @ r0 / r1 to r0, remainder to r1: a step for each bit of the quotient. By zero: zero, and r0 remains.
    .global __aeabi_uidiv, __aeabi_uidivmod
    .type __aeabi_uidiv, %function
    .type __aeabi_uidivmod, %function
__aeabi_uidiv:
__aeabi_uidivmod:
    clz   r2, r0
    clz   r3, r1
    subs  r3, r3, r2                @ bits by which the divisor is shorter
    mov   r2, #0
    blt   2f
    cmp   r1, #0
    beq   2f
    mov   r1, r1, lsl r3
1:
    cmp   r0, r1
    adc   r2, r2, r2
    subhs r0, r0, r1
    mov   r1, r1, lsr #1
    subs  r3, r3, #1
    bge   1b
2:
    mov   r1, r0
    mov   r0, r2
    bx    lr
