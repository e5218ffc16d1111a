@ IEEE binary32 addition and multiplication, round half to even. Arguments and result in r0, r1; r2, r3, r12 are lost.
@ The usual case is here; zeros beyond it, subnormals, infinities and NaNs go to the portable forms.

    .section .text.spidnn_float, "ax", %progbits
    .arm
    .balign 4
    .global spidnn_sub
    .type spidnn_sub, %function
spidnn_sub:
    eor   r1, r1, #0x80000000
    .global spidnn_add
    .type spidnn_add, %function
spidnn_add:
    mov   r2, r0, lsl #1
    cmp   r2, r1, lsl #1
    eorlo r1, r0, r1                @ the larger magnitude to r0
    eorlo r0, r0, r1
    eorlo r1, r0, r1
    @ Exponent of the larger in 35 .. 253: no result overflows or is subnormal, and a zero or subnormal
    @ other operand is shifted out whatever its hidden bit.
    mov   r12, r0, lsl #1
    sub   r12, r12, #0x23000000
    cmp   r12, #0xDB000000
    bhs   add_rare
    mov   r2, r0, lsr #23           @ sign and exponent
    sub   r3, r2, r1, lsr #23       @ low byte: distance of the exponents
    teq   r0, r1
    mov   r12, #0x80000000
    orr   r0, r12, r0, lsl #8       @ mantissas, hidden bit on top
    orr   r1, r12, r1, lsl #8
    bmi   add_unlike
    adds  r0, r0, r1, lsr r3
    bcs   add_carry
    teq   r12, r0, lsl #24          @ exactly half, as far as is to be seen?
    beq   add_half
    movs  r0, r0, lsr #8
    adc   r0, r0, r2, lsl #23       @ the hidden bit counts one in the exponent
    sub   r0, r0, #0x00800000
    bx    lr

add_carry:
    movs  r0, r0, rrx
    orrcs r0, r0, #1
    teq   r12, r0, lsl #24
    beq   add_carry_half
    movs  r0, r0, lsr #8
    adc   r0, r0, r2, lsl #23
    bx    lr

add_unlike:
    subs  r0, r0, r1, lsr r3
    bmi   add_normal
    beq   add_zero
    clz   r12, r0
    mov   r0, r0, lsl r12
    sub   r2, r2, r12
    mov   r12, #0x80000000
add_normal:
    teq   r12, r0, lsl #24
    beq   sub_half
    movs  r0, r0, lsr #8
    adc   r0, r0, r2, lsl #23
    sub   r0, r0, #0x00800000
    bx    lr

add_zero:
    mov   r0, #0
    bx    lr

    @ Half, if nothing of the smaller was shifted out: bits of r1 below its bit r3. (The distance is below 32 here.)
add_carry_half:
    add   r2, r2, #1
add_half:
    rsb   r12, r3, #32
    movs  r12, r1, lsl r12
    bne   add_up                    @ more than half
    tst   r0, #0x100
    biceq r0, r0, #0x80
add_up:
    movs  r0, r0, lsr #8
    adc   r0, r0, r2, lsl #23
    sub   r0, r0, #0x00800000
    bx    lr
sub_half:
    rsb   r12, r3, #32
    movs  r12, r1, lsl r12
    bicne r0, r0, #0x80             @ less than half
    bne   add_up
    tst   r0, #0x100
    biceq r0, r0, #0x80
    b     add_up

add_rare:
    movs  r2, r0, lsl #1            @ both zero: the sign if it is the same
    andeq r0, r0, r1
    bxeq  lr
    b     spidnn_add_rare

    .global spidnn_mul
    .type spidnn_mul, %function
spidnn_mul:
    mov   r12, #0xFF
    ands  r2, r12, r0, lsr #23
    andsne r3, r12, r1, lsr #23
    beq   mul_rare
    teq   r2, #0xFF
    teqne r3, #0xFF
    beq   mul_rare
    add   r2, r2, r3
    eor   r3, r0, r1
    mov   r12, #0x80000000
    and   r3, r3, r12               @ sign
    orr   r0, r12, r0, lsl #8
    orr   r1, r12, r1, lsl #8
    sub   r2, r2, #128
    str   r4, [sp, #-4]!
    umull r4, r0, r1, r0
    cmp   r0, #0
    bmi   1f
    adds  r4, r4, r4
    adc   r0, r0, r0
    b     2f
1:  add   r2, r2, #1
2:  cmp   r2, #254
    bhs   mul_out
    teq   r12, r0, lsl #24
    beq   mul_half
3:  movs  r0, r0, lsr #8
    adc   r0, r0, r2, lsl #23
    orr   r0, r0, r3
    ldr   r4, [sp], #4
    bx    lr
mul_half:
    cmp   r4, #0
    bne   3b
    tst   r0, #0x100
    biceq r0, r0, #0x80
    b     3b
mul_out:
    @ Beyond the exponents: the portable form, from magnitude and exponent. r0:r4 has its top bit at 2^(r2 - 126).
    @ An overflow is an infinity; a subnormal is rounded anew.
    cmp   r2, #0
    blt   4f
    orr   r0, r3, #0x7F000000
    orr   r0, r0, #0x00800000
    ldr   r4, [sp], #4
    bx    lr
4:  mov   r1, r0
    mov   r0, r4
    ldr   r4, [sp], #4
    b     spidnn_mul_small          @ (low, high, exponent, sign)
mul_rare:
    @ A zero times a finite number.
    mov   r12, #0xFF000000
    movs  r2, r0, lsl #1
    movsne r2, r1, lsl #1
    bne   5f
    cmp   r12, r0, lsl #1
    cmphi r12, r1, lsl #1
    bls   5f
    eor   r0, r0, r1
    and   r0, r0, #0x80000000
    bx    lr
5:  b     spidnn_mul_rare
