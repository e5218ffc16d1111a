//! Plain moves of words.

use crate::call::{CopyRows, Fill};
use crate::dtcm::{self, BadCall, Bounds};
use crate::{Kernel, cost};

impl Kernel for Fill {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        Bounds { words: dtcm_words }.span("dst", self.dst, self.count).map(|_| ())
    }
    fn run(&self, dtcm: &mut [u32]) {
        #[cfg(target_arch = "arm")]
        // SAFETY: the call was checked.
        unsafe {
            crate::arm::fill(crate::arm::address(dtcm::cells(dtcm), self.dst), self.count, self.value_bits);
        }
        #[cfg(not(target_arch = "arm"))]
        if self.count > 0 {
            dtcm[self.dst as usize / 4..][..self.count as usize].fill(self.value_bits);
        }
    }
    fn cycles(&self) -> u64 {
        cost::fill(self)
    }
}

impl Kernel for CopyRows {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let d = Bounds { words: dtcm_words };
        let dst = d.rows("dst", self.dst, self.rows, self.count, self.dst_stride)?;
        // Rows of `dst` side by side, so that their number has a bound.
        if self.rows > 1 && self.dst_stride < self.count {
            return Err(BadCall::value("dst_stride", self.dst_stride));
        }
        dst.apart_from(&[d.rows("src", self.src, self.rows, self.count, self.src_stride)?])
    }
    fn run(&self, dtcm: &mut [u32]) {
        dtcm::checked(self, dtcm.len());
        if self.count == 0 {
            return;
        }
        #[cfg(target_arch = "arm")]
        for r in 0..self.rows {
            let base = crate::arm::address(dtcm::cells(dtcm), 0);
            let (src, dst) = (base + self.src + 4 * r * self.src_stride, base + self.dst + 4 * r * self.dst_stride);
            // SAFETY: the call was checked.
            unsafe { crate::arm::copy(src, dst, self.count) }
        }
        #[cfg(not(target_arch = "arm"))]
        for r in 0..self.rows as usize {
            let src = self.src as usize / 4 + r * self.src_stride as usize;
            let dst = self.dst as usize / 4 + r * self.dst_stride as usize;
            dtcm.copy_within(src..src + self.count as usize, dst);
        }
    }
    fn cycles(&self) -> u64 {
        cost::copy_rows(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_copied_and_words_filled() {
        let mut dtcm: Vec<u32> = (0..12).collect();
        CopyRows { src: 0, dst: 24, rows: 2, count: 2, src_stride: 1, dst_stride: 3 }.run(&mut dtcm);
        Fill { dst: 44, count: 1, value_bits: 99 }.run(&mut dtcm);
        assert_eq!(dtcm, [0, 1, 2, 3, 4, 5, 0, 1, 8, 1, 2, 99]);
        let overlapping = CopyRows { src: 0, dst: 4, rows: 1, count: 2, src_stride: 0, dst_stride: 0 };
        assert_eq!(overlapping.check(12), Err(BadCall::Overlap { a: "dst", b: "src" }));
    }
}
