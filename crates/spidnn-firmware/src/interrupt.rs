//! Interrupts other than packets: ends of DMA transfers, the alarm, the monitor's bell. And masking them.

use core::arch::asm;

use spidnn_core::ErrorCode;

use crate::device::vic::{self, source};
use crate::device::{dma, timer};
use crate::fault;
use crate::global::Global;
use crate::mailbox;
use crate::packets;

/// The signal START has come.
static STARTED: Global<bool> = Global::new(false);

/// Enables everything.
pub fn prepare() {
    packets::prepare();
    vic::enable(source::DMA_DONE | source::DMA_ERROR | source::TIMER_2 | source::MONITOR | source::MULTICAST);
    unmask();
}

/// Lets interrupts in.
#[instruction_set(arm::a32)]
pub fn unmask() {
    // SAFETY: control bits only: supervisor mode, nothing masked.
    unsafe { asm!("msr cpsr_c, #0x13", options(nostack)) }
}

/// Keeps interrupts out.
#[instruction_set(arm::a32)]
pub fn mask() {
    // SAFETY: control bits only: supervisor mode, both masked.
    unsafe { asm!("msr cpsr_c, #0xD3", options(nostack)) }
}

/// Does something that no interrupt comes between. Not to be nested.
pub fn masked<T>(work: impl FnOnce() -> T) -> T {
    mask();
    let result = work();
    unmask();
    result
}

/// Sleeps until an interrupt is pending, masked or not.
#[instruction_set(arm::a32)]
pub fn wait() {
    // SAFETY: coprocessor 15's wait for interrupt (ARM968E-S Technical Reference Manual); the register is ignored.
    unsafe { asm!("mcr p15, 0, {0}, c7, c0, 4", in(reg) 0, options(nostack)) }
}

/// Whether the signal START has come.
pub fn start_signal_came() -> bool {
    STARTED.get()
}

/// Notes the signal START.
pub fn start() {
    STARTED.set(true);
}

unsafe extern "C" {
    /// End of the stack of IRQ mode.
    static irq_stack_top: u32;
}

/// Where the program was when the interrupt came. (Only for what `irq` calls: `irq_entry` has put it there.)
pub fn interrupted() -> u32 {
    // SAFETY: the word below the end of the stack.
    unsafe { (&raw const irq_stack_top).sub(1).read_volatile() }
}

/// Leaves the interrupt and the program for other code: supervisor mode, an empty stack, interrupts masked.
#[instruction_set(arm::a32)]
pub fn leave(code: u32) -> ! {
    // SAFETY: nothing of this program is ever looked at again.
    unsafe {
        asm!(
            "msr cpsr_c, #0xD2",
            "ldr sp, =irq_stack_top",
            "msr cpsr_c, #0xD3",
            "ldr sp, =stack_top",
            "bx r0",
            in("r0") code,
            options(noreturn),
        );
    }
}

/// What is pending but the end of a DMA transfer; called by `dma.s` with interrupts masked.
#[unsafe(no_mangle)]
extern "C" fn irq() {
    let pending = vic::pending();
    if pending & source::DMA_ERROR != 0 {
        fault::report(ErrorCode::DmaFailed, dma::status());
    }
    if pending & source::TIMER_2 != 0 {
        timer::clear_alarm();
    }
    if pending & source::MONITOR != 0
        && let Some(vcpu) = fault::this_core()
    {
        mailbox::serve(vcpu);
    }
    packets::set_news();
}
