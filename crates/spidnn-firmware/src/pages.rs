//! Pages of code that are brought from SDRAM into one place of instruction memory (see `spidnn_core::pages`).
//!
//! The linker script that `cargo xtask firmware` writes says where the place is and how long the pages are; the chip's directory
//! says where the host has put them. All that runs while a page is brought is resident, interrupt handlers included.

use spidnn_core::pages::{COUNT, Page, Shelf, of};
use spidnn_core::program::trailer;
use spidnn_core::{Direction, Transfer};
use spidnn_kernels::units::Units;

use crate::global::Global;
use crate::sleep::sleep_until;
use crate::transfers::{self, DTCM};

unsafe extern "C" {
    static page_base: u8;
    static page_0_bytes: u8;
    static page_1_bytes: u8;
    static page_2_bytes: u8;
    static page_3_bytes: u8;
    static page_4_bytes: u8;
    static page_5_bytes: u8;
    static page_6_bytes: u8;
    static page_7_bytes: u8;
    static page_8_bytes: u8;
}

/// What the firmware says of itself, at the end of its code (`spidnn_core::program::trailer`).
#[repr(C)]
pub struct Trailer {
    words: [u32; trailer::WORDS - COUNT],
    /// The linker's symbols, whose addresses are lengths.
    page_bytes: [*const u8; COUNT],
}

// SAFETY: the pointers are numbers.
unsafe impl Sync for Trailer {}

impl Trailer {
    /// Of firmware with these kernels.
    pub const fn new(kernels: &[u32], exchanges: bool) -> Trailer {
        let all = trailer::words(kernels, Units::BUILT, exchanges, [0; COUNT]);
        let mut words = [0; trailer::WORDS - COUNT];
        let mut i = 0;
        while i < words.len() {
            words[i] = all[i];
            i += 1;
        }
        Trailer { words, page_bytes: page_lengths() }
    }
}

const fn page_lengths() -> [*const u8; COUNT] {
    // No memory is read: the addresses are what is wanted.
    [
        &raw const page_0_bytes,
        &raw const page_1_bytes,
        &raw const page_2_bytes,
        &raw const page_3_bytes,
        &raw const page_4_bytes,
        &raw const page_5_bytes,
        &raw const page_6_bytes,
        &raw const page_7_bytes,
        &raw const page_8_bytes,
    ]
}

/// What is in the place, and where the host has put all pages.
struct Pages {
    shelf: Shelf,
    sdram: u32,
}

static PAGES: Global<Pages> = Global::uncopied(Pages { shelf: Shelf::new([0; COUNT]), sdram: 0 });

/// Takes note of the lengths of the pages, and of where they are in SDRAM; `false` if they should be there and are not.
pub fn prepare(sdram: u32) -> bool {
    let lengths = page_lengths().map(|symbol| symbol as u32);
    // SAFETY: no handler looks at it.
    unsafe { PAGES.with(|pages| *pages = Pages { shelf: Shelf::new(lengths), sdram }) };
    sdram != 0 || lengths.iter().all(|&bytes| bytes == 0)
}

/// Brings the page of a kernel, if it has one.
#[inline]
pub fn bring_for(kernel: u32) {
    if let Some(page) = of(kernel) {
        bring(page);
    }
}

/// Brings a page, unless it is there.
#[inline(never)]
pub fn bring(page: Page) {
    // SAFETY: no handler looks at it.
    let wanted = unsafe {
        PAGES.with(|pages| pages.shelf.need(page).map(|bytes| (pages.sdram + pages.shelf.offset(page), bytes)))
    };
    let Some((sdram, bytes)) = wanted else { return };
    let transfer = Transfer {
        direction: Direction::In,
        sdram,
        // Below data memory: the sum wraps.
        dtcm: ((&raw const page_base) as u32).wrapping_sub(DTCM),
        row_bytes: bytes,
        rows: 1,
        sdram_stride: bytes,
        dtcm_stride: bytes,
        tag: transfers::TAG_PAGE,
    };
    transfers::submit(&transfer);
    sleep_until(|| transfers::is_done(transfers::TAG_PAGE));
}
