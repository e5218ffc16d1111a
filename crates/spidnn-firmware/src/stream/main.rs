//! The helper of bulk transfers between host and SDRAM: the *gate* on a board's Ethernet chip, the *hand* on each other chip.
//!
//! One program for both: a core becomes the gate when a host says hello to it. Formats of the messages and of the keys:
//! `spinnaker-wire`, module `stream`; packets between gate and hands: [`control`]. Data packets are put into memory by the FIQ handler
//! (`fiq.s`); everything else happens in the main loop, one thing after the other.
//!
//! This is a firmware of its own: it shares the devices with the runtime, and neither its start-up nor its interrupts.
#![no_std]
#![no_main]

use core::arch::asm;

#[path = "../device/mod.rs"]
#[allow(dead_code)]
mod device;
#[path = "../global.rs"]
#[allow(dead_code)]
mod global;
#[path = "../monitor.rs"]
#[allow(dead_code)]
mod monitor;

mod control;
mod ethernet;
mod gate;
mod hand;
mod memory;
mod messages;
mod reading;
mod start;
mod window;

use device::vic::source;
use device::{comms, dma, timer, vic};
use monitor::{State, Vcpu};

/// Version of this helper, as it shows in the core's block.
const PROGRAM_VERSION: u32 = 1 << 16;

/// Called by the start-up code with interrupts masked: application in bits 7:0.
#[unsafe(no_mangle)]
extern "C" fn firmware_main(argument: u32) -> ! {
    let vcpu = Vcpu::of_this_core();
    start::prepare(vcpu);
    vcpu.begin(argument as u8, PROGRAM_VERSION, b"spidnn stream\0\0\0");
    vic::reset();
    comms::reset();
    dma::reset();
    timer::reset();
    control::prepare();
    vic::enable(source::MONITOR | source::MULTICAST);
    unmask();
    vcpu.set_state(State::Run);
    let mut hand = hand::Hand::new();
    let mut gate = None;
    loop {
        let mut idle = true;
        if let Some(message) = messages::take() {
            gate::Gate::receive(&mut gate, vcpu, &mut hand, &message);
            message.free();
            idle = false;
        }
        match &mut gate {
            None => idle &= !hand.serve(),
            Some(gate) => idle &= !gate.work(&mut hand),
        }
        if idle {
            sleep();
        }
    }
}

/// Sleeps until there is a message or a control packet.
fn sleep() {
    mask();
    // What is pending ends the wait though it is masked, and is handled after it.
    if messages::is_empty() && !control::is_pending() {
        wait();
    }
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

/// Sleeps until an interrupt is pending, masked or not.
#[instruction_set(arm::a32)]
pub fn wait() {
    // SAFETY: coprocessor 15's wait for interrupt (ARM968E-S Technical Reference Manual); the register is ignored.
    unsafe { asm!("mcr p15, 0, {0}, c7, c0, 4", in(reg) 0, options(nostack)) }
}
