//! From a graph to per-core programs: lowering, tiling, placement, routing, keys and tables.
//!
//! The compiler does not know whether the machine is virtual.
#![forbid(unsafe_code)]
