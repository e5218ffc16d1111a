//! Comma-separated numbers, one sample a line.

use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use spidnn_graph::Graph;

use super::{DataError, Dataset};

/// Names of columns that hold targets, if there is a header line.
const TARGET_NAMES: [&str; 4] = ["y", "label", "class", "target"];

fn is_target(name: &str) -> bool {
    let name = name.trim().trim_matches('"').to_ascii_lowercase();
    TARGET_NAMES
        .iter()
        .any(|t| name.strip_prefix(t).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '_')))
}

/// Reads numbers. With a header line, columns named `y`, `label`, `class` or `target` (with or without a number) are
/// targets, the others inputs. Without one, the model's input sizes say how many columns are inputs; the rest are
/// targets. One target column becomes `[samples]`.
pub(super) fn open(path: &Path, name: &str, graph: Option<&Graph>) -> Result<Dataset, DataError> {
    let text = std::fs::read_to_string(path).map_err(|source| DataError::Io { path: path.into(), source })?;
    parse(&text, path, name, graph.map(input_shapes))
}

fn input_shapes(graph: &Graph) -> Vec<Vec<usize>> {
    graph.inputs.iter().map(|n| graph.nodes[n.0].shape.clone()).collect()
}

fn parse(text: &str, path: &Path, name: &str, shapes: Option<Vec<Vec<usize>>>) -> Result<Dataset, DataError> {
    let format = |problem: String| DataError::Format { path: path.into(), problem };
    let mut lines = text
        .trim_start_matches('\u{FEFF}')
        .lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .peekable();
    let Some(&(_, first)) = lines.peek() else { return Err(DataError::Empty { what: name.into() }) };
    let columns = first.split(',').count();
    let header = first.split(',').any(|field| field.trim().parse::<f32>().is_err());
    let model_inputs: Option<usize> = shapes.as_ref().map(|s| s.iter().map(|s| s.iter().product::<usize>()).sum());
    let input_columns: Vec<bool> = if header {
        lines.next();
        let targets: Vec<bool> = first.split(',').map(is_target).collect();
        targets.iter().map(|t| !t).collect()
    } else {
        let inputs = model_inputs.unwrap_or(columns).min(columns);
        (0..columns).map(|c| c < inputs).collect()
    };
    let (mut x, mut y, mut samples) = (Vec::new(), Vec::new(), 0usize);
    for (number, line) in lines {
        let mut found = 0;
        for (column, field) in line.split(',').enumerate() {
            let value: f32 = field.trim().parse().map_err(|_| {
                format(format!("line {number}, column {}: `{}` is not a number", column + 1, field.trim()))
            })?;
            match input_columns.get(column) {
                Some(true) => x.push(value),
                Some(false) => y.push(value),
                None => {}
            }
            found += 1;
        }
        if found != columns {
            return Err(format(format!("line {number} has {found} columns, the first line has {columns}")));
        }
        samples += 1;
    }
    if samples == 0 {
        return Err(DataError::Empty { what: name.into() });
    }
    let x_columns = x.len() / samples;
    if let Some(expected) = model_inputs.filter(|&n| n != x_columns) {
        return Err(format(format!(
            "{x_columns} of its {columns} columns are inputs, but the model takes {expected} values a sample"
        )));
    }
    let tensor = |values: Vec<f32>, shape: &[usize]| {
        ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|e| format(e.to_string()))
    };
    let shapes = shapes.unwrap_or_else(|| vec![vec![x_columns]]);
    let mut inputs = Vec::new();
    let mut start = 0;
    for shape in &shapes {
        let words: usize = shape.iter().product();
        let part = x.chunks_exact(x_columns.max(1)).flat_map(|row| row[start..start + words].iter().copied()).collect();
        let mut full = vec![samples];
        full.extend_from_slice(shape);
        inputs.push(tensor(part, &full)?);
        start += words;
    }
    let y_columns = y.len() / samples;
    let targets = match y_columns {
        0 => Vec::new(),
        1 => vec![tensor(y, &[samples])?],
        n => vec![tensor(y, &[samples, n])?],
    };
    Ok(Dataset { name: name.into(), inputs, targets, sample_weight: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, shapes: Option<Vec<Vec<usize>>>) -> Result<Dataset, DataError> {
        parse(text, Path::new("a.csv"), "a.csv", shapes)
    }

    #[test]
    fn columns_go_where_they_belong() {
        let d = read("1,2,0\n3,4,1\n", Some(vec![vec![2]])).unwrap();
        assert_eq!((d.inputs[0].shape(), d.targets[0].shape()), (&[2, 2][..], &[2][..]));
        assert_eq!(d.targets[0][[1]], 1.0);
        let d = read("label,a,b\n7,1,2\n", Some(vec![vec![2, 1]])).unwrap();
        assert_eq!((d.inputs[0].shape(), d.targets[0][[0]]), (&[1, 2, 1][..], 7.0));
        let d = read("\u{FEFF}a,b,y0,y1\n1,2,3,4\n", None).unwrap();
        assert_eq!(d.targets[0].shape(), [1, 2]);
        let d = read("# remark\n1,2\n\n3,4\n", None).unwrap();
        assert_eq!((d.inputs[0].shape(), d.targets.len()), (&[2, 2][..], 0));
        let d = read("1,2,3\n", Some(vec![vec![1], vec![2]])).unwrap();
        assert_eq!(d.inputs[1].iter().copied().collect::<Vec<_>>(), [2.0, 3.0]);
    }

    #[test]
    fn bad_lines_are_named() {
        let check = |text: &str, shapes, words: &str| {
            let message = read(text, shapes).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        check("1,2\n3,x\n", None, "line 2, column 2: `x` is not a number");
        check("1,2\n3\n", None, "line 2 has 1 columns");
        check("1\n", Some(vec![vec![2]]), "the model takes 2 values");
        check("a,b\n", None, "no samples");
        check("", None, "no samples");
    }
}
