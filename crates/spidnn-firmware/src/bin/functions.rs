//! The bench of the functions of numbers: a call's number chooses one (in the order of [`FUNCTIONS`]), its parameter is how many numbers from the second
//! word of data memory on are replaced by their functions. The last one is the quotient of the first word and each of them.
#![no_std]
#![no_main]

#[allow(unused)]
#[path = "../bench/mod.rs"]
mod bench;

unsafe extern "C" {
    fn spidnn_exp(x: f32, _: f32) -> f32;
    fn spidnn_tanh(x: f32, _: f32) -> f32;
    fn spidnn_sigmoid(x: f32, _: f32) -> f32;
    fn spidnn_rsqrt(x: f32, _: f32) -> f32;
    fn spidnn_div(a: f32, b: f32) -> f32;
    fn spidnn_map(function: Function, x: *mut u32, count: usize, parameter: f32);
    fn spidnn_zip(zip: *const Zip, count: usize);
}

type Function = unsafe extern "C" fn(f32, f32) -> f32;

/// As `spidnn_kernels` has it.
#[repr(C)]
struct Zip {
    function: Function,
    a: *const u32,
    a_step: u32,
    b: *const u32,
    b_step: u32,
    out: *mut u32,
}

const FUNCTIONS: [Function; 5] = [spidnn_exp, spidnn_tanh, spidnn_sigmoid, spidnn_rsqrt, spidnn_div];

#[unsafe(no_mangle)]
extern "C" fn bench_main() {
    bench::mark(bench::Stage::Begin);
    let (number, parameters) = bench::call();
    // SAFETY: the only reference.
    let memory = unsafe { bench::memory() };
    let count = parameters.first().map_or(0, |&count| (count as usize).min(memory.len() - 1));
    let Some(&function) = FUNCTIONS.get(number as usize) else { return bench::mark(bench::Stage::Refused) };
    let one = memory.as_mut_ptr();
    let numbers = one.wrapping_add(1);
    let quotient = Zip { function, a: one, a_step: 0, b: numbers, b_step: 4, out: numbers };
    bench::mark(bench::Stage::Checked);
    // SAFETY: so many words are there.
    unsafe {
        if number as usize + 1 == FUNCTIONS.len() {
            spidnn_zip(&quotient, count);
        } else {
            spidnn_map(function, numbers, count, 0.0);
        }
    }
    bench::mark(bench::Stage::Done);
}
