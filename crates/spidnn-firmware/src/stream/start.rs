//! Start-up, interrupts and faults. As for the runtime the monitor's loader jumps to address 0 in supervisor mode, interrupts masked.

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

use crate::device::{Register, comms, vic};
use crate::global::Global;
use crate::monitor::{self, ByteField, Field, State, Vcpu};
use crate::{mask, messages, wait};

// Vectors first. Interrupts come with the return address + 4 in lr.
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
    r#"
irq_entry:
    sub   lr, lr, #4
    stmfd sp!, {r0-r3, r12, lr}
    bl    stream_irq
    ldmfd sp!, {r0-r3, r12, pc}^

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
    bl    firmware_main

    @ A fault: run-time error codes of the official kernel (sark.h).
undefined_instruction:
    mov   r0, #2
    b     fault_entry
software_interrupt:
    mov   r0, #3
    b     fault_entry
prefetch_abort:
    mov   r0, #4
    b     fault_entry
data_abort:
    mov   r0, #5
fault_entry:
    mov   r1, lr
    msr   cpsr_c, #0xD3
    ldr   sp, =stack_top
    bl    stream_fault

    .ltorg
    "#,
    options(raw)
);

global_asm!(include_str!("../abi.s"), options(raw));

global_asm!(
    r#"
    .section .bss.irq_stack, "aw", %nobits
    .balign 8
    .space 320
irq_stack_top:
    "#
);

/// This core, once it knows who it is.
static VCPU: Global<Option<Vcpu>> = Global::new(None);

/// Lets interrupts and faults know whose they are.
pub fn prepare(vcpu: Vcpu) {
    VCPU.set(Some(vcpu));
}

/// The monitor has rung; called with interrupts masked.
#[unsafe(no_mangle)]
extern "C" fn stream_irq() {
    if let Some(vcpu) = VCPU.get() {
        messages::serve(vcpu);
    }
}

/// Shows a run-time error as the official kernel does, and sleeps for ever.
#[unsafe(no_mangle)]
extern "C" fn stream_fault(code: u32, address: u32) -> ! {
    mask();
    vic::disable(u32::MAX);
    if let Some(vcpu) = VCPU.get() {
        // lr, at 0x28 of the block.
        Register::at(vcpu.address + 0x28).write(address);
        vcpu.byte(ByteField::ErrorCode).write(code as u8);
        vcpu.set_state(State::Error);
        monitor::alarm_light();
    }
    loop {
        wait();
    }
}

/// Keeps the line that panicked in the core's block.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if let (Some(vcpu), Some(place)) = (VCPU.get(), info.location()) {
        vcpu.field(Field::Line).write(place.line());
    }
    // A software error.
    stream_fault(13, 0)
}

unsafe extern "C" {
    /// Where the FIQ vector goes (`fiq.s`).
    static mut fiq_handler: u32;
    fn fiq_gate();
}

/// From now on packets come to a gate. Interrupts must be masked.
pub fn use_gate_handler() {
    // SAFETY: a word of instruction memory that is read as data only, by the vector.
    unsafe { (&raw mut fiq_handler).write_volatile(fiq_gate as *const () as u32) }
}

/// Gives the FIQ mode its registers: r8 communications controller, r9 and r10 as given (see `fiq.s`). Interrupts must be masked.
#[instruction_set(arm::a32)]
pub fn prepare_fiq(r9: u32, r10: u32) {
    // SAFETY: only registers of FIQ mode are changed, and the mode is restored.
    unsafe {
        asm!(
            "mrs r4, cpsr",
            "msr cpsr_c, #0xD1",
            "mov r8, r0",
            "mov r9, r1",
            "mov r10, r2",
            "msr cpsr_c, r4",
            out("r4") _,
            in("r0") comms::BASE,
            in("r1") r9,
            in("r2") r10,
        );
    }
}
