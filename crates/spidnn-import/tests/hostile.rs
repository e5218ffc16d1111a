//! Bad files: each an error that says what is wrong, never a panic, never memory for what is only claimed.

use std::path::{Path, PathBuf};

use spidnn_import::{
    Format, ImportError, LoadOptions, load_model_bytes, load_weights_bytes, npz, parse_architecture,
    parse_architecture_with,
};

fn golden(file: &str) -> Vec<u8> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras").join(file);
    std::fs::read(path).unwrap()
}

fn load(format: Format, bytes: Vec<u8>) -> Result<spidnn_import::Model, ImportError> {
    load_model_bytes(format, bytes, &LoadOptions::default())
}

fn problems(json: &str) -> Vec<String> {
    match parse_architecture(json) {
        Err(ImportError::Unsupported(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn sequential(layers: &str) -> String {
    format!(
        r#"{{"class_name": "Sequential", "config": {{"name": "m", "layers": [
            {{"class_name": "InputLayer", "config": {{"batch_shape": [null, 8, 8, 3], "name": "in"}}}}, {layers}]}}}}"#
    )
}

#[test]
fn truncated_files_are_errors() {
    for (file, format) in [
        ("lenet1/model.keras", Format::Keras),
        ("lenet1/model.h5", Format::Hdf5),
        ("lenet1/model_keras2.h5", Format::Hdf5),
    ] {
        let whole = golden(file);
        assert!(load(format, whole.clone()).is_ok());
        for part in 0..200 {
            let end = whole.len() * part / 200;
            assert!(load(format, whole[..end].to_vec()).is_err(), "{file} up to {end}");
        }
    }
    let whole = golden("lenet1/weights.npz");
    for part in 0..200 {
        assert!(npz::read_bytes(whole[..whole.len() * part / 200].to_vec()).is_err());
    }
}

#[test]
fn flipped_bytes_never_panic() {
    // A linear congruential generator: the test needs variety, not quality.
    let mut state = 12345u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for (file, format) in [("ancestor_mlp/model.keras", Format::Keras), ("ancestor_mlp/model.h5", Format::Hdf5)] {
        let whole = golden(file);
        for _ in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random(4) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            let _ = load(format, bytes);
        }
    }
}

#[test]
fn wrong_formats_say_so() {
    let keras = golden("lenet1/model.keras");
    let arrays = golden("lenet1/weights.npz");
    let text = |result: Result<spidnn_import::Model, ImportError>| result.unwrap_err().to_string();
    assert!(text(load(Format::Keras, arrays.clone())).contains("no config.json"));
    assert!(text(load(Format::Hdf5, keras)).contains("not an HDF5 file"));
    assert!(text(load(Format::Keras, b"hello".to_vec())).contains("not a zip archive"));
    assert!(text(load(Format::Keras, Vec::new())).contains("not a zip archive"));
    assert!(npz::read_bytes(b"hello".to_vec()).unwrap_err().to_string().contains("neither"));
    assert!(parse_architecture("[1, 2]").unwrap_err().to_string().contains("not a JSON object"));
    assert!(parse_architecture("{}").unwrap_err().to_string().contains("not a Keras model"));
    assert!(parse_architecture("{").unwrap_err().to_string().contains("not sound JSON"));
    let graph = parse_architecture(&String::from_utf8(golden("lenet1/model.json")).unwrap()).unwrap();
    let error = load_weights_bytes(&graph, Format::Json, golden("lenet1/model.json")).unwrap_err();
    assert!(error.to_string().contains("is an architecture"), "{error}");
}

#[test]
fn deep_json_is_an_error() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(parse_architecture(&deep).is_err());
    let deep = format!(
        r#"{{"class_name": "Sequential", "config": {}{}}}"#,
        r#"{"layers":["#.repeat(50_000),
        "]}".repeat(50_000)
    );
    assert!(parse_architecture(&deep).is_err());
    let mut model = r#"{"class_name": "Dense", "config": {"name": "d", "units": 3}}"#.to_owned();
    for depth in 0..24 {
        model = format!(r#"{{"class_name": "Sequential", "config": {{"name": "m{depth}", "layers": [{model}]}}}}"#);
    }
    assert!(parse_architecture(&model).is_err());
}

/// Each model calls the one inside it twice: 2^n calls.
#[test]
fn exponential_nesting_is_stopped() {
    let mut inner = r#"{"class_name": "Sequential", "config": {"name": "m", "layers": [
        {"class_name": "InputLayer", "config": {"batch_shape": [null, 2], "name": "i"}},
        {"class_name": "Activation", "config": {"name": "a", "activation": "relu"}}]}"#
        .to_owned();
    for depth in 0..15 {
        // Keras 3 counts one call more for an inner functional model.
        let last = if depth == 0 { 3 } else { 4 };
        inner = format!(
            r#"{{"class_name": "Functional", "config": {{"name": "m", "layers": [
            {{"class_name": "InputLayer", "name": "i", "config": {{"batch_shape": [null, 2], "name": "i"}}, "inbound_nodes": []}},
            {inner}, "name": "m", "inbound_nodes": [[["i", 0, 0, {{}}]], [["m", 0, 0, {{}}]], [["m", 1, 0, {{}}]], [["m", 2, 0, {{}}]]]}}],
            "input_layers": [["i", 0, 0]], "output_layers": [["m", {last}, 0]]}}"#
        );
    }
    let error = parse_architecture(&format!("{inner}, \"keras_version\": \"3.0.0\"}}")).unwrap_err();
    assert!(error.to_string().contains("more than 20000 times"), "{error}");
}

#[test]
fn sizes_are_bounded() {
    for (layers, what) in [
        (r#"{"class_name": "Dense", "config": {"name": "d", "units": 1000000000000}}"#, "units"),
        (r#"{"class_name": "Dense", "config": {"name": "d", "units": -1}}"#, "units"),
        (r#"{"class_name": "Dense", "config": {"name": "d", "units": 1e999}}"#, ""),
        (r#"{"class_name": "Dense", "config": {"name": "d", "units": "many"}}"#, "units"),
        (r#"{"class_name": "Dense", "config": {"name": "d"}}"#, "has no units"),
        (r#"{"class_name": "Conv2D", "config": {"name": "d", "filters": 2, "kernel_size": [0, 3]}}"#, "kernel_size"),
        (r#"{"class_name": "Conv2D", "config": {"name": "d", "filters": 2, "kernel_size": [3]}}"#, "kernel_size"),
        (r#"{"class_name": "Conv2D", "config": {"name": "d", "filters": 2, "kernel_size": 3, "groups": 5}}"#, "d"),
        (r#"{"class_name": "Reshape", "config": {"name": "d", "target_shape": [-1, -1]}}"#, "d"),
        (r#"{"class_name": "Reshape", "config": {"name": "d", "target_shape": [16777216, 16777216, 16777216]}}"#, "d"),
        (r#"{"class_name": "ZeroPadding2D", "config": {"name": "d", "padding": 16777216}}"#, "d"),
        (r#"{"class_name": "Dropout", "config": {"name": "d", "rate": 1.5}}"#, "rate"),
        (r#"{"class_name": "BatchNormalization", "config": {"name": "d", "axis": 1}}"#, "axis"),
        (r#"{"class_name": "BatchNormalization", "config": {"name": "d", "axis": 0}}"#, "axis"),
        (r#"{"class_name": "Softmax", "config": {"name": "d", "axis": [1, 2]}}"#, "axis"),
        (r#"{"class_name": "Concatenate", "config": {"name": "d", "axis": 0}}"#, "axis"),
        (r#"{"class_name": "Activation", "config": {"name": "d", "activation": "warp"}}"#, "warp"),
        (r#"{"class_name": "Flatten", "config": {"name": "d", "data_format": "channels_first"}}"#, "data_format"),
        (r#"{"class_name": "Flatten", "config": {"name": "d", "dtype": "float16"}}"#, "float16"),
        (r#"{"class_name": "Flatten", "config": {"name": "d", "mystery": 7}}"#, "mystery"),
    ] {
        match parse_architecture(&sequential(layers)) {
            Err(error) => assert!(error.to_string().contains(what), "{layers}: {error}"),
            Ok(graph) => panic!("{layers}: {:?}", graph.layers),
        }
    }
    for shape in [
        "[null, null, 3]",
        "[null, 16777216, 16777216]",
        "[null, -3]",
        "[null, 0]",
        "[null, 1.5]",
        "[]",
        "7",
        "[null, \"NaN\"]",
        "[null, 1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]",
    ] {
        let json = format!(
            r#"{{"class_name": "Sequential", "config": {{"name": "m", "layers": [
            {{"class_name": "InputLayer", "config": {{"batch_shape": {shape}, "name": "in"}}}}]}}}}"#
        );
        assert!(parse_architecture(&json).is_err(), "{shape}");
    }
    let many = (0..20_001)
        .map(|index| format!(r#"{{"class_name": "Flatten", "config": {{"name": "f{index}"}}}}"#))
        .collect::<Vec<_>>()
        .join(",");
    assert!(parse_architecture(&sequential(&many)).unwrap_err().to_string().contains("layers"));
}

#[test]
fn all_problems_come_at_once_with_names_and_remedies() {
    let found = problems(&sequential(
        r#"{"class_name": "Lambda", "config": {"name": "trick", "function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}}},
           {"class_name": "Conv2DTranspose", "config": {"name": "up", "filters": 3, "kernel_size": [2, 2]}},
           {"class_name": "Conv2D", "config": {"name": "conv", "filters": 2, "kernel_size": [3, 3], "padding": "reflect",
                "activation": "mish", "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.01}}}},
           {"class_name": "Dense", "config": {"name": "head", "units": 3, "kernel_constraint": {"class_name": "MaxNorm", "config": {}}}}"#,
    ));
    assert_eq!(found.len(), 6, "{found:#?}");
    assert!(found[0].contains("`trick`") && found[0].contains("never run"), "{}", found[0]);
    assert!(found[1].contains("`up`") && found[1].contains("Conv2DTranspose") && found[1].contains("nearest"));
    assert!(found.iter().any(|problem| problem.contains("reflect") && problem.contains("valid or same")));
    assert!(found.iter().any(|problem| problem.contains("mish") && problem.contains("silu")));
    assert!(found.iter().any(|problem| problem.contains("`conv`") && problem.contains("kernel_regularizer")));
    assert!(found.iter().any(|problem| problem.contains("`head`") && problem.contains("kernel_constraint")));
}

#[test]
fn keras2_hard_sigmoid_is_refused_and_keras3_is_not() {
    let layer = r#"{"class_name": "Dense", "config": {"name": "d", "units": 3, "activation": "hard_sigmoid"}}"#;
    assert!(parse_architecture(&sequential(layer)).is_ok());
    let keras2 = sequential(layer).replace("batch_shape", "batch_input_shape");
    let found = problems(&keras2);
    assert!(found.len() == 1 && found[0].contains("0.2 x + 0.5"), "{found:?}");
    let version = sequential(layer).replacen('{', r#"{"keras_version": "2.15.0", "#, 1);
    assert_eq!(problems(&version).len(), 1);
}

#[test]
fn calls_that_do_not_add_up_are_reported() {
    let functional = |layers: &str, outputs: &str| {
        format!(
            r#"{{"class_name": "Functional", "config": {{"name": "m", "layers": [
            {{"class_name": "InputLayer", "name": "i", "config": {{"batch_input_shape": [null, 2], "name": "i"}}, "inbound_nodes": []}},
            {layers}], "input_layers": [["i", 0, 0]], "output_layers": {outputs}}}}}"#
        )
    };
    let dense = |name: &str, nodes: &str| {
        format!(
            r#"{{"class_name": "Dense", "name": "{name}", "config": {{"name": "{name}", "units": 2}}, "inbound_nodes": {nodes}}}"#
        )
    };
    for (layers, outputs, what) in [
        (dense("a", r#"[[["b", 0, 0, {}]]]"#), r#"[["a", 0, 0]]"#, "not in the model"),
        (dense("a", r#"[[["a", 0, 0, {}]]]"#), r#"[["a", 0, 0]]"#, "a loop"),
        (dense("a", r#"[[["i", 0, 1, {}]]]"#), r#"[["a", 0, 0]]"#, ""),
        (dense("a", r#"[[["i", 0, 0, {}]]]"#), r#"[["a", 7, 0]]"#, "not a layer that is called"),
        (dense("a", r#"[[["i", 0, 0, {}]]]"#), r#"[["z", 0, 0]]"#, "`z`"),
        (dense("a", r#"[[["i", 0, 0, {}]]]"#), "[]", "output_layers"),
        (dense("a", r#"[[["i", 0, 0, {"training": true, "scale": 2}]]]"#), r#"[["a", 0, 0]]"#, "scale=2"),
        (dense("a", r#"[[["i", 0, 0, {}], ["i", 0, 0, {}]]]"#), r#"[["a", 0, 0]]"#, "`a`"),
        (dense("a", r#"[]"#), r#"[["a", 0, 0]]"#, ""),
        (dense("a", r#"[7]"#), r#"[["a", 0, 0]]"#, "`a`"),
        (
            format!("{}, {}", dense("a", r#"[[["i", 0, 0, {}]]]"#), dense("a", r#"[[["i", 0, 0, {}]]]"#)),
            r#"[["a", 0, 0]]"#,
            "same name",
        ),
    ] {
        let error = parse_architecture(&functional(&layers, outputs)).unwrap_err();
        assert!(error.to_string().contains(what), "{layers}: {error}");
    }
}

#[test]
fn weights_that_do_not_fit_come_in_one_report() {
    let graph = parse_architecture(&String::from_utf8(golden("lenet1/model.json")).unwrap()).unwrap();
    let other = parse_architecture(&String::from_utf8(golden("lenet4/model.json")).unwrap()).unwrap();
    for (graph, file, format) in [
        (&other, "lenet1/model.keras", Format::Keras),
        (&other, "lenet1/model.h5", Format::Hdf5),
        (&other, "lenet1/weights.npz", Format::Npz),
        (&graph, "lenet4/weights.npz", Format::Npz),
        (&graph, "cnn_bn_small/model.keras", Format::Keras),
    ] {
        let error = load_weights_bytes(graph, format, golden(file)).unwrap_err();
        assert!(!error.problems().is_empty(), "{file}: {error}");
    }
    let error = load_weights_bytes(&graph, Format::Npz, golden("dense_relu/weights.npz")).unwrap_err();
    let named: std::collections::BTreeSet<_> = error.problems().iter().map(|problem| problem.layer.as_str()).collect();
    assert!(named.contains("conv2d") && named.contains("dense"), "{error}");
    for json in [
        r#"{"weights": [[1, 2], [3]]}"#,
        r#"[[[1, 2], [3]]]"#,
        r#"[["x"]]"#,
        r#"{"weights": [{"shape": [99999999999, 9999999999], "data": []}]}"#,
        r#"{"weights": [{"shape": [2], "data": [1]}]}"#,
        r#"{"weights": [{}]}"#,
        "7",
    ] {
        assert!(load_weights_bytes(&graph, Format::Json, json.as_bytes().to_vec()).is_err(), "{json}");
    }
}

/// A zip by hand, since no writer lies about sizes: one deflated entry that claims `claimed` bytes.
fn zip_claiming(name: &str, data: &[u8], claimed: u32) -> Vec<u8> {
    let mut zip = Vec::new();
    let common = |zip: &mut Vec<u8>| {
        zip.extend(20u16.to_le_bytes());
        zip.extend(0u16.to_le_bytes());
        zip.extend(8u16.to_le_bytes());
        zip.extend(0u32.to_le_bytes());
        zip.extend(0u32.to_le_bytes());
        zip.extend((data.len() as u32).to_le_bytes());
        zip.extend(claimed.to_le_bytes());
        zip.extend((name.len() as u16).to_le_bytes());
        zip.extend(0u16.to_le_bytes());
    };
    zip.extend(b"PK\x03\x04");
    common(&mut zip);
    zip.extend(name.as_bytes());
    zip.extend(data);
    let directory = zip.len() as u32;
    zip.extend(b"PK\x01\x02");
    zip.extend(20u16.to_le_bytes());
    common(&mut zip);
    zip.extend([0; 10]);
    zip.extend(0u32.to_le_bytes());
    zip.extend(name.as_bytes());
    let length = zip.len() as u32 - directory;
    zip.extend(b"PK\x05\x06");
    zip.extend([0; 4]);
    zip.extend(1u16.to_le_bytes());
    zip.extend(1u16.to_le_bytes());
    zip.extend(length.to_le_bytes());
    zip.extend(directory.to_le_bytes());
    zip.extend(0u16.to_le_bytes());
    zip
}

#[test]
fn zip_bombs_are_refused_by_their_label_and_by_their_content() {
    // Claims 4 GiB.
    let error = load(Format::Keras, zip_claiming("config.json", &[3, 0], u32::MAX - 1)).unwrap_err();
    assert!(matches!(error, ImportError::TooLarge { .. }), "{error}");
    let error = npz::read_bytes(zip_claiming("w000.npy", &[3, 0], u32::MAX - 1)).unwrap_err();
    assert!(matches!(error, ImportError::TooLarge { .. }), "{error}");
    // Claims 10 bytes and unpacks to more: one stored deflate block of 100 bytes.
    let mut block = vec![1, 100, 0, 155, 255];
    block.extend([b' '; 100]);
    let error = load(Format::Keras, zip_claiming("config.json", &block, 10)).unwrap_err();
    assert!(matches!(error, ImportError::Format { .. }), "{error}");
    // Names are no paths.
    let error = load(Format::Keras, zip_claiming("../../config.json", &block, 100)).unwrap_err();
    assert!(error.to_string().contains("no config.json"), "{error}");
}

#[test]
fn npy_headers_may_lie() {
    let npy = |header: &str| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend([0; 64]);
        bytes
    };
    let good = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (16,), }\n");
    assert_eq!(npz::read_bytes(good).unwrap()["arr_0"].shape(), [16]);
    for header in [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (17,), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 18446744073709551615), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (nan,), }\n",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }\n",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n",
        "{'descr': '<f4'",
        "",
    ] {
        assert!(npz::read_bytes(npy(header)).is_err(), "{header}");
    }
    let deep = npy(&("(".repeat(30_000) + "\n"));
    assert!(npz::read_bytes(deep).is_err());
}

#[test]
fn nan_in_weights_is_refused_with_its_place() {
    let graph = parse_architecture(&String::from_utf8(golden("dense_relu/model.json")).unwrap()).unwrap();
    let mut bytes = golden("dense_relu/weights.npz");
    // The arrays are stored as they are; their checksums have to be cut out of the way, so the data goes through a file.
    let mut arrays = npz::read_bytes(std::mem::take(&mut bytes)).unwrap();
    let mut first = arrays.remove("w000").unwrap().to_f32();
    first.as_slice_mut().unwrap()[5] = f32::INFINITY;
    let rest: Vec<_> = arrays.iter().map(|(name, array)| (name.as_str(), array.to_f32())).collect();
    let mut named = vec![("w000", &first)];
    named.extend(rest.iter().map(|(name, tensor)| (*name, tensor)));
    let error = load_weights_bytes(&graph, Format::Npz, npz::npz_bytes(&named).unwrap()).unwrap_err();
    assert!(error.to_string().contains("NaN or infinity (element 5"), "{error}");
}

#[test]
fn initializers_matter_only_without_weights() {
    let layer = r#"{"class_name": "Dense", "config": {"name": "d", "units": 3,
        "kernel_initializer": {"class_name": "Orthogonal", "config": {"gain": 1.0, "seed": null}}}}"#;
    assert_eq!(problems(&sequential(layer)).len(), 1);
    let options = LoadOptions { weights_follow: true, ..Default::default() };
    assert!(parse_architecture_with(&sequential(layer), &options).is_ok());
}
