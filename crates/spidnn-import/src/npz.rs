//! NumPy's `.npy` and `.npz`: read (stored or deflated), written (stored).

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use npyz::{DType, NpyFile, Order, TypeChar, WriterBuilder};
use spidnn_graph::Tensor;

use crate::archive::{Archive, pack};
use crate::{ImportError, disk, limits};

/// An array as the file has it, row-major.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    Bool(ArrayD<bool>),
    U8(ArrayD<u8>),
    U16(ArrayD<u16>),
    U32(ArrayD<u32>),
    U64(ArrayD<u64>),
    I8(ArrayD<i8>),
    I16(ArrayD<i16>),
    I32(ArrayD<i32>),
    I64(ArrayD<i64>),
    F32(ArrayD<f32>),
    F64(ArrayD<f64>),
}

macro_rules! each {
    ($array:expr, $values:ident => $body:expr) => {
        match $array {
            Array::Bool($values) => $body,
            Array::U8($values) => $body,
            Array::U16($values) => $body,
            Array::U32($values) => $body,
            Array::U64($values) => $body,
            Array::I8($values) => $body,
            Array::I16($values) => $body,
            Array::I32($values) => $body,
            Array::I64($values) => $body,
            Array::F32($values) => $body,
            Array::F64($values) => $body,
        }
    };
}

impl Array {
    /// The shape.
    pub fn shape(&self) -> &[usize] {
        each!(self, values => values.shape())
    }

    /// NumPy's name of the element type.
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::U8(_) => "uint8",
            Self::U16(_) => "uint16",
            Self::U32(_) => "uint32",
            Self::U64(_) => "uint64",
            Self::I8(_) => "int8",
            Self::I16(_) => "int16",
            Self::I32(_) => "int32",
            Self::I64(_) => "int64",
            Self::F32(_) => "float32",
            Self::F64(_) => "float64",
        }
    }

    /// Whether the elements are whole numbers (or booleans) by their type.
    pub fn is_integer(&self) -> bool {
        !matches!(self, Self::F32(_) | Self::F64(_))
    }

    /// As float32, each element rounded to the nearest.
    pub fn to_f32(&self) -> Tensor {
        match self {
            Self::Bool(values) => values.mapv(|value| f32::from(u8::from(value))),
            Self::U8(values) => values.mapv(f32::from),
            Self::U16(values) => values.mapv(f32::from),
            Self::U32(values) => values.mapv(|value| value as f32),
            Self::U64(values) => values.mapv(|value| value as f32),
            Self::I8(values) => values.mapv(f32::from),
            Self::I16(values) => values.mapv(f32::from),
            Self::I32(values) => values.mapv(|value| value as f32),
            Self::I64(values) => values.mapv(|value| value as f32),
            Self::F32(values) => values.clone(),
            Self::F64(values) => values.mapv(|value| value as f32),
        }
    }

    /// As int64 (labels, counters).
    ///
    /// # Errors
    ///
    /// Names the first element that is no whole number of that range.
    pub fn to_i64(&self) -> Result<ArrayD<i64>, ImportError> {
        fn whole(value: f64) -> Result<i64, ImportError> {
            // 2^63, which as a float is exact, is the first value outside.
            let end = i64::MAX as f64;
            if value.fract() == 0.0 && (-end..end).contains(&value) {
                Ok(value as i64)
            } else {
                Err(ImportError::format(format!("{value} is not a whole number")))
            }
        }
        Ok(match self {
            Self::Bool(values) => values.mapv(i64::from),
            Self::U8(values) => values.mapv(i64::from),
            Self::U16(values) => values.mapv(i64::from),
            Self::U32(values) => values.mapv(i64::from),
            Self::U64(values) => {
                if let Some(value) = values.iter().find(|value| i64::try_from(**value).is_err()) {
                    return Err(ImportError::format(format!("{value} does not fit int64")));
                }
                values.mapv(|value| value as i64)
            }
            Self::I8(values) => values.mapv(i64::from),
            Self::I16(values) => values.mapv(i64::from),
            Self::I32(values) => values.mapv(i64::from),
            Self::I64(values) => values.clone(),
            Self::F32(values) => {
                let whole: Result<Vec<i64>, _> = values.iter().map(|&value| whole(f64::from(value))).collect();
                shaped(values.shape(), whole?)?
            }
            Self::F64(values) => {
                let whole: Result<Vec<i64>, _> = values.iter().map(|&value| whole(value)).collect();
                shaped(values.shape(), whole?)?
            }
        })
    }
}

fn shaped<T>(shape: &[usize], values: Vec<T>) -> Result<ArrayD<T>, ImportError> {
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|error| ImportError::format(error.to_string()))
}

/// The arrays of a `.npz` (or the single array of a `.npy`, under the name `arr_0`), by name.
///
/// # Errors
///
/// A file that cannot be read, is damaged, is larger than [`limits`] allow, or holds an array of another element type
/// than booleans, integers, float32 and float64 (Python objects are never unpickled).
pub fn read(path: impl AsRef<Path>) -> Result<BTreeMap<String, Array>, ImportError> {
    let path = path.as_ref();
    let bytes = disk::read(path)?;
    read_bytes(bytes).map_err(|error| error.in_file(path))
}

/// As [`read`], from memory; the format is told by the first bytes.
pub fn read_bytes(bytes: Vec<u8>) -> Result<BTreeMap<String, Array>, ImportError> {
    if bytes.starts_with(b"\x93NUMPY") {
        return Ok(BTreeMap::from([("arr_0".to_owned(), parse_npy("the array", &bytes)?)]));
    }
    if !bytes.starts_with(b"PK") {
        return Err(ImportError::format("neither .npz (a zip archive) nor .npy: the first bytes are of neither"));
    }
    let mut archive = Archive::open("the .npz", bytes)?;
    let mut arrays = BTreeMap::new();
    let mut elements_total = 0u64;
    for entry in archive.names() {
        // NumPy itself writes only such entries; others (a note, a folder) are not arrays.
        let Some(name) = entry.strip_suffix(".npy") else { continue };
        let Some(bytes) = archive.read(&entry, limits::FILE_BYTES_MAX)? else { continue };
        let array = parse_npy(name, &bytes)?;
        elements_total += array.shape().iter().product::<usize>() as u64;
        if elements_total > limits::ELEMENTS_MAX {
            return Err(ImportError::too_large(
                "the number of elements of all arrays",
                elements_total,
                limits::ELEMENTS_MAX,
            ));
        }
        arrays.insert(name.to_owned(), array);
    }
    Ok(arrays)
}

/// Parses one `.npy`; `name` is for errors.
fn parse_npy(name: &str, bytes: &[u8]) -> Result<Array, ImportError> {
    let bad = |error: &dyn std::fmt::Display| ImportError::format(format!("array `{name}`: {error}"));
    check_npy_header(bytes).map_err(|what| bad(&what))?;
    let file = NpyFile::new(bytes).map_err(|error| bad(&error))?;
    let shape = file.shape().to_vec();
    let elements = limits::elements(&format!("array `{name}`"), &shape)?;
    let dtype = file.dtype();
    let DType::Plain(kind) = &dtype else {
        return Err(bad(&"its element type is a record; only numbers are read"));
    };
    // The header may promise more than there is: the data must be there before memory is taken for it.
    let element_bytes = kind.num_bytes().unwrap_or(0).max(1);
    if (elements as u64).saturating_mul(element_bytes as u64) > bytes.len() as u64 {
        return Err(bad(&format!("truncated: its shape {shape:?} needs more bytes than there are")));
    }
    let (char, size, order) = (kind.type_char(), kind.size_field(), file.order());
    macro_rules! load {
        ($variant:ident) => {{
            let values = file.into_vec().map_err(|error| bad(&error))?;
            let shape: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
            let array = match order {
                Order::C => ArrayD::from_shape_vec(IxDyn(&shape), values),
                Order::Fortran => ArrayD::from_shape_vec(IxDyn(&shape).f(), values)
                    .map(|array| array.as_standard_layout().into_owned()),
            };
            Array::$variant(array.map_err(|error| bad(&error))?)
        }};
    }
    Ok(match (char, size) {
        (TypeChar::Bool, _) => load!(Bool),
        (TypeChar::Uint, 1) => load!(U8),
        (TypeChar::Uint, 2) => load!(U16),
        (TypeChar::Uint, 4) => load!(U32),
        (TypeChar::Uint, 8) => load!(U64),
        (TypeChar::Int, 1) => load!(I8),
        (TypeChar::Int, 2) => load!(I16),
        (TypeChar::Int, 4) => load!(I32),
        (TypeChar::Int, 8) => load!(I64),
        (TypeChar::Float, 4) => load!(F32),
        (TypeChar::Float, 8) => load!(F64),
        _ => {
            return Err(bad(&format!(
                "element type {} is not read; store it as float32, float64 or integers of up to 64 bits",
                dtype.descr()
            )));
        }
    })
}

/// Bounds the header before the parser sees it: the parser multiplies the dimensions unchecked, and walks nested brackets
/// by recursion.
fn check_npy_header(bytes: &[u8]) -> Result<(), String> {
    const HEADER_BYTES_MAX: usize = 64 << 10;
    let (length, start) = match bytes.get(..12) {
        Some(head) if head[6] == 1 => (usize::from(u16::from_le_bytes([head[8], head[9]])), 10),
        Some(head) => (u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize, 12),
        None => return Err("truncated header".into()),
    };
    if length > HEADER_BYTES_MAX {
        return Err(format!("its header is {length} bytes long, more than {HEADER_BYTES_MAX}"));
    }
    let header = bytes.get(start..start + length).ok_or("truncated header")?;
    let mut depth = 0usize;
    let mut product = 1u64;
    let mut number: Option<u64> = None;
    for &byte in header.iter().chain(b" ") {
        if byte.is_ascii_digit() {
            let digit = u64::from(byte - b'0');
            number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
            continue;
        }
        // Element sizes (`<f4`) are numbers too and only make the bound on the product a little tighter.
        if let Some(value) = number.take() {
            product = product.saturating_mul(value.max(1));
            if product > 1 << 40 {
                return Err("its shape has too many elements".into());
            }
        }
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > 16 {
            return Err("its header is nested too deeply".into());
        }
    }
    Ok(())
}

/// The bytes of a `.npy` of float32.
pub(crate) fn npy_bytes(tensor: &Tensor) -> Result<Vec<u8>, ImportError> {
    let bad = |error: std::io::Error| ImportError::format(format!("cannot build the array: {error}"));
    let shape: Vec<u64> = tensor.shape().iter().map(|&size| size as u64).collect();
    let mut bytes = Vec::with_capacity(128 + 4 * tensor.len());
    let mut writer =
        npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd().map_err(bad)?;
    writer.extend(tensor.iter().copied()).map_err(bad)?;
    writer.finish().map_err(bad)?;
    Ok(bytes)
}

/// Writes named float32 arrays as a `.npz` (stored), or a single one as `.npy` where the path ends so.
///
/// # Errors
///
/// Where the file cannot be written, or more than one array is given for a `.npy`.
pub fn write(path: impl AsRef<Path>, arrays: &[(&str, &Tensor)]) -> Result<(), ImportError> {
    let path = path.as_ref();
    let bytes = match arrays {
        [(_, tensor)] if crate::ends_with(path, ".npy") => npy_bytes(tensor)?,
        _ if crate::ends_with(path, ".npy") => {
            return Err(
                ImportError::format(format!("a .npy holds one array, not {}; write .npz", arrays.len())).in_file(path)
            );
        }
        _ => npz_bytes(arrays)?,
    };
    disk::write(path, &bytes)
}

/// The bytes of a `.npz`.
pub fn npz_bytes(arrays: &[(&str, &Tensor)]) -> Result<Vec<u8>, ImportError> {
    let mut entries = Vec::with_capacity(arrays.len());
    for (name, tensor) in arrays {
        entries.push((format!("{name}.npy"), npy_bytes(tensor)?));
    }
    pack(entries.iter_mut().map(|(name, bytes)| (name.as_str(), std::mem::take(bytes))))
}
