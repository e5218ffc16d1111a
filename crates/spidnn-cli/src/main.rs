//! The `spidnn` command.
#![forbid(unsafe_code)]
fn main() {}
