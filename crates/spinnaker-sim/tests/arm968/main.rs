//! The processor against its manuals.

mod bench;
mod blocks;
mod kernels;
mod oracle;
mod random;
mod timing;
