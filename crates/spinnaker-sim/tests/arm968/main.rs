//! The processor against its manuals.

mod bench;
mod blocks;
mod oracle;
mod random;
mod timing;
