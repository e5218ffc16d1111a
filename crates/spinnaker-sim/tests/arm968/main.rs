//! The processor against its manuals.

mod bench;
mod blocks;
mod exceptions;
mod hostile;
mod instructions;
mod kernels;
mod oracle;
mod random;
mod timing;
mod waiting;
mod watching;
