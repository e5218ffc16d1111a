    @ Interrupts other than packets. Ends of DMA rows are handled right here, since a transfer of many short rows makes many: the
    @ oldest job counts down, the job that is being submitted gives the controller its next row (transfers.rs has the structure).
    @ What else is pending goes to `irq`. The return address + 4 comes in lr.
irq_entry:
    sub   lr, lr, #4
    stmfd sp!, {r0-r3, r12, lr}
    ldr   r3, =TRANSFERS
    mov   r2, #0x30000000           @ DMA controller
    ldr   r0, [r2, #0x14]           @ status
    tst   r0, #0x400                @ a row has ended
    beq   4f
    mov   r1, #8
    str   r1, [r2, #0x10]           @ acknowledge
    ldr   r12, [r3, #64]            @ the oldest job
    ldr   r1, [r12, #24]            @ rows to end
    subs  r1, r1, #1
    str   r1, [r12, #24]
    bne   2f
    ldr   r0, [r12, #28]            @ tag
    add   r0, r0, r3
    ldrb  r1, [r0, #80]             @ jobs with this tag
    sub   r1, r1, #1
    strb  r1, [r0, #80]
    eor   r12, r12, #32             @ the other job is the oldest now
    str   r12, [r3, #64]
    ldr   r1, [r3, #72]             @ jobs
    sub   r1, r1, #1
    str   r1, [r3, #72]
    ldr   r0, =RINGS + 672          @ news
    str   r0, [r0]
2:
    ldr   r12, [r3, #68]            @ the job that is being submitted
    cmp   r12, #0
    ldreq r1, [r3, #76]             @ rows that the controller holds
    subeq r1, r1, #1
    streq r1, [r3, #76]
    beq   3f
    ldmia r12, {r0, r1, lr}
    str   r0, [r2, #0x04]
    str   r1, [r2, #0x08]
    str   lr, [r2, #0x0C]
    ldr   lr, [r12, #12]
    add   r0, r0, lr
    ldr   lr, [r12, #16]
    add   r1, r1, lr
    stmia r12, {r0, r1}
    ldr   lr, [r12, #20]            @ rows to submit
    subs  lr, lr, #1
    str   lr, [r12, #20]
    bne   3f
    eor   r12, r12, #32
    ldr   lr, [r12, #20]
    cmp   lr, #0
    moveq r12, #0
    str   r12, [r3, #68]
3:
    ldmfd sp!, {r0-r3, r12, pc}^    @ another row that has ended, or another source, comes again at once
4:
    bl    irq
    ldmfd sp!, {r0-r3, r12, pc}^

    .ltorg
