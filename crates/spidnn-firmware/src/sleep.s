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

    .ltorg
