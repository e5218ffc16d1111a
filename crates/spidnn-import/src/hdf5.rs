//! HDF5 as Keras uses it: groups, float datasets, text attributes. Reading is bounded; writing keeps to the oldest
//! structures, which every HDF5 library reads.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hdf5_pure::{AttrValue, DType, File, FileBuilder, FinishedGroup, GroupBuilder, LibVer};
use ndarray::{ArrayD, IxDyn};
use spidnn_graph::Tensor;

use crate::{ImportError, limits};

/// The first bytes of every HDF5 file.
pub(crate) const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Runs a reading of the library and turns its panics into errors. The library checks most of what it reads, but it is
/// large and young, and a file from elsewhere must not be able to end the program; it keeps no state between calls that
/// a panic could leave half changed, since every reading starts again from the bytes.
fn guard<T>(what: &str, read: impl FnOnce() -> Result<T, hdf5_pure::Error>) -> Result<T, ImportError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ImportError::format(format!("{what}: {error}"))),
        Err(_) => Err(ImportError::format(format!("{what}: damaged (the HDF5 reader gave up on it)"))),
    }
}

/// An HDF5 file in memory, for reading.
pub(crate) struct Hdf5 {
    file: File,
    file_bytes: u64,
}

impl Hdf5 {
    /// Reads the superblock. `what` names the file in errors.
    pub(crate) fn open(what: &str, bytes: Vec<u8>) -> Result<Self, ImportError> {
        if !bytes.starts_with(MAGIC) {
            return Err(ImportError::format(format!("{what} is not an HDF5 file: its first bytes are not HDF5's")));
        }
        let file_bytes = bytes.len() as u64;
        let file = guard(what, || File::from_bytes(bytes))?;
        let declared = file.superblock().eof_address;
        if declared > file_bytes {
            return Err(ImportError::format(format!("{what} is truncated: {file_bytes} bytes of {declared}")));
        }
        Ok(Self { file, file_bytes })
    }

    fn group(&self, path: &str) -> Result<hdf5_pure::Group, ImportError> {
        guard(&format!("group `{path}`"), || match path.trim_matches('/') {
            "" => Ok(self.file.root()),
            path => self.file.group(path),
        })
    }

    /// Names of the groups in a group.
    pub(crate) fn groups(&self, path: &str) -> Result<Vec<String>, ImportError> {
        let group = self.group(path)?;
        guard(&format!("group `{path}`"), || group.groups())
    }

    /// Names of the datasets in a group.
    pub(crate) fn datasets(&self, path: &str) -> Result<Vec<String>, ImportError> {
        let group = self.group(path)?;
        guard(&format!("group `{path}`"), || group.datasets())
    }

    /// Whether there is a group of this path.
    pub(crate) fn has_group(&self, path: &str) -> bool {
        self.group(path).is_ok_and(|group| guard(path, || group.attrs()).is_ok())
    }

    fn attribute(&self, group: &str, name: &str) -> Result<Option<AttrValue>, ImportError> {
        let handle = self.group(group)?;
        Ok(guard(&format!("attributes of `{group}`"), || handle.attrs())?.remove(name))
    }

    /// A text attribute of a group.
    pub(crate) fn text(&self, group: &str, name: &str) -> Result<Option<String>, ImportError> {
        match self.attribute(group, name)? {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some(text) => Ok(Some(text.trim_end_matches('\0').to_owned())),
                None => Err(ImportError::format(format!(
                    "attribute `{name}` of `{group}` is {}, not text",
                    value.type_name()
                ))),
            },
        }
    }

    /// A list of texts. Keras splits a list that is too large for one attribute into `name0`, `name1`, ..; an empty list
    /// is an empty array of numbers.
    pub(crate) fn texts(&self, group: &str, name: &str) -> Result<Option<Vec<String>>, ImportError> {
        let handle = self.group(group)?;
        let mut attributes = guard(&format!("attributes of `{group}`"), || handle.attrs())?;
        let mut take = |name: &str| -> Result<Option<Vec<String>>, ImportError> {
            let Some(value) = attributes.remove(name) else { return Ok(None) };
            if let Some(texts) = value.as_strings() {
                return Ok(Some(texts.iter().map(|text| text.trim_end_matches('\0').to_owned()).collect()));
            }
            match value.to_f64s() {
                Some(numbers) if numbers.is_empty() => Ok(Some(Vec::new())),
                _ => Err(ImportError::format(format!(
                    "attribute `{name}` of `{group}` is {}, not a list of names",
                    value.type_name()
                ))),
            }
        };
        if let Some(whole) = take(name)? {
            return Ok(Some(whole));
        }
        let mut joined: Option<Vec<String>> = None;
        for part in 0.. {
            match take(&format!("{name}{part}"))? {
                Some(texts) => joined.get_or_insert_default().extend(texts),
                None => break,
            }
        }
        Ok(joined)
    }

    /// The dataset, with its declared size held against the limits and the file's size before anything is read.
    fn dataset(&self, path: &str) -> Result<(hdf5_pure::Dataset, Vec<usize>, DType), ImportError> {
        let what = format!("dataset `{path}`");
        let dataset = guard(&what, || self.file.dataset(path))?;
        let shape = guard(&what, || dataset.shape())?;
        let elements = limits::elements(&what, &shape)?;
        let element_bytes = guard(&what, || dataset.element_size())?;
        limits::expansion(&what, (elements as u64).saturating_mul(element_bytes), self.file_bytes)?;
        let dtype = guard(&what, || dataset.dtype())?;
        Ok((dataset, shape.iter().map(|&size| size as usize).collect(), dtype))
    }

    /// A dataset of floats, as float32.
    pub(crate) fn tensor(&self, path: &str) -> Result<Tensor, ImportError> {
        let what = format!("dataset `{path}`");
        let (dataset, shape, dtype) = self.dataset(path)?;
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(ImportError::format(format!("{what} holds {dtype}; weights are read as float32 or float64")));
        }
        let values = guard(&what, || dataset.read_f32())?;
        ArrayD::from_shape_vec(IxDyn(&shape), values)
            .map_err(|_| ImportError::format(format!("{what}: truncated: fewer values than its shape {shape:?} needs")))
    }

    /// A scalar dataset of integers.
    pub(crate) fn integer(&self, path: &str) -> Result<i64, ImportError> {
        let what = format!("dataset `{path}`");
        let (dataset, shape, dtype) = self.dataset(path)?;
        if shape.iter().product::<usize>() != 1 {
            return Err(ImportError::format(format!("{what} has shape {shape:?}, not one number")));
        }
        if !matches!(
            dtype,
            DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::U16 | DType::U32 | DType::U64
        ) {
            return Err(ImportError::format(format!("{what} holds {dtype}, not an integer")));
        }
        guard(&what, || dataset.read_i64())?
            .first()
            .copied()
            .ok_or_else(|| ImportError::format(format!("{what} is empty")))
    }

    /// The shape of a dataset, where there is one.
    pub(crate) fn shape(&self, path: &str) -> Option<Vec<usize>> {
        self.dataset(path).ok().map(|(_, shape, _)| shape)
    }
}

/// What a dataset to be written holds.
pub(crate) enum Data<'a> {
    Tensor(&'a Tensor),
    Float(f32),
    Integer(i64),
}

/// A group to be written; a tree of them is a file.
#[derive(Default)]
pub(crate) struct Group<'a> {
    attributes: Vec<(String, AttrValue)>,
    groups: BTreeMap<String, Group<'a>>,
    datasets: BTreeMap<String, Data<'a>>,
}

impl<'a> Group<'a> {
    /// The group at a path below this one, made where there is none.
    pub(crate) fn at(&mut self, path: &str) -> &mut Self {
        path.split('/')
            .filter(|part| !part.is_empty())
            .fold(self, |group, part| group.groups.entry(part.to_owned()).or_default())
    }

    /// Puts a dataset at a path below this group.
    pub(crate) fn put(&mut self, path: &str, data: Data<'a>) {
        let (group, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.at(group).datasets.insert(name.to_owned(), data);
    }

    /// Sets a text attribute (variable-length UTF-8, as h5py writes `str`).
    pub(crate) fn text(&mut self, name: &str, value: impl Into<String>) {
        self.attributes.push((name.to_owned(), AttrValue::VarLenString(value.into())));
    }

    /// Sets a list of names; an empty one as Keras leaves it (an empty array of float64). A list that would pass the
    /// format's 64 KiB for one attribute is split as Keras splits it.
    pub(crate) fn texts(&mut self, name: &str, values: Vec<String>) {
        // A variable-length text takes 16 bytes in the attribute itself.
        const TEXTS_MAX: usize = 4000;
        if values.is_empty() {
            self.attributes.push((name.to_owned(), AttrValue::F64Array(Vec::new())));
        } else if values.len() <= TEXTS_MAX {
            self.attributes.push((name.to_owned(), AttrValue::VarLenAsciiStringArray(values)));
        } else {
            for (part, chunk) in values.chunks(TEXTS_MAX).enumerate() {
                self.attributes.push((format!("{name}{part}"), AttrValue::VarLenAsciiStringArray(chunk.to_vec())));
            }
        }
    }

    fn fill(self, builder: &mut GroupBuilder) {
        for (name, value) in self.attributes {
            builder.set_attr(&name, value);
        }
        for (name, data) in self.datasets {
            fill_dataset(builder.create_dataset(&name), data);
        }
        for (name, group) in self.groups {
            let mut child = builder.create_group(&name);
            group.fill(&mut child);
            let child: FinishedGroup = child.finish();
            builder.add_group(child);
        }
    }

    /// The bytes of a file whose root is this group.
    pub(crate) fn into_file(self) -> Result<Vec<u8>, ImportError> {
        let mut builder = FileBuilder::new();
        // The newest structures are not read by HDF5 libraries before 1.10.
        builder.with_libver_bounds(LibVer::Earliest, LibVer::V18);
        for (name, value) in self.attributes {
            builder.set_attr(&name, value);
        }
        for (name, data) in self.datasets {
            fill_dataset(builder.create_dataset(&name), data);
        }
        for (name, group) in self.groups {
            let mut child = builder.create_group(&name);
            group.fill(&mut child);
            builder.add_group(child.finish());
        }
        builder.finish().map_err(|error| ImportError::format(format!("cannot build the HDF5 file: {error}")))
    }
}

fn fill_dataset(dataset: &mut hdf5_pure::DatasetBuilder, data: Data<'_>) {
    match data {
        Data::Tensor(tensor) => {
            let shape: Vec<u64> = tensor.shape().iter().map(|&size| size as u64).collect();
            match tensor.as_slice() {
                Some(values) => dataset.with_f32_data(values),
                None => dataset.with_f32_data(&tensor.iter().copied().collect::<Vec<_>>()),
            }
            .with_shape(&shape);
        }
        Data::Float(value) => {
            dataset.with_f32_data(&[value]).with_shape(&[]);
        }
        Data::Integer(value) => {
            dataset.with_i64_data(&[value]).with_shape(&[]);
        }
    }
}
