//! Products of halves to bytes in assembly.

use core::arch::global_asm;
use core::cell::{Cell, UnsafeCell};

use super::address;
use crate::call::{Add8, PANEL_COLUMNS, Product8};

global_asm!(include_str!("int8.s"), options(raw));

/// What a row of tiles works through, and counts on in. Addresses and steps in bytes. (See the offsets in int8.s.)
#[repr(C)]
struct Panel {
    /// Results of the first pixel of a tile.
    y: u32,
    /// Its operands.
    x: u32,
    /// From tile to tile.
    y_step: u32,
    x_step: u32,
    /// From the operands of the first pixel to the second's; weights.
    dx: u32,
    w: u32,
    /// Biases, then multipliers.
    scales: u32,
    /// Where the unrolled loop is entered for the first turn of a segment.
    entry: u32,
    /// Further turns.
    turns: u32,
    segments: u32,
    /// From behind a segment to the next.
    x_next: u32,
    /// From the results of the first pixel to the second's.
    dy: u32,
    /// Zero point and one half, before the last shift; the shift.
    round: u32,
    shift: u32,
    /// Tiles.
    count: u32,
    /// Working variables: turns and segments left, the stack.
    work: [u32; 3],
}

/// The one that the assembly knows.
#[repr(transparent)]
struct Place(UnsafeCell<Panel>);

// SAFETY: a core has one thread, and interrupts run no kernels.
unsafe impl Sync for Place {}

#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
static spidnn_panel: Place = Place(UnsafeCell::new(Panel {
    y: 0,
    x: 0,
    y_step: 0,
    x_step: 0,
    dx: 0,
    w: 0,
    scales: 0,
    entry: 0,
    turns: 0,
    segments: 0,
    x_next: 0,
    dy: 0,
    round: 0,
    shift: 0,
    count: 0,
    work: [0; 3],
}));

unsafe extern "C" {
    fn spidnn_panel_24();
    fn spidnn_panel_23();
    fn spidnn_panel_22();
    fn spidnn_panel_21();
    fn spidnn_panel_14();
    static spidnn_pairs_24: u32;
    static spidnn_pairs_23: u32;
    static spidnn_pairs_22: u32;
    static spidnn_pairs_21: u32;
    static spidnn_pairs_14: u32;
}

/// A form of the tile.
struct Form {
    function: unsafe extern "C" fn(),
    /// Its loop.
    pairs: &'static u32,
    /// Bytes of a pair in it.
    bytes: u32,
    /// Logarithm of the pairs in a turn.
    log: u32,
}

/// Those of two pixels by so many columns, and that of one pixel by a whole panel.
static FORMS: [Form; 5] = {
    // SAFETY: they are instructions, which do not change.
    unsafe {
        [
            Form { function: spidnn_panel_21, pairs: &spidnn_pairs_21, bytes: 28, log: 2 },
            Form { function: spidnn_panel_22, pairs: &spidnn_pairs_22, bytes: 48, log: 4 },
            Form { function: spidnn_panel_23, pairs: &spidnn_pairs_23, bytes: 68, log: 2 },
            Form { function: spidnn_panel_24, pairs: &spidnn_pairs_24, bytes: 88, log: 5 },
            Form { function: spidnn_panel_14, pairs: &spidnn_pairs_14, bytes: 52, log: 4 },
        ]
    }
};

/// The whole product. The call was checked.
pub fn product8(call: &Product8, dtcm: &[Cell<u32>]) {
    let pairs = call.terms / 2;
    let all = call.segments * pairs;
    let x = address(dtcm, call.x);
    let odd = call.x_pixel % 2 == 1;
    // The second pixel of a tile is at an odd half if the step is odd.
    let dx = if odd {
        address(dtcm, call.x_odd).wrapping_sub(x).wrapping_add(2 * (call.x_pixel - 1))
    } else {
        2 * call.x_pixel
    };
    // SAFETY: the only user of the place.
    let panel = unsafe { &mut *spidnn_panel.0.get() };
    panel.y_step = 2 * call.y_pixel;
    panel.x_step = 4 * call.x_pixel;
    panel.segments = call.segments;
    panel.x_next = (2 * call.x_segment).wrapping_sub(4 * pairs);
    panel.round = (2 * call.zero + 1) << (call.shift - 1);
    panel.shift = call.shift;
    let (w, scales, y) = (address(dtcm, call.w), address(dtcm, call.scales), address(dtcm, call.y));
    let mut run = |form: usize, row: u32, pixel: u32, count: u32, j0: u32, alone: bool| {
        let form = &FORMS[form];
        let unroll = 1 << form.log;
        // Pairs of the first turn, and turns after it.
        panel.turns = pairs - 1 >> form.log;
        panel.entry = (&raw const *form.pairs) as u32 + (unroll - 1 - (pairs - 1 & (unroll - 1))) * form.bytes;
        panel.x = x.wrapping_add(2 * (row * call.x_row + pixel * call.x_pixel));
        panel.y = y + row * call.y_row + pixel * call.y_pixel + j0;
        // Weights and scales of the panels before.
        panel.w = w + 4 * all * j0;
        panel.scales = scales + 8 * j0;
        (panel.dx, panel.dy) = if alone { (0, 0) } else { (dx, call.y_pixel) };
        panel.count = count;
        // SAFETY: the call was checked.
        unsafe { (form.function)() }
    };
    for row in 0..call.rows {
        let mut j0 = 0;
        while j0 < call.n {
            let width = PANEL_COLUMNS.min(call.n - j0);
            if call.pixels >= 2 {
                run(width as usize - 1, row, 0, call.pixels / 2, j0, false);
            }
            if call.pixels % 2 == 1 {
                let form = if width == PANEL_COLUMNS { 4 } else { width as usize - 1 };
                run(form, row, call.pixels - 1, 1, j0, true);
            }
            j0 += width;
        }
    }
}

global_asm!(include_str!("bytes.s"), options(raw));

unsafe extern "C" {
    fn spidnn_widen_unsigned(from: u32, to: u32, words: u32);
    fn spidnn_widen_signed(from: u32, to: u32, words: u32);
    fn spidnn_shift_halves(from: u32, to: u32, words: u32, zero: u32);
    fn spidnn_widen_rows(from: u32, to: u32, words: u32, rows: u32, from_row: u32, to_row: u32);
    fn spidnn_spread_rows(from: u32, to: u32, count: u32, step: u32, rows: u32, from_row: u32, to_row: u32);
    fn spidnn_pool_average(upper: u32, lower: u32, to: u32, pixels: u32, channels: u32);
    fn spidnn_pool_maximum(upper: u32, lower: u32, to: u32, pixels: u32, channels: u32);
    fn spidnn_lookup(from: u32, to: u32, words: u32, table: u32);
    fn spidnn_pool_window(cells: u32, result: u32, window: *const Window);
    fn spidnn_add8(sum: *const Sum);
    fn spidnn_quantise8(from: u32, to: u32, count: u32, inverse: f32, zero: u32);
    fn spidnn_dequantise8(from: u32, to: u32, count: u32, scale: f32, zero: u32);
}

/// Signed bytes of `words` words at byte offset `from` to halves.
pub fn widen_signed(dtcm: &[Cell<u32>], from: u32, to: u32, words: u32) {
    if words > 0 {
        // SAFETY: the call was checked.
        unsafe { spidnn_widen_signed(address(dtcm, from), address(dtcm, to), words) }
    }
}

/// Unsigned bytes to halves: whole words.
pub fn widen_unsigned(from: &[Cell<u32>], to: &[Cell<u32>], words: u32) {
    // SAFETY: the call was checked.
    unsafe { spidnn_widen_unsigned(from.as_ptr() as u32, to.as_ptr() as u32, words) }
}

/// The copy of a row of words that begins with its second half.
pub fn shift(row: &[Cell<u32>], odd: &[Cell<u32>], zero: u32) {
    if !row.is_empty() {
        // SAFETY: the call was checked.
        unsafe { spidnn_shift_halves(row.as_ptr() as u32, odd.as_ptr() as u32, row.len() as u32, zero) }
    }
}

/// Rows of whole words of bytes to halves; strides in words.
pub fn widen_rows(from: &[Cell<u32>], to: &[Cell<u32>], words: u32, rows: u32, from_row: u32, to_row: u32) {
    if words > 0 && rows > 0 {
        // SAFETY: the call was checked.
        unsafe { spidnn_widen_rows(from.as_ptr() as u32, to.as_ptr() as u32, words, rows, 4 * from_row, 4 * to_row) }
    }
}

/// For `rows` rows of bytes, `from_row` words from one another: `count` bytes of each to halves `step` halves from one another, from half `at` on,
/// of the next row one half further.
pub fn spread_rows(
    from: &[Cell<u32>],
    to: &[Cell<u32>],
    at: u32,
    (count, step): (u32, u32),
    (rows, from_row): (u32, u32),
) {
    if rows > 0 {
        // SAFETY: the call was checked.
        unsafe {
            spidnn_spread_rows(
                from.as_ptr() as u32,
                to.as_ptr() as u32 + 2 * at,
                count,
                2 * step,
                rows,
                4 * from_row,
                2,
            )
        }
    }
}

/// Bytes of `words` words through a table, by byte offsets.
pub fn lookup(dtcm: &[Cell<u32>], from: u32, to: u32, words: u32, table: u32) {
    if words > 0 {
        // SAFETY: the call was checked.
        unsafe { spidnn_lookup(address(dtcm, from), address(dtcm, to), words, address(dtcm, table)) }
    }
}

/// A row of `pixels` results of windows of two by two that touch, from two rows of the picture (their first bytes).
pub fn pool_two_by_two(maximum: bool, rows: [&[Cell<u32>]; 2], y: &[Cell<u32>], pixels: u32, channels: u32) {
    let [upper, lower] = rows.map(|row| row.as_ptr() as u32);
    let function = if maximum { spidnn_pool_maximum } else { spidnn_pool_average };
    // SAFETY: the call was checked, and has pixels and channels.
    unsafe { function(upper, lower, y.as_ptr() as u32, pixels, channels) }
}

/// What [`sum`] works on: addresses, bytes, multipliers.
#[repr(C)]
struct Sum {
    a: u32,
    b: u32,
    out: u32,
    bytes: u32,
    mult_a: u32,
    mult_b: u32,
    /// What the zero points give.
    start: u32,
    shift: u32,
    zero: u32,
}

/// Sums of bytes.
pub fn sum(call: &Add8, dtcm: &[Cell<u32>]) {
    if call.count == 0 {
        return;
    }
    let sum = Sum {
        a: address(dtcm, call.a),
        b: address(dtcm, call.b),
        out: address(dtcm, call.out),
        bytes: 4 * call.count,
        mult_a: call.mult_a,
        mult_b: call.mult_b,
        start: 0u32.wrapping_sub(call.zero_a * call.mult_a).wrapping_sub(call.zero_b * call.mult_b),
        shift: call.shift,
        zero: call.zero,
    };
    // SAFETY: the call was checked.
    unsafe { spidnn_add8(&sum) }
}

/// Bytes of numbers.
pub fn quantise(from: &[Cell<u32>], to: &[Cell<u32>], (inverse, zero): (f32, u32)) {
    // SAFETY: the call was checked, and has numbers.
    unsafe {
        spidnn_quantise8(from.as_ptr() as u32, to.as_ptr() as u32, from.len() as u32, inverse, zero);
    }
}

/// Numbers of as many bytes.
pub fn dequantise(from: &[Cell<u32>], to: &[Cell<u32>], (scale, zero): (f32, u32)) {
    // SAFETY: the call was checked, and has bytes.
    unsafe { spidnn_dequantise8(from.as_ptr() as u32, to.as_ptr() as u32, to.len() as u32, scale, zero) }
}

/// A window of cells whose channels lie side by side.
#[repr(C)]
pub struct Window {
    /// Channels, and bytes from cell to cell.
    pub channels: u32,
    /// Cells of a row, at least one.
    pub columns: u32,
    /// Bytes from row to row.
    pub row_bytes: u32,
    /// Rows, at least one.
    pub rows: u32,
    /// Cells.
    pub cells: u32,
    /// `2^32 / (2 * cells)`, rounded up: the average; 0: the largest.
    pub reciprocal: u32,
}

/// Cells for which [`pool_window`] gives averages: the product with the reciprocal is exact.
pub const AVERAGE_CELLS_MAX: u32 = 2048;

/// A result for each channel; `cells` and `result` are byte offsets.
pub fn pool_window(dtcm: &[Cell<u32>], cells: u32, result: u32, window: &Window) {
    // SAFETY: the call was checked, and has channels.
    unsafe { spidnn_pool_window(address(dtcm, cells), address(dtcm, result), window) }
}
