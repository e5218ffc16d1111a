//! IDX files: the format of MNIST (and of Fashion-MNIST and others that follow it).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use ndarray::{ArrayD, IxDyn};

use super::{DataError, Dataset};

/// Largest unpacked file that is read: a bound against hostile gzip streams.
const BYTES_MAX: u64 = 2 << 30;

/// Training or test part of a folder of IDX files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// `train-*`
    #[default]
    Train,
    /// `t10k-*`
    Test,
}

/// Reads an IDX file of unsigned bytes, packed with gzip or not: its dimensions and its bytes, row-major.
///
/// # Errors
/// If the file cannot be read, is of another element type, or has another length than its dimensions say.
pub fn read_idx(path: &Path) -> Result<(Vec<usize>, Vec<u8>), DataError> {
    let io = |source| DataError::Io { path: path.into(), source };
    let format = |problem: String| DataError::Format { path: path.into(), problem };
    let mut packed = Vec::new();
    File::open(path).map_err(io)?.take(BYTES_MAX).read_to_end(&mut packed).map_err(io)?;
    let bytes = if packed.starts_with(&[0x1F, 0x8B]) {
        let mut unpacked = Vec::new();
        MultiGzDecoder::new(&packed[..])
            .take(BYTES_MAX)
            .read_to_end(&mut unpacked)
            .map_err(|e| format(format!("the gzip stream is damaged ({e}): get the file again")))?;
        unpacked
    } else {
        packed
    };
    let (kind, rank) = match bytes[..] {
        [0, 0, kind, rank, ..] => (kind, usize::from(rank)),
        _ => return Err(format("not an IDX file: it does not begin with two zero bytes".into())),
    };
    if kind != 0x08 {
        return Err(format(format!("element type {kind:#04x} is not read here: only unsigned bytes (0x08) are")));
    }
    let header = 4 + 4 * rank;
    if rank == 0 || bytes.len() < header {
        return Err(format("the IDX header is cut short: get the file again".into()));
    }
    let dims: Vec<usize> =
        bytes[4..header].chunks_exact(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]) as usize).collect();
    let expected = dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d));
    if expected != Some(bytes.len() - header) {
        return Err(format(format!(
            "the header says {dims:?} elements, but {} bytes follow: get the file again",
            bytes.len() - header
        )));
    }
    Ok((dims, bytes[header..].to_vec()))
}

/// Where the bundled MNIST lies: `$SPIDNN_DATA/mnist`, `data/mnist` beside or above the executable, or in the source tree.
///
/// # Errors
/// If it is in none of these places.
pub fn mnist_folder() -> Result<PathBuf, DataError> {
    let mut candidates = Vec::new();
    if let Some(folder) = std::env::var_os("SPIDNN_DATA") {
        candidates.push(PathBuf::from(folder).join("mnist"));
    }
    if let Ok(executable) = std::env::current_exe() {
        candidates.extend(executable.ancestors().skip(1).take(6).map(|a| a.join("data/mnist")));
    }
    candidates.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mnist"));
    candidates.into_iter().find(|c| find(c, Part::Test, "images", 3).is_some()).ok_or_else(|| DataError::Locator {
        locator: "mnist".into(),
        problem: "the bundled copy is not there; set SPIDNN_DATA to the project's folder `data`".into(),
    })
}

fn find(folder: &Path, part: Part, content: &str, rank: usize) -> Option<PathBuf> {
    let prefix = match part {
        Part::Train => "train",
        Part::Test => "t10k",
    };
    [
        format!("{prefix}-{content}-idx{rank}-ubyte.gz"),
        format!("{prefix}-{content}-idx{rank}-ubyte"),
        format!("{prefix}-{content}.idx{rank}-ubyte"),
    ]
    .iter()
    .map(|name| folder.join(name))
    .find(|p| p.is_file())
}

/// Reads a folder of IDX files: pictures `[samples, rows, columns, 1]` as byte / 255, labels `[samples]`.
pub(super) fn open_folder(folder: &Path, part: Part, name: &str) -> Result<Dataset, DataError> {
    let need = |content: &str, rank| {
        find(folder, part, content, rank).ok_or_else(|| DataError::Locator {
            locator: name.into(),
            problem: format!(
                "{} has no {}-{content}-idx{rank}-ubyte(.gz)",
                folder.display(),
                if part == Part::Train { "train" } else { "t10k" }
            ),
        })
    };
    let image_path = need("images", 3)?;
    let label_path = need("labels", 1)?;
    let (image_dims, pixels) = read_idx(&image_path)?;
    let (label_dims, labels) = read_idx(&label_path)?;
    let format = |path: &Path, problem: String| DataError::Format { path: path.into(), problem };
    let [samples, rows, columns] = image_dims[..] else {
        return Err(format(&image_path, format!("pictures have 3 dimensions, this has {}", image_dims.len())));
    };
    if label_dims != [samples] {
        return Err(format(
            &label_path,
            format!("{label_dims:?} labels for {samples} pictures: the files do not belong together"),
        ));
    }
    let x = pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
    let y = labels.iter().map(|&l| f32::from(l)).collect();
    let x = ArrayD::from_shape_vec(IxDyn(&[samples, rows, columns, 1]), x);
    let y = ArrayD::from_shape_vec(IxDyn(&[samples]), y);
    let (Ok(x), Ok(y)) = (x, y) else {
        return Err(format(&image_path, "its dimensions overflow".into()));
    };
    Ok(Dataset { name: name.into(), inputs: vec![x], targets: vec![y], sample_weight: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundled_mnist_is_whole() {
        let test = open_folder(&mnist_folder().unwrap(), Part::Test, "mnist#test").unwrap();
        assert_eq!(test.inputs[0].shape(), [10_000, 28, 28, 1]);
        let mut histogram = [0; 10];
        test.targets[0].iter().for_each(|&l| histogram[l as usize] += 1);
        assert_eq!(histogram, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
        let train = open_folder(&mnist_folder().unwrap(), Part::Train, "mnist").unwrap();
        assert_eq!(
            train.targets[0].iter().take(10).copied().collect::<Vec<_>>(),
            [5., 0., 4., 1., 9., 2., 1., 3., 1., 4.]
        );
        let mean = train.inputs[0].iter().map(|&p| f64::from(p)).sum::<f64>() / (60_000.0 * 784.0);
        assert!((mean - 0.13066).abs() < 1e-5, "{mean}");
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let check = |bytes: &[u8], words: &str| {
            std::fs::write(&path, bytes).unwrap();
            let message = read_idx(&path).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        check(b"", "not an IDX file");
        check(b"PK\x03\x04abcd", "not an IDX file");
        check(&[0, 0, 0x0D, 1, 0, 0, 0, 0], "element type");
        check(&[0, 0, 8, 3, 0, 0], "cut short");
        check(&[0, 0, 8, 1, 0, 0, 0, 3, 1, 2], "2 bytes follow");
        check(&[0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255], "bytes follow");
        check(&[0x1F, 0x8B, 8, 0, 0, 0, 0, 0], "gzip");
        std::fs::write(&path, [0, 0, 8, 1, 0, 0, 0, 2, 7, 9]).unwrap();
        assert_eq!(read_idx(&path).unwrap(), (vec![2], vec![7, 9]));
    }
}
