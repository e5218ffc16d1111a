    @ A multicast packet is here. This mode's own registers keep what it needs (set in packets.rs): r8 communications controller,
    @ r9 the open block whose words came last, r10 the variables. A ring that has one place left stops the source until the runtime has taken
    @ something. Words of an open block go where they belong at once, and that path is the short one: streams are made of them.
fiq_entry:
    ldr   r11, [r8, #0x0C]          @ status: bit 17 with payload
    ldr   r12, [r10, #20]           @ epoch of the barrier
    tst   r11, #0x00020000
    bne   2f
    ldr   r11, [r8, #0x14]          @ key; frees the controller
    mov   r13, #1
    eor   r12, r12, r11
    tst   r12, #0x6F00              @ is it one of those that are counted?
    bne   7f
    movs  r11, r13, lsl r11         @ its number: the lowest byte
    ldr   r13, [r10, #36]           @ numbers that have to come
    bmi   9f
    bics  r13, r13, r11
    str   r13, [r10, #36]
    subsne pc, lr, #4
    mov   r13, #0x40000000          @ all are here: send, once
    str   r13, [r10, #36]
    ldr   r12, [r10, #40]
8:
    ldr   r13, [r8]
    tst   r13, #0x10000000          @ not full
    beq   8b
    str   r12, [r8, #8]
    subs  pc, lr, #4
9:
    str   r10, [r10, #28]           @ the barrier is over: news
    str   r10, [r10, #32]
    ldr   r11, [r10, #20]           @ the next epoch from now on
    ldr   r12, [r10, #40]
    ldr   r13, [r10, #24]
    add   r11, r11, #0x100
    and   r11, r11, #0xF00
    bic   r12, r12, #0xF00
    orr   r12, r12, r11
    str   r13, [r10, #36]
    str   r11, [r10, #20]
    str   r12, [r10, #40]
    subs  pc, lr, #4
2:
    ldr   r12, [r8, #0x10]          @ payload
    ldr   r11, [r8, #0x14]          @ key; frees the controller
    ldr   r13, [r9]                 @ the block's keys
    cmp   r13, r11, lsr #7
    bne   5f
1:
    ldr   r13, [r9, #4]             @ its address
    and   r11, r11, #127
    str   r12, [r13, r11, lsl #2]
    mov   r13, #1
    and   r12, r11, #31
    mov   r13, r13, lsl r12
    mov   r12, r11, lsr #5
    add   r12, r9, r12, lsl #2
    ldr   r11, [r12, #8]            @ its bitmap
    str   r10, [r10, #32]           @ news: any number but zero
    orr   r11, r11, r13
    str   r11, [r12, #8]
    subs  pc, lr, #4
5:
    add   r9, r10, #48              @ another block?
4:
    ldr   r13, [r9]
    cmn   r13, #2                   @ the end of the table
    beq   6f
    cmp   r13, r11, lsr #7
    addne r9, r9, #24
    bne   4b
    b     1b
6:
    ldr   r13, [r10, #0]
    str   r12, [r13, #256]
    str   r11, [r13], #4
    bic   r13, r13, #256
    str   r13, [r10, #0]
    ldr   r11, [r10, #4]
    add   r12, r13, #4
    bic   r12, r12, #256
    str   r10, [r10, #32]
    str   r10, [r10, #44]           @ something waits
    cmp   r12, r11
    beq   3f
    subs  pc, lr, #4
7:
    ldr   r13, [r10, #8]
    str   r11, [r13], #4
    bic   r13, r13, #128
    str   r13, [r10, #8]
    ldr   r11, [r10, #12]
    add   r12, r13, #4
    bic   r12, r12, #128
    str   r10, [r10, #32]
    str   r10, [r10, #44]
    cmp   r12, r11
    beq   3f
    subs  pc, lr, #4
3:
    mov   r11, #0x1F000000          @ interrupt controller: disable the source
    mov   r12, #0x01000000
    str   r12, [r11, #0x14]
    str   r12, [r10, #16]
    subs  pc, lr, #4

