extern crate std;
use std::string::ToString;

use zerocopy::IntoBytes;

use super::*;
use crate::testing::hex;

/// System variables of chip (0, 0) of four after the boot of the released monitor (boot values of its own image).
fn after_boot() -> std::vec::Vec<u8> {
    let mut bytes = hex("00000202000001000000030104043300 8613000000000000 e6030000 0400005f \
         00000000c80082003f00c80132ff0000010000000000000000000000a5000000 \
         010714039b000000001100e5000064600040000000000060008000000000005f \
         0000000000270000181100e50000010000000000000000000000000000000000");
    bytes.extend([0; 20]);
    bytes.extend([1, 0]);
    bytes.extend(2..=17);
    bytes.extend([255, 255]);
    bytes.extend([1, 0]);
    bytes.extend(2..=17);
    bytes.extend([255, 255, 18, 0, 0, 0]);
    bytes.extend(hex(
        "00002460000100e500008067007000e50000846720008867180084673840886701000400404 08c67181100e500000000c0a8f0fd\
         00000000007900e500000400",
    ));
    bytes
}

#[test]
fn variables_of_a_booted_chip() {
    let bytes = after_boot();
    assert_eq!(bytes.len(), BYTES);
    let sv = SystemVariables::read(&bytes).unwrap();
    assert_eq!((sv.chip(), sv.dimensions(), sv.version()), (ChipAddress::new(0, 0), (2, 2), (4, 0, 0)));
    assert_eq!((sv.boot.hw_ver, sv.boot.eth_up, sv.boot.p2p_up), (3, 1, 1));
    assert_eq!((sv.boot.clock_ms.get(), sv.boot.unix_time_s.get()), (0x1386, 0x5F00_0004));
    assert_eq!((sv.boot.netinit_phase, sv.boot.link_en), (NETINIT_DONE, 0x27));
    assert_eq!((sv.boot.sync_alignment_us.get(), sv.boot.sdram_heap.get()), (155, 0x6064_0000));
    assert_eq!((sv.p2v_map[0], sv.v2p_map[17], sv.num_cpus), (1, 17, 18));
    assert_eq!((sv.sdram_sys.get(), sv.vcpu_base.get()), (SDRAM_SYS_ADDRESS, crate::vcpu::BASE_ADDRESS));
    assert_eq!((sv.rtr_free.get(), sv.p2p_active.get()), (1, 4));
    assert_eq!(sv.ip_addr, [192, 168, 240, 253]);
    assert_eq!(sv.to_string(), "chip 0,0 of 2x2, 18 cores, links 0x27, phase 0xff, version 4.0.0");
    assert!(SystemVariables::read(&bytes[1..]).is_err());
}

#[test]
fn what_the_host_writes_into_the_boot_image() {
    let variables = BootVariables::for_board(Board::Spin3, 0x5F00_0000);
    // Offsets and values of the table that the official host has; all others are 0.
    let mut expected = [0; BOOT_BYTES];
    for (offset, bytes) in [
        (0x0A, &[3][..]),
        (0x0C, &[4, 4, 0x33]),
        (0x1C, &[0, 0, 0, 0x5F]),
        (0x24, &[200, 0, 130, 0, 0x3F, 0, 200, 1, 50]),
        (0x30, &[0x02, 0x05]),
        (0x40, &[1, 7, 20]),
        (0x48, &[0, 4]),
        (0x50, &[0, 0x40]),
        (0x54, &[0, 0, 0x80]),
        (0x58, &[0, 0x80]),
        (0x5C, &[0, 0, 0, 0x5F]),
        (0x65, &[0x3F]),
    ] {
        expected[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    assert_eq!(variables.as_bytes(), expected);
    assert_eq!(Board::Spin1.led0(), 0x0007_6104);
    assert_eq!(Board::Spin5.hw_ver(), 5);
}
