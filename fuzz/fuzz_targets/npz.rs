//! `.npz` and `.npy`: arrays that are accepted must convert.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spidnn_import::npz;

fuzz_target!(|data: &[u8]| {
    for array in npz::read_bytes(data.to_vec()).into_iter().flatten().map(|(_, array)| array) {
        assert_eq!(array.to_f32().shape(), array.shape());
        let _ = array.to_i64();
    }
});
