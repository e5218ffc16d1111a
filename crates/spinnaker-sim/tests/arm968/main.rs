//! The processor against its manuals.

mod bench;
mod timing;
