//! An architecture: what is accepted must be the same after writing and reading; and weights as JSON.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use spidnn_graph::Graph;
use spidnn_import::{
    Format, LoadOptions, architecture_json, load_weights_bytes, parse_architecture, parse_architecture_with,
};

static GRAPH: LazyLock<Graph> = LazyLock::new(|| {
    parse_architecture(include_str!("../../tests/fixtures/keras/dense_relu/model.json")).expect("a golden network")
});

fuzz_target!(|data: &[u8]| {
    let _ = load_weights_bytes(&GRAPH, Format::Json, data.to_vec());
    let Ok(text) = std::str::from_utf8(data) else { return };
    let options = LoadOptions { inference_only: true, weights_follow: true };
    let Ok(graph) = parse_architecture_with(text, &options) else { return };
    // Names with `/` cannot be written: Keras does not take them.
    let Ok(written) = architecture_json(&graph) else { return };
    let again = parse_architecture_with(&written, &options).expect("what is written can be read");
    // Layers come back in Keras' order, calls in an order of their own.
    assert_eq!(again.params.len(), graph.params.len());
    assert_eq!(again.layers.len(), graph.layers.len());
    assert_eq!(again.nodes.len(), graph.nodes.len());
    for layer in &graph.layers {
        let id = again.layer_named(&layer.name).expect("the layer is still there");
        assert_eq!(again.layer(id).kind, layer.kind);
        assert_eq!(again.layer(id).trainable, layer.trainable);
    }
});
