//! Pages: code that shares one place in instruction memory, since firmware with all kernels of training is larger than it.
//!
//! What is hot or shared by several pages is resident. The rest is in the page of the kernels that need it; before one of them is checked
//! or run, the core's DMA brings its page. A stage of a network stays in one page, so pages change a few times in a batch.
//! Each variant of the firmware chooses which of the pages it has: what belongs to the others is resident, and their lengths are 0.

use spidnn_kernels::KernelCall;
use spidnn_kernels::apart::{self, Part};

/// Pages at most.
pub const COUNT: usize = 9;

/// A page's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Page {
    /// Convolutions, and what goes with products of any kind; on halves the alignment of windows, too.
    Product,
    /// Pooling, and gradients of pooling, activations and weights.
    Shape,
    /// Losses, and the normalisation that comes with them; on halves the alignment of kernels for gradients, for which the others have no room.
    Loss,
    /// Optimizers' steps.
    Update,
    /// Statistics, batch normalisation and dropout.
    Norm,
    /// Exchanges between chips.
    Exchange,
    /// What is rare and large: exponential units and binary cross-entropy (`spidnn_kernels::apart`).
    Exponential,
    /// The same: gaussian units.
    Gaussian,
    /// Gradients of convolutions' weights on halves: with the rest of [`Page::Shape`] they would be too large.
    Gradient,
}

macro_rules! pages {
    ($($page:ident: $($kernel:ident)*;)*) => {
        /// The page of a kernel by its number; `None` for what is resident.
        pub const fn of(kernel: u32) -> Option<Page> {
            use spidnn_kernels::call;
            match kernel {
                $($(call::$kernel::NUMBER => Some(Page::$page),)*)*
                _ => None,
            }
        }

        /// The kernels that have pages, by name: for who links firmware.
        pub const KERNELS: &[(&str, Page)] = &[$($((stringify!($kernel), Page::$page),)*)*];
    };
}

pages! {
    Product: Conv ConvHalf PrepWindowHalf BiasAct;
    Shape: Pool PoolGrad ActGrad ConvWgrad PrepConvBackward ColumnSum;
    Loss: Loss Softmax SoftmaxGrad PrepConvBackwardHalf;
    Update: OptimizerStep SumParts Norms Clip CountNonFinite NormCoefficients;
    Norm: NormGrad Normalise Lerp Dropout ScaleShift Scale;
    Gradient: ConvWgradHalf;
}

/// The page that runs a call, where it is not the kernel's own, which checks it.
pub const fn apart_of(call: &KernelCall) -> Option<Page> {
    match apart::of(call) {
        Some(Part::Exponential) => Some(Page::Exponential),
        Some(Part::Gaussian) => Some(Page::Gaussian),
        None => None,
    }
}

/// The page that exchanges between chips are in.
pub const EXCHANGES: Page = Page::Exchange;

/// What is in instruction memory, for a core that has pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shelf {
    /// Bytes of each page; 0: resident.
    pub lengths: [u32; COUNT],
    current: Option<Page>,
}

impl Shelf {
    /// A shelf with nothing on it.
    pub const fn new(lengths: [u32; COUNT]) -> Shelf {
        Shelf { lengths, current: None }
    }

    /// Notes that a page is needed: the bytes to bring, if it is not there.
    pub fn need(&mut self, page: Page) -> Option<u32> {
        let bytes = self.lengths[page as usize];
        if bytes == 0 || self.current == Some(page) {
            return None;
        }
        self.current = Some(page);
        Some(bytes)
    }

    /// Bytes from the first page to this one, where they lie one after the other.
    pub fn offset(&self, page: Page) -> u32 {
        self.lengths[..page as usize].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_brought_when_another_is_there() {
        let mut shelf = Shelf::new([800, 0, 1600, 8, 16, 0, 0, 0, 0]);
        assert_eq!(shelf.need(Page::Product), Some(800));
        assert_eq!(shelf.need(Page::Product), None);
        assert_eq!(shelf.need(Page::Shape), None, "resident");
        assert_eq!(shelf.need(Page::Loss), Some(1600));
        assert_eq!(shelf.need(Page::Product), Some(800));
        assert_eq!((shelf.offset(Page::Product), shelf.offset(Page::Update)), (0, 2400));
    }

    #[test]
    fn rare_units_are_in_pages_of_their_own() {
        use spidnn_kernels::call::BiasAct;
        let activation = |activation| apart_of(&BiasAct { activation, ..Default::default() }.into());
        let (tanh, elu, gelu) = (6, 3, 9);
        assert_eq!([tanh, elu, gelu].map(activation), [None, Some(Page::Exponential), Some(Page::Gaussian)]);
    }

    #[test]
    fn exchanges_run_no_kernel_of_a_page() {
        use spidnn_kernels::call::{CopyRows, Map2};
        assert_eq!([CopyRows::NUMBER, Map2::NUMBER].map(of), [None, None]);
    }

    #[test]
    fn kernels_that_every_stage_has_are_resident() {
        use spidnn_kernels::call::{Conv, CopyRows, Gemm, Loss, Prep2d, Product8};
        assert_eq!([CopyRows::NUMBER, Gemm::NUMBER, Prep2d::NUMBER, Product8::NUMBER].map(of), [None; 4]);
        assert_eq!([Conv::NUMBER, Loss::NUMBER].map(of), [Some(Page::Product), Some(Page::Loss)]);
    }
}
