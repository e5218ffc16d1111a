//! Reads the golden files.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use spidnn_graph::Tensor;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras")
}

pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of the cases of `index.json`.
pub fn cases() -> Vec<String> {
    let index = json(&root().join("index.json"));
    index["cases"].as_array().unwrap().iter().map(|case| case["name"].as_str().unwrap().to_owned()).collect()
}

/// An array of an `.npz`, in float64 whatever it was.
#[derive(Debug, Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    pub fn tensor(&self) -> Tensor {
        Tensor::from_shape_vec(self.shape.clone(), self.values.iter().map(|value| *value as f32).collect()).unwrap()
    }
}

/// All arrays of an `.npz`; `None` when there is no such file.
pub fn npz(path: &Path) -> Option<HashMap<String, Array>> {
    let file = std::fs::File::open(path).ok()?;
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let mut arrays = HashMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let name = entry.name().unwrap().trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let npy = npyz::NpyFile::new(&bytes[..]).unwrap();
        let shape = npy.shape().iter().map(|size| *size as usize).collect();
        let values = match npy.dtype().descr().trim_matches('\'') {
            "<f4" => npy.into_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
            "<f8" => npy.into_vec::<f64>().unwrap(),
            "<i4" => npy.into_vec::<i32>().unwrap().into_iter().map(f64::from).collect(),
            "<i8" => npy.into_vec::<i64>().unwrap().into_iter().map(|value| value as f64).collect(),
            "|u1" => npy.into_vec::<u8>().unwrap().into_iter().map(f64::from).collect(),
            other => panic!("{}: {name} is of type {other}", path.display()),
        };
        arrays.insert(name, Array { shape, values });
    }
    Some(arrays)
}

/// Arrays `{letter}000`, `{letter}001`, .. in order.
pub fn numbered(arrays: &HashMap<String, Array>, prefix: &str) -> Vec<Tensor> {
    (0..).map_while(|index| arrays.get(&format!("{prefix}{index:03}"))).map(Array::tensor).collect()
}

/// `x`, or `x0`, `x1`, ..
pub fn one_or_many(arrays: &HashMap<String, Array>, name: &str) -> Vec<Array> {
    match arrays.get(name) {
        Some(array) => vec![array.clone()],
        None => (0..).map_while(|index| arrays.get(&format!("{name}{index}"))).cloned().collect(),
    }
}

/// Largest distance between computed and expected, in units of the largest expected magnitude.
pub fn distance(computed: &Tensor, expected: &Array) -> f64 {
    assert_eq!(computed.shape(), expected.shape, "shapes");
    let scale = expected.values.iter().fold(0.0_f64, |max, value| max.max(value.abs()));
    let largest = computed.iter().zip(&expected.values).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, nan_max);
    if scale == 0.0 { largest } else { largest / scale }
}

/// Maximum that does not lose NaN.
pub fn nan_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Training images of MNIST (divided by 255) and their labels, from a first one on.
pub fn mnist(first: usize, count: usize) -> (Tensor, Tensor) {
    let read = |name: &str, header: usize| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mnist").join(name);
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
        bytes.split_off(header)
    };
    let pixels = read("train-images-idx3-ubyte.gz", 16);
    let labels = read("train-labels-idx1-ubyte.gz", 8);
    let image = 28 * 28;
    let x = pixels[first * image..(first + count) * image].iter().map(|byte| f32::from(*byte) / 255.0).collect();
    let y = labels[first..first + count].iter().map(|label| f32::from(*label)).collect();
    (Tensor::from_shape_vec(vec![count, 28, 28, 1], x).unwrap(), Tensor::from_shape_vec(vec![count], y).unwrap())
}
