//! The kernel bench: kernels on a bare core, without monitor, runtime or interrupts.
//!
//! Protocol with the bus that stands in for the chip. The image starts at address 0 in supervisor mode. It takes a call (its number, the
//! number of parameters, the parameters) from [`CALL`] at the start of the firmware's data memory, checks it, runs it on the programs'
//! data memory, and tells how far it is by stores to [`MARK`]: a [`Stage`] and, where it refused the call, why.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::panic::PanicInfo;

use spidnn_kernels::Kernel;
use spidnn_kernels::call::CALL_WORDS_MAX;

/// Address of the stores that tell the stage: nothing is there on a chip.
const MARK: u32 = 0x7000_0000;
/// Words of data memory that belong to programs.
const PROGRAM_WORDS: usize = 0xF000 / 4;

/// What a store to [`MARK`] says.
#[repr(u32)]
pub enum Stage {
    /// The call is about to be decoded and checked.
    Begin = 1,
    /// It was accepted and is about to run.
    Checked = 2,
    /// It ran.
    Done = 3,
    /// It was refused.
    Refused = 4,
    /// A panic.
    Panicked = 5,
}

/// Tells the stage.
pub fn mark(stage: Stage) {
    // SAFETY: nothing of this program is there.
    unsafe { (MARK as *mut u32).write_volatile(stage as u32) }
}

/// The call: number, number of parameters, parameters.
#[repr(transparent)]
struct Call(UnsafeCell<[u32; 2 + CALL_WORDS_MAX]>);

// SAFETY: there is one thread.
unsafe impl Sync for Call {}

#[used]
#[unsafe(link_section = ".ring")]
static CALL: Call = Call(UnsafeCell::new([0; 2 + CALL_WORDS_MAX]));

/// Number and parameters of the call.
pub fn call() -> (u32, &'static [u32]) {
    // SAFETY: written before the program started.
    let words = unsafe { &*CALL.0.get() };
    (words[0], words[2..].get(..words[1] as usize).unwrap_or(&[]))
}

/// The programs' data memory.
///
/// # Safety
/// One reference at a time.
pub unsafe fn memory() -> &'static mut [u32] {
    // SAFETY: the linker script keeps the program out of it.
    unsafe { core::slice::from_raw_parts_mut(0x0040_0000 as *mut u32, PROGRAM_WORDS) }
}

/// Whether a call may run. Not inlined, so that a kernel's size is to be seen in the symbols.
#[inline(never)]
pub fn accepts<K: Kernel>(call: &K, words: usize) -> bool {
    call.check(words).is_ok()
}

/// Runs a call.
#[inline(never)]
pub fn run<K: Kernel>(call: &K, dtcm: &mut [u32]) {
    call.run(dtcm);
}

global_asm!(
    r#"
    .section .vectors, "ax"
    .arm
    .global vectors
vectors:
    b    reset
    .rept 7
    b    .
    .endr
reset:
    ldr  sp, =stack_top
    bl   bench_main
    b    .
    .ltorg
    "#
);

// What the compiler calls is the firmware's.
global_asm!(include_str!("../abi.s"), options(raw));

/// Defines the entry with a choice of kernels.
macro_rules! bench {
    ($($kernel:ident),* $(,)?) => {
        #[unsafe(no_mangle)]
        extern "C" fn bench_main() {
            use spidnn_kernels::KernelCall;
            bench::mark(bench::Stage::Begin);
            let (number, parameters) = bench::call();
            // SAFETY: the only reference.
            let dtcm = unsafe { bench::memory() };
            let call = KernelCall::decode(number, parameters);
            let accepted = match &call {
                $( Ok(KernelCall::$kernel(kernel)) => bench::accepts(kernel, dtcm.len()), )*
                _ => false,
            };
            let (Ok(call), true) = (&call, accepted) else { return bench::mark(bench::Stage::Refused) };
            bench::mark(bench::Stage::Checked);
            match call {
                $( KernelCall::$kernel(kernel) => bench::run(kernel, dtcm), )*
                _ => {}
            }
            bench::mark(bench::Stage::Done);
        }
    };
}
pub(crate) use bench;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    mark(Stage::Panicked);
    loop {}
}
