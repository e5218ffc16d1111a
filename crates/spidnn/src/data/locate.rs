//! From a locator (a name or a path) to a data set.

use std::path::Path;

use spidnn_graph::{Graph, NodeId, Tensor};

use super::idx::{self, Part};
use super::{DataError, Dataset, csv};

pub(super) fn open(locator: &str, graph: Option<&Graph>) -> Result<Dataset, DataError> {
    let unknown = |problem: &str| DataError::Locator { locator: locator.into(), problem: problem.into() };
    let (place, part) = match locator.rsplit_once('#') {
        Some((place, "train")) => (place, Part::Train),
        Some((place, "test")) => (place, Part::Test),
        Some((_, other)) if locator.starts_with("mnist") => {
            return Err(unknown(&format!("there is no part `{other}`, only `#train` and `#test`")));
        }
        _ => (locator, Part::Train),
    };
    if place == "mnist" || place == "mnist:" {
        return idx::open_folder(&idx::mnist_folder()?, part, locator);
    }
    if let Some(folder) = place.strip_prefix("mnist:") {
        return idx::open_folder(Path::new(folder), part, locator);
    }
    let path = Path::new(place);
    if path.is_dir() {
        return idx::open_folder(path, part, locator);
    }
    let path = Path::new(locator);
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match extension.as_str() {
        "npz" => from_arrays(read_npz(path)?, path, locator, graph),
        "npy" => Ok(Dataset {
            name: locator.into(),
            inputs: vec![read_npy(path)?],
            targets: Vec::new(),
            sample_weight: None,
        }),
        "csv" => csv::open(path, locator, graph),
        _ if path.exists() => Err(unknown("a file of this kind is not read")),
        _ => Err(unknown("no such file, folder or name")),
    }
}

fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>, DataError> {
    let arrays = spidnn_import::npz::read(path)?;
    Ok(arrays.into_iter().map(|(name, array)| (name, array.to_f32())).collect())
}

fn read_npy(path: &Path) -> Result<Tensor, DataError> {
    let arrays = read_npz(path)?;
    let empty = || DataError::Format { path: path.into(), problem: "it holds no array".into() };
    arrays.into_iter().next().map(|(_, tensor)| tensor).ok_or_else(empty)
}

/// Sorts the arrays of an archive into inputs, targets and weights: by the names of the model's inputs and outputs, or
/// `x` (`x0`, `x1`, ..) and `y` (`y0`, ..), and `sample_weight`.
fn from_arrays(
    arrays: Vec<(String, Tensor)>,
    path: &Path,
    locator: &str,
    graph: Option<&Graph>,
) -> Result<Dataset, DataError> {
    let find = |name: &str| arrays.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone());
    let by_name = |nodes: &[NodeId]| -> Option<Vec<Tensor>> {
        let graph = graph?;
        nodes.iter().map(|n| find(&graph.layers[graph.nodes[n.0].layer.0].name)).collect()
    };
    let by_letter = |letter: &str| -> Vec<Tensor> {
        match find(letter) {
            Some(one) => vec![one],
            None => (0..).map_while(|i| find(&format!("{letter}{i}"))).collect(),
        }
    };
    let mut inputs = by_letter("x");
    let mut targets = by_letter("y");
    if let Some(graph) = graph {
        if let Some(named) = by_name(&graph.inputs).filter(|n| !n.is_empty()) {
            inputs = named;
        }
        if let Some(named) = by_name(&graph.outputs).filter(|n| !n.is_empty()) {
            targets = named;
        }
    }
    if inputs.is_empty() {
        let names: Vec<&str> = arrays.iter().map(|(n, _)| n.as_str()).collect();
        let problem = format!(
            "it holds no input: give an array `x` (or `x0`, `x1`, .. or one named as each model input); found {}",
            if names.is_empty() { "nothing".into() } else { names.join(", ") }
        );
        return Err(DataError::Format { path: path.into(), problem });
    }
    let sample_weight = find("sample_weight").map(|t| t.iter().copied().collect());
    Ok(Dataset { name: locator.into(), inputs, targets, sample_weight })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn locators_with_typos_say_what_there_is() {
        for locator in ["mnits", "mnist#tset", "mnist:/nowhere", "data.parquet", "none.npz", "none.csv", ""] {
            let message = open(locator, None).unwrap_err().to_string();
            assert!(message.contains("mnist") || message.contains("none"), "{message}");
        }
    }

    #[test]
    fn arrays_are_found_by_letter() {
        let a = |v: f32| array![[v]].into_dyn();
        let arrays = vec![
            ("y0".to_string(), a(3.0)),
            ("x1".into(), a(2.0)),
            ("x0".into(), a(1.0)),
            ("sample_weight".into(), a(0.5)),
        ];
        let d = from_arrays(arrays, Path::new("a.npz"), "a.npz", None).unwrap();
        assert_eq!(d.inputs, [a(1.0), a(2.0)]);
        assert_eq!(d.targets, [a(3.0)]);
        assert_eq!(d.sample_weight, Some(vec![0.5]));
        assert!(from_arrays(vec![("q".into(), a(1.0))], Path::new("a.npz"), "a.npz", None).is_err());
    }
}
