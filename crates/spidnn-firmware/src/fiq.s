    @ A multicast packet is here. This mode's own registers keep what it needs (set in packets.rs): r8 communications controller,
    @ r9 place in the ring of packets with payload (keys; the payload 512 bytes behind), r13 place in the ring of keys without,
    @ r10 the variables of both. A ring that has one place left stops the source until the runtime has taken something.
fiq_entry:
    ldr   r11, [r8, #0x0C]          @ status: bit 31 received, bit 17 with payload
1:
    tst   r11, #0x00020000
    beq   2f
    ldr   r12, [r8, #0x10]          @ payload
    ldr   r11, [r8, #0x14]          @ key; frees the controller
    str   r12, [r9, #512]
    str   r11, [r9], #4
    bic   r9, r9, #512
    str   r9, [r10, #0]
    ldr   r11, [r10, #4]
    add   r12, r9, #4
    bic   r12, r12, #512
    cmp   r12, r11
    beq   3f
    ldr   r11, [r8, #0x0C]
    cmp   r11, #0
    bmi   1b
    subs  pc, lr, #4
2:
    ldr   r11, [r8, #0x14]
    ldr   r12, [r10, #20]           @ is it one of those that are counted?
    ldr   r8, [r10, #24]
    eor   r12, r12, r11
    tst   r12, r8
    mov   r8, #0x10000000
    bne   4f
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
4:
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

