//! Start-up: vectors, modes, stacks, devices; then the runtime.
//!
//! The monitor's loader copies the image and jumps to address 0 in supervisor mode with interrupts masked, r0 = application number in
//! bits 7:0 and flags in bits 15:8. All code runs in supervisor mode, on one stack; IRQ has a small stack of its own, FIQ has none.

use core::arch::global_asm;

use spidnn_core::ErrorCode;
use spidnn_core::program::{MAGIC, VERSION, directory};

use crate::Kernels;
use crate::device::{Register, comms, dma, timer, vic};
use crate::hardware::Hardware;
use crate::interrupt;
use crate::monitor::{self, State, Vcpu};
use crate::{fault, pages, sleep, text};

// Vectors first. Interrupts come with the return address + 4 in lr. The registers of FIQ mode are set in `packets`.
global_asm!(
    r#"
    .section .vectors, "ax"
    .arm
    .global vectors
vectors:
    b   reset
    b   undefined_instruction
    b   software_interrupt
    b   prefetch_abort
    b   data_abort
    nop
    b   irq_entry
    @ FIQ falls through.
    "#,
    include_str!("fiq.s"),
    include_str!("dma.s"),
    r#"
reset:
    @ Interrupts masked; tightly coupled memories and low vectors on, alignment faults on (as the official kernel sets it).
    ldr   r1, =0x1F7E
    mcr   p15, 0, r1, c1, c0, 0
    msr   cpsr_c, #0xD2
    ldr   sp, =irq_stack_top
    msr   cpsr_c, #0xD3
    ldr   sp, =stack_top
    ldr   r1, =bss_start
    ldr   r3, =stack_end
    mov   r2, #0
1:
    cmp   r1, r3
    strlo r2, [r1], #4
    blo   1b
    @ A stack that was never used stays marked, so that a host sees how deep it went.
    ldr   r2, =0xDEADDEAD
1:
    str   r2, [r1], #4
    cmp   r1, sp
    blo   1b
    bl    firmware_main

    @ A fault: the address of this core's block is in sp of the mode (see `fault`).
undefined_instruction:
    str   r0, [sp]
    mov   r0, #2
    b     fault_entry
prefetch_abort:
    str   r0, [sp]
    mov   r0, #4
    b     fault_entry
data_abort:
    str   r0, [sp]
    mov   r0, #5
fault_entry:
    add   sp, sp, #4
    stmia sp, {r1-r7}
    sub   sp, sp, #4
    strb  r0, [sp, #0x2C]
    mrs   r0, spsr
    str   r0, [sp, #0x20]
    str   lr, [sp, #0x28]
    mov   r4, sp
    msr   cpsr_c, #0xD3
    str   sp, [r4, #0x24]
    ldr   sp, =stack_top
    b     fault_stop

    .ltorg
    "#,
    options(raw)
);

global_asm!(include_str!("abi.s"), options(raw));
global_asm!(include_str!("sleep.s"), options(raw));

global_asm!(
    r#"
    .section .bss.irq_stack, "aw", %nobits
    .balign 8
    .space 224
    .global irq_stack_top
irq_stack_top:
    "#
);

/// Version of the firmware, as it shows in the core's block: major, minor, patch.
const FIRMWARE_VERSION: u32 = VERSION << 16;
/// Bit of the argument: the application waits for the signal START.
const FLAG_WAIT: u32 = 1 << 8;

/// Runs a firmware, for ever.
pub fn run<K: Kernels>(argument: u32) -> ! {
    let vcpu = Vcpu::of_this_core();
    let image = prepare(vcpu, argument);
    if image == 0 {
        vcpu.set_state(State::Exit);
        sleep::sleep_until(|| false);
    }
    vcpu.set_state(State::Run);
    let hardware = Hardware::<K>::new(vcpu);
    spidnn_core::run(&hardware, image);
    fault::stop()
}

/// Prepares core and devices; the address of the core's image, 0 if it has none. (This code is where the first page will be.)
#[inline(never)]
fn prepare(vcpu: Vcpu, argument: u32) -> u32 {
    fault::prepare(vcpu);
    vcpu.begin(argument as u8, FIRMWARE_VERSION, b"spidnn\0\0\0\0\0\0\0\0\0\0");
    vic::reset();
    comms::reset();
    dma::reset();
    timer::reset();
    interrupt::prepare();
    if argument & FLAG_WAIT != 0 {
        vcpu.set_state(State::Wait);
        sleep::sleep_until(interrupt::start_signal_came);
    }
    let block = monitor::tagged_block(argument as u8, directory::TAG);
    let image = if block == 0 { 0 } else { image_of(block, vcpu) };
    if image != 0 {
        if !pages::prepare(Register::at(block + 4 * directory::PAGES as u32).read()) {
            fault::report(ErrorCode::BadImage, 0);
        }
        text::prepare(vcpu, block);
    }
    image
}

/// Where the directory of the chip says that this core's image is; 0 for nowhere.
fn image_of(block: u32, vcpu: Vcpu) -> u32 {
    let word = |index: u32| Register::at(block + 4 * index).read();
    if word(0) != MAGIC || word(1) != VERSION { 0 } else { word(2 + vcpu.virtual_core) }
}
