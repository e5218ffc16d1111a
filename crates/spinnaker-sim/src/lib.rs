//! The virtual SpiNNaker: a deterministic simulation of chips, links, DMA, SDRAM and the host link.
#![forbid(unsafe_code)]
