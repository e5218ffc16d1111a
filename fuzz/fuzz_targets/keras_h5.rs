//! HDF5 bytes: as a legacy model, and as weights of a network in both layouts.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use spidnn_graph::Graph;
use spidnn_import::{Format, LoadOptions, load_model_bytes, load_weights_bytes, parse_architecture};

static GRAPH: LazyLock<Graph> = LazyLock::new(|| {
    parse_architecture(include_str!("../../tests/fixtures/keras/cnn_bn_small/model.json")).expect("a golden network")
});

fuzz_target!(|data: &[u8]| {
    let _ = load_model_bytes(Format::Hdf5, data.to_vec(), &LoadOptions::default());
    let _ = load_weights_bytes(&GRAPH, Format::Hdf5, data.to_vec());
});
