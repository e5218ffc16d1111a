    @ Sleeps until there are news (packets.rs), and takes note of them. Nothing comes between looking and sleeping; an interrupt that is
    @ pending ends the sleep, and is handled after it.
    .section .text.spidnn_sleep, "ax"
    .arm
    .balign 4
    .global spidnn_sleep
    .type spidnn_sleep, %function
spidnn_sleep:
    ldr   r1, =RINGS + 672
    mov   r2, #0
1:
    msr   cpsr_c, #0xD3             @ supervisor mode, both interrupts masked
    ldr   r0, [r1]
    cmp   r0, #0
    bne   2f
    mcr   p15, 0, r0, c7, c0, 4     @ wait for interrupt
    msr   cpsr_c, #0x13
    b     1b
2:
    str   r2, [r1]
    msr   cpsr_c, #0x13
    bx    lr

    @ Comes to a barrier with numbers (r0), tells who is above if these were the last, and sleeps until there are news. Not zero if the
    @ barrier is over. (As in fiq.s; news are those that come from now on, and packets that wait.)
    .global spidnn_meet
    .type spidnn_meet, %function
spidnn_meet:
    ldr   r1, =RINGS + 640
    msr   cpsr_c, #0xD3
    ldr   r2, [r1, #36]             @ numbers that have to come
    ldr   r3, [r1, #44]
    ldr   r12, [r1, #40]
    bics  r2, r2, r0
    str   r3, [r1, #32]             @ news
    bne   2f
    mov   r3, #0x10000000           @ communications controller
1:
    ldr   r2, [r3]
    tst   r2, #0x10000000           @ not full
    beq   1b
    str   r12, [r3, #8]
    mov   r2, #0x40000000
2:
    str   r2, [r1, #36]
3:
    ldr   r2, [r1, #32]
    ldr   r0, [r1, #28]             @ over
    orrs  r2, r2, r0
    bne   4f
    mcr   p15, 0, r0, c7, c0, 4     @ wait for interrupt
    msr   cpsr_c, #0x13
    b     5f                        @ interrupts come here
5:
    msr   cpsr_c, #0xD3
    b     3b
4:
    msr   cpsr_c, #0x13
    bx    lr

    .ltorg
