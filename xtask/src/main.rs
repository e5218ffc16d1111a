//! Project commands beyond cargo.
fn main() {}
