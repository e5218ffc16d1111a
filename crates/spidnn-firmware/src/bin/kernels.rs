//! Placeholder until the kernel bench is written.
#![no_std]
#![no_main]

spidnn_firmware::firmware! { Fill }
