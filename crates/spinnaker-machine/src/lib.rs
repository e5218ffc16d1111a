//! Geometry of SpiNNaker machines: chips, links, boards, working cores, faults, and machine locators.
#![forbid(unsafe_code)]
