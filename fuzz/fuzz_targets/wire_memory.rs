//! What lies in memories and files: programs, boot images, cores' blocks, tables, text; and packets between chips.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spinnaker_wire::{aplx, boot_image, heap, nn, p2p, router, sv, vcpu};

fuzz_target!(|data: &[u8]| {
    if let Ok(program) = aplx::Aplx::new_checked(data) {
        let _ = (program.to_string(), program.checksum(), program.copied_bytes());
    }
    let mut image = data.to_vec();
    if boot_image::patch(&mut image, &sv::BootVariables::host_defaults()).is_ok() {
        let image = boot_image::BootImage::new_checked(&image).expect("the table is as it was");
        assert_eq!(image.variables(), sv::BootVariables::host_defaults());
    }
    let _ = vcpu::Vcpu::read(data).map(|block| block.to_string());
    let _ = vcpu::MessageBuffer::read(data).map(|buffer| buffer.packet().map(|packet| packet.to_string()));
    let _ = sv::SystemVariables::read(data).map(|variables| variables.to_string());
    let _ = heap::IoBuf::read(data).map(|block| block.to_string());
    let _ = router::CopyEntry::read(data).map(|(entry, _)| entry.to_string());
    let _ = router::LoadEntry::read(data).map(|(entry, _)| entry.to_string());
    for words in data.chunks_exact(8) {
        let word = |i: usize| u32::from_le_bytes([words[i], words[i + 1], words[i + 2], words[i + 3]]);
        let (key, payload) = (word(0), word(4));
        for key in [key, nn::with_checksum(key, payload)] {
            if let Some(packet) = nn::MonitorPacket::parse(key, payload) {
                // Check sums 0 and 15 are the same number: only one of them is written.
                let (key, payload) = packet.emit();
                assert_eq!(nn::MonitorPacket::parse(key, payload), Some(packet));
            }
            if let Some(packet) = nn::BootPacket::parse(key, payload) {
                let (key, payload) = packet.emit();
                assert_eq!(nn::BootPacket::parse(key, payload), Some(packet));
            }
        }
        if let Ok(control) = p2p::Control::parse(nn::word_with_checksum(payload)) {
            assert_eq!(control.emit().and_then(p2p::Control::parse), Ok(control));
        }
    }
});
