    @ A multicast packet is here. This mode's own registers keep what it needs (set in packets.rs): r8 communications controller,
    @ r9 place in the ring of packets with payload (keys; the payload 256 bytes behind), r10 the variables of both rings. A ring that
    @ has one place left stops the source until the runtime has taken something. Words of an open block go where they belong at once.
fiq_entry:
    ldr   r11, [r8, #0x0C]          @ status: bit 31 received, bit 17 with payload
1:
    tst   r11, #0x00020000
    beq   2f
    ldr   r12, [r8, #0x10]          @ payload
    ldr   r11, [r8, #0x14]          @ key; frees the controller
    add   r13, r10, #36
    stmia r13, {r0, r1, r2}
    mov   r0, r11, lsr #7
    add   r1, r10, #48
4:
    ldr   r2, [r1], #24             @ the next open block's keys
    cmp   r2, #0
    beq   6f
    cmp   r2, r0
    bne   4b
    ldr   r2, [r1, #-20]            @ its address
    and   r0, r11, #127
    str   r12, [r2, r0, lsl #2]
    mov   r2, r0, lsr #5
    sub   r1, r1, #16
    ldr   r12, [r1, r2, lsl #2]!    @ its bitmap
    and   r0, r0, #31
    mov   r2, #1
    orr   r12, r12, r2, lsl r0
    str   r12, [r1]
    ldr   r12, [r10, #32]
    add   r12, r12, #1
    str   r12, [r10, #32]
    ldmia r13, {r0, r1, r2}
    ldr   r11, [r8, #0x0C]
    cmp   r11, #0
    bmi   1b
    subs  pc, lr, #4
6:
    ldmia r13, {r0, r1, r2}
    str   r12, [r9, #256]
    str   r11, [r9], #4
    bic   r9, r9, #256
    str   r9, [r10, #0]
    ldr   r11, [r10, #4]
    add   r12, r9, #4
    bic   r12, r12, #256
    cmp   r12, r11
    beq   3f
    ldr   r11, [r8, #0x0C]
    cmp   r11, #0
    bmi   1b
    subs  pc, lr, #4
2:
    ldr   r11, [r8, #0x14]
    ldr   r12, [r10, #20]           @ is it one of those that are counted?
    ldr   r13, [r10, #24]
    eor   r12, r12, r11
    tst   r12, r13
    bne   7f
    mov   r11, r11, lsr #4          @ its number (what lies above is zero in this byte)
    mov   r12, #1
    mov   r11, r12, lsl r11
    ldr   r12, [r10, #28]
    orr   r12, r12, r11
    str   r12, [r10, #28]
    ldr   r11, [r8, #0x0C]
    cmp   r11, #0
    bmi   1b
    subs  pc, lr, #4
7:
    ldr   r13, [r10, #8]
    str   r11, [r13], #4
    bic   r13, r13, #128
    str   r13, [r10, #8]
    ldr   r11, [r10, #12]
    add   r12, r13, #4
    bic   r12, r12, #128
    cmp   r12, r11
    beq   3f
    ldr   r11, [r8, #0x0C]
    cmp   r11, #0
    bmi   1b
    subs  pc, lr, #4
3:
    mov   r11, #0x1F000000          @ interrupt controller: disable the source
    mov   r12, #0x01000000
    str   r12, [r11, #0x14]
    str   r12, [r10, #16]
    subs  pc, lr, #4

