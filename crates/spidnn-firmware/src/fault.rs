//! What becomes of a core that cannot go on: a run-time error as the official kernel shows it, so that any host's tools tell of it.

use core::arch::asm;
use core::panic::PanicInfo;

use spidnn_core::ErrorCode;

use crate::device::{Register, vic};
use crate::global::Global;
use crate::interrupt;
use crate::monitor::{self, ByteField, Field, State, Vcpu};
use crate::text;

/// Run-time error codes of the official kernel (`sark.h`).
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Code {
    /// A software interrupt.
    SoftwareInterrupt = 3,
    /// This program's own errors: r0 holds the code, r1 and r2 the detail.
    SoftwareError = 13,
}

/// This core, once it knows who it is.
static VCPU: Global<Option<Vcpu>> = Global::new(None);

/// This core, once [`prepare`] has been told.
pub fn this_core() -> Option<Vcpu> {
    VCPU.get()
}

/// Gives the abort modes the address of this core's block as their stack pointer (see the vectors).
#[instruction_set(arm::a32)]
pub fn prepare(vcpu: Vcpu) {
    VCPU.set(Some(vcpu));
    // SAFETY: only the stack pointers of two other modes are changed.
    unsafe {
        asm!(
            "msr cpsr_c, #0xD7",
            "mov sp, r0",
            "msr cpsr_c, #0xDB",
            "mov sp, r0",
            "msr cpsr_c, #0xD3",
            in("r0") vcpu.address,
            options(nostack),
        );
    }
}

/// Stops with an error of this program and one word of detail.
pub fn report(error: ErrorCode, detail: u32) -> ! {
    fail(Code::SoftwareError, error as u32, [detail, 0]);
    stop()
}

/// Records an error of this program; the caller goes on to its end.
pub fn fail(code: Code, error: u32, detail: [u32; 2]) {
    if let Some(vcpu) = this_core() {
        for (register, value) in [error, detail[0], detail[1]].into_iter().enumerate() {
            Register::at(vcpu.address + Field::Registers as u32 + 4 * register as u32).write(value);
        }
        vcpu.byte(ByteField::ErrorCode).write(code as u8);
        vcpu.set_state(State::Error);
        monitor::alarm_light();
    }
}

/// Sleeps for ever.
pub fn stop() -> ! {
    interrupt::mask();
    vic::disable(u32::MAX);
    loop {
        interrupt::wait();
    }
}

/// The end of the program that the host has asked for: nothing but the monitor's questions is heard any more.
pub extern "C" fn ended() -> ! {
    if let Some(vcpu) = this_core() {
        vcpu.set_state(State::Exit);
    }
    vic::disable(!vic::source::MONITOR);
    interrupt::unmask();
    loop {
        interrupt::wait();
    }
}

/// What the vectors of faults come to: registers and code are in the block.
#[unsafe(no_mangle)]
extern "C" fn fault_stop() -> ! {
    if let Some(vcpu) = this_core() {
        vcpu.set_state(State::Error);
        monitor::alarm_light();
    }
    stop()
}

/// A software interrupt: nothing makes one.
#[unsafe(no_mangle)]
extern "C" fn software_interrupt() -> ! {
    fail(Code::SoftwareInterrupt, 0, [0; 2]);
    stop()
}

/// Tells the host file and line, in the core's block and in its text.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    interrupt::mask();
    let mut line = 0;
    if let Some(place) = info.location() {
        line = place.line();
        if let Some(vcpu) = this_core() {
            vcpu.field(Field::Line).write(line);
        }
        text::write("panic at ");
        text::write(place.file());
        text::write("\n");
    }
    report(ErrorCode::Panicked, line)
}
