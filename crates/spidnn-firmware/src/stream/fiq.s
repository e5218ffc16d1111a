    @ A multicast packet is here. This mode's own registers keep what the handlers need: r8 communications controller, the rest below.
fiq_entry:
    ldr   pc, fiq_handler
    .global fiq_handler
fiq_handler:
    .word fiq_hand

    @ A hand: r9 variables (control.rs): base of the ring in memory, its first address that is expected, bitmap. Bit 15 of the key says
    @ control; else bits 14:0 are the place of the word in a ring of 128 KiB, whose part below the first address stands for what comes
    @ after its end.
fiq_hand:
1:
    ldr   r12, [r8, #0x10]          @ payload
    ldr   r11, [r8, #0x14]          @ key; frees the controller
    tst   r11, #0x8000
    bne   2f
    ldmia r9, {r10, r13}
    mov   r11, r11, lsl #17
    add   r10, r10, r11, lsr #15
    cmp   r10, r13
    addlo r10, r10, #0x20000
    str   r12, [r10]
    ldr   r13, [r9, #8]
    mov   r10, r11, lsr #22
    add   r13, r13, r10, lsl #2
    ldr   r10, [r13]
    mov   r11, r11, lsr #17
    and   r11, r11, #31
    mov   r12, #1
    orr   r10, r10, r12, lsl r11
    str   r10, [r13]
    ldr   r11, [r8, #0x0C]          @ status: bit 31 received
    cmp   r11, #0
    bmi   1b
    subs  pc, lr, #4
2:
    and   r11, r11, #63
    mov   r13, #0x00400000          @ control words (memory.rs)
    add   r13, r13, #0x1000
    str   r12, [r13, r11, lsl #2]
    ldr   r11, [r8, #0x0C]
    cmp   r11, #0
    bmi   1b
    subs  pc, lr, #4

    @ A gate: r9 ring, before it the next key (at -4) and a key that was not the next (at -8); r10 the next key. Words come in order,
    @ since all packets go one way: what is not the next shows that something was lost.
    .global fiq_gate
fiq_gate:
1:
    ldr   r12, [r8, #0x10]
    ldr   r11, [r8, #0x14]
    cmp   r11, r10
    bne   2f
    mov   r11, r11, lsl #20
    str   r12, [r9, r11, lsr #18]
    add   r10, r10, #1
    bic   r10, r10, #0x1000         @ 4096 words
    str   r10, [r9, #-4]
    ldr   r11, [r8, #0x0C]
    cmp   r11, #0
    bmi   1b
    subs  pc, lr, #4
2:
    tst   r11, #0x8000
    streq r11, [r9, #-8]
    andne r11, r11, #63
    movne r13, #0x00400000
    addne r13, r13, #0x1000
    strne r12, [r13, r11, lsl #2]
    ldr   r11, [r8, #0x0C]
    cmp   r11, #0
    bmi   1b
    subs  pc, lr, #4

