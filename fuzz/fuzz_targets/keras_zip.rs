//! A `.keras` archive, as a model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spidnn_import::{Format, LoadOptions, load_model_bytes};

fuzz_target!(|data: &[u8]| {
    let options = LoadOptions { inference_only: true, weights_follow: true };
    let _ = load_model_bytes(Format::Keras, data.to_vec(), &options);
});
