//! Kernel calls: what a command list asks of the arithmetic, as plain data.
//!
//! Conventions, valid for every kernel unless its documentation says otherwise:
//!
//! * every field is one 32-bit word; `i32` fields are two's complement; fields named `*_bits` hold
//!   the bits of an IEEE-754 binary32 number;
//! * fields that name a buffer are byte offsets into DTCM, 4-byte aligned ([`NONE`]: absent);
//! * counts and strides are in 32-bit words (elements), never bytes;
//! * arrays are row-major, the last dimension fastest; pictures are rows x columns x channels;
//! * tensors are IEEE binary32; *mantissas* are `i32` with `|m| <= 2^26`; an *exponent* `e` (an
//!   `i32`) gives a mantissa its value: `m * 2^(e - 26)`.
//!
//! ## Format `f32`
//!
//! Operands of a product are brought to a common exponent per block (`Prep*`): with `E` the smallest
//! integer such that `|x| < 2^E` for all `x` of the block, `m = round(x * 2^(26 - E))`, halves away from zero (on an
//! ARM the carry of a shift: half to even would cost five cycles an element more).
//! Products of mantissas are summed exactly in 64 bits (at most 2,048 terms: 26 + 26 + 11 = 63), so
//! the order of the terms does not matter. The sum is rounded once to binary32 (half to even:
//! first to 24 bits, then scaled by the power of two as an IEEE multiplication would).
//! A block of zeros has exponent [`EXPONENT_ZERO`]; a block with a NaN or infinity has
//! [`EXPONENT_NAN`], and every result that it takes part in is NaN (bits 0x7FC0_0000). The mantissas of both are zero.
//! All other arithmetic on tensors (bias, residual addition, optimizers, ..) is IEEE binary32, round
//! half to even, one operation at a time, never fused, subnormals kept.
//!
//! ## Format `bfp16`
//!
//! As format `f32`, with shorter mantissas: *halves*, 16 bits with sign, two to a word, the first one in the low half;
//! `|m| <=` [`HALF_MAX`] (23,079), and an exponent `e` gives a half the value `m * 2^(e - 15)`. With `X` the largest magnitude of a block, `E` is the
//! smallest integer such that `X`, rounded to a multiple of `2^(E - 15)`, is at most [`HALF_MAX`] of these, and `m = round(x * 2^(15 - E))`, halves of a
//! unit away from zero. So four products fit 32 bits, which on an ARM are two instructions of one cycle (SMLAxy) for a word of each side, and two more for
//! the upper bits of a sum after every second word. The two halves of a
//! word are neighbours along the summed dimension (rows of a matrix product's left side, columns of its right; channels of a pixel), and where their number
//! is odd the last word has a zero above. Products are summed exactly (at most two times [`BLOCK_TERMS_MAX`]: 29 + 12 bits),
//! and rounded once to binary32. So a kernel of this format is the one of format `f32` on words, each the sum of two products, and its
//! parameters count words where those count mantissas.
//!
//! ## Format `int8`
//!
//! For predictions. Tensors are *bytes*, unsigned, four to a word, the first one lowest; rows of a picture begin at words. A byte `q` means
//! `(q - zero) * scale`, with one scale and one zero point (0 ..= 255) for a tensor; they belong to the network, and kernels know of them
//! what they need. Kernels of layers are signed bytes of -127 ..= 127 with a scale for each output channel and zero point 0.
//!
//! Operands of a product are *halves*: 16-bit two's complement, two to a word, the first one in the low half, made of bytes when they
//! come to local memory ([`Widen`], [`WidenWindow`]). Around a picture lie halves of the zero point, so every output has all terms; what the
//! zero point adds to a sum is taken off again in the bias, a constant of the network. Sums are 32-bit integers and exact (at most
//! [`BYTE_TERMS_MAX`] terms of 255 * 127). A sum goes back to a byte by a fixed-point multiplier of 15 bits
//! (see [`Product8`]), rounded half up: on an ARM SMLAWB with the zero point and one half, and a shift.

/// A buffer field that names no buffer.
pub const NONE: u32 = u32::MAX;
/// Exponent of a block whose elements are all zero.
pub const EXPONENT_ZERO: i32 = -512;
/// Exponent of a block that holds a NaN or an infinity.
pub const EXPONENT_NAN: i32 = 0x7FFF;
/// Fraction bits of a mantissa.
pub const MANTISSA_BITS: u32 = 26;
/// Terms that a 64-bit accumulator takes exactly.
pub const BLOCK_TERMS_MAX: u32 = 2048;
/// Fraction bits of a half.
pub const HALF_BITS: u32 = 15;
/// Largest magnitude of a half: four products and 24 bits that are left of those before fit 32 bits with sign.
/// (What a product makes of larger ones, which no preparation gives, differs from form to form.)
pub const HALF_MAX: u32 = 23_079;
const _: () = assert!(4 * HALF_MAX.pow(2) + (1 << 24) <= 1 << 31 && 4 * (HALF_MAX + 1).pow(2) + (1 << 24) > 1 << 31);
/// Terms of bytes that a 32-bit accumulator takes exactly: 65,536 * 255 * 127 is less than 2^31.
pub const BYTE_TERMS_MAX: u32 = 1 << 16;
/// Columns of a panel of weights (see [`Product8`]).
pub const PANEL_COLUMNS: u32 = 4;

/// Why the words of a kernel call could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// No kernel has this number.
    UnknownKernel(u32),
    /// The kernel has another number of parameters.
    WrongLength {
        /// Number of the kernel.
        kernel: u32,
        /// Words that it takes.
        expected: usize,
        /// Words that there were.
        found: usize,
    },
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            DecodeError::UnknownKernel(k) => write!(f, "no kernel has number {k}"),
            DecodeError::WrongLength { kernel, expected, found } => {
                write!(f, "kernel {kernel} takes {expected} words, found {found}")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

/// One word of a call: a `u32`, or an `i32` in two's complement.
trait Word: Copy {
    fn to_word(self) -> u32;
}
impl Word for u32 {
    fn to_word(self) -> u32 {
        self
    }
}
impl Word for i32 {
    fn to_word(self) -> u32 {
        self as u32
    }
}

macro_rules! kernels {
    ($( $(#[$doc:meta])* $name:ident / $module:ident = $number:literal { $( $(#[$fdoc:meta])* $field:ident : $ty:ty ),* $(,)? } )*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
            #[allow(missing_docs)]
            #[repr(C)]
            pub struct $name { $( $(#[$fdoc])* pub $field: $ty, )* }

            impl $name {
                /// Number of the kernel in a command list.
                pub const NUMBER: u32 = $number;
                /// Names of the parameters, in the order of their words.
                pub const FIELDS: &'static [&'static str] = &[$( stringify!($field) ),*];

                fn words(&self, out: &mut [u32]) {
                    let mut i = 0;
                    $( out[i] = Word::to_word(self.$field); i += 1; )*
                    let _ = i;
                }
            }

            /// Word numbers of the parameters of the kernel, for patches of a command list.
            #[allow(non_upper_case_globals, missing_docs)]
            pub mod $module {
                #[repr(u8)]
                #[allow(non_camel_case_types)]
                enum Index { $( $field ),* }
                $( pub const $field: u8 = Index::$field as u8; )*
            }
        )*

        /// One call of a kernel. In memory: its number, then its parameters, a word each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum KernelCall { $( $(#[$doc])* $name($name) = $number, )* }

        /// Parameter words of each kernel by its number; 0: there is none.
        static WORD_COUNTS: [u8; NUMBERS_END] = {
            let mut counts = [0; NUMBERS_END];
            $(
                counts[$number] = $name::FIELDS.len() as u8;
                assert!(size_of::<$name>() == 4 * $name::FIELDS.len() && $name::FIELDS.len() <= CALL_WORDS_MAX);
            )*
            counts
        };

        impl KernelCall {
            /// A call that does nothing: fills no words.
            pub const NOTHING: KernelCall = KernelCall::Fill(Fill { dst: 0, count: 0, value_bits: 0 });

            /// Number of the kernel in a command list.
            pub const fn number(&self) -> u32 {
                match self { $( KernelCall::$name(_) => $number, )* }
            }
            /// Name of the kernel, for reports and traces.
            pub fn name(&self) -> &'static str {
                match self { $( KernelCall::$name(_) => stringify!($name), )* }
            }
            /// Number of parameter words.
            pub fn word_count(&self) -> usize {
                match self { $( KernelCall::$name(_) => $name::FIELDS.len(), )* }
            }
            /// Writes the parameters to the front of `out`; returns how many words.
            ///
            /// # Panics
            /// If `out` is shorter than [`KernelCall::word_count`].
            pub fn encode(&self, out: &mut [u32]) -> usize {
                match self { $( KernelCall::$name(k) => { k.words(out); $name::FIELDS.len() } )* }
            }
            /// Reads a call from its number and its parameter words.
            pub fn decode(number: u32, words: &[u32]) -> Result<KernelCall, DecodeError> {
                let mut call = KernelCall::NOTHING;
                call.read(number, words)?;
                Ok(call)
            }
            /// As [`KernelCall::decode`], in place. (A core has little stack for copies, and little room for a form of this for each
            /// kernel.) After an error the call is what it was.
            pub fn read(&mut self, number: u32, words: &[u32]) -> Result<(), DecodeError> {
                let expected = WORD_COUNTS.get(number as usize).map_or(0, |&count| usize::from(count));
                if expected == 0 {
                    return Err(DecodeError::UnknownKernel(number));
                }
                if words.len() != expected {
                    return Err(DecodeError::WrongLength { kernel: number, expected, found: words.len() });
                }
                let at = (&raw mut *self).cast::<u32>();
                // SAFETY: a kernel has this number; the parameters follow it, and the table has their number, so that its fields
                // take every word. Nothing looks at the call in between.
                unsafe {
                    at.write(number);
                    at.add(1).copy_from_nonoverlapping(words.as_ptr(), expected);
                }
                Ok(())
            }
            /// The parameters: all words mean something.
            pub fn parameters_mut(&mut self) -> &mut [u32] {
                let count = usize::from(WORD_COUNTS[self.number() as usize]);
                // SAFETY: the parameters follow the number, words that may have any value.
                unsafe { core::slice::from_raw_parts_mut((&raw mut *self).cast::<u32>().add(1), count) }
            }
            /// See [`crate::Kernel::check`].
            pub fn check(&self, dtcm_words: usize) -> Result<(), crate::BadCall> {
                match self { $( KernelCall::$name(k) => crate::Kernel::check(k, dtcm_words), )* }
            }
            /// See [`crate::Kernel::run`].
            ///
            /// # Panics
            /// If [`KernelCall::check`] does not accept the call for this image.
            pub fn run(&self, dtcm: &mut [u32]) {
                match self { $( KernelCall::$name(k) => crate::Kernel::run(k, dtcm), )* }
            }
            /// See [`crate::Kernel::cycles`].
            pub fn cycles(&self) -> u64 {
                match self { $( KernelCall::$name(k) => crate::Kernel::cycles(k), )* }
            }
            /// Cycles of [`KernelCall::check`] on a core, where the call is sound.
            pub fn check_cycles(&self) -> u64 {
                crate::cost::check(self)
            }
        }
        $( impl From<$name> for KernelCall { fn from(k: $name) -> KernelCall { KernelCall::$name(k) } } )*
    };
}

/// Kernels have numbers below this.
const NUMBERS_END: usize = 64;
/// Largest number of parameter words of any kernel.
pub const CALL_WORDS_MAX: usize = 40;

kernels! {
    /// Fills a buffer with one word.
    Fill / fill = 1 { dst: u32, count: u32, value_bits: u32 }

    /// Copies rows of words inside DTCM: `dst[r * dst_stride + i] = src[r * src_stride + i]`.
    CopyRows / copy_rows = 2 { src: u32, dst: u32, rows: u32, count: u32, src_stride: u32, dst_stride: u32 }

    /// Brings a matrix to mantissas: `dst[r * dst_row_stride + c * dst_col_stride]` from
    /// `src[r * src_stride + c]`. `axis` says what shares an exponent: 0 the whole matrix (one word at
    /// `exps`), 1 each row (`rows` words), 2 each column (`cols` words). `dst` may be `src` when the
    /// strides agree (in place). Transposes by swapping the strides of `dst`.
    Prep2d / prep2d = 3 {
        src: u32, rows: u32, cols: u32, src_stride: u32,
        dst: u32, dst_row_stride: u32, dst_col_stride: u32, exps: u32, axis: u32,
    }

    /// Brings convolution weights `src[kh][kw][ci][co]` to mantissas for the backward pass:
    /// `dst[kh-1-ky][kw-1-kx][co][ci]`, one exponent for each `ci`, over all `ky, kx, co`.
    /// `groups` > 1 is not taken here: the caller passes one group's slice at a time.
    PrepConvBackward / prep_conv_backward = 4 { src: u32, dst: u32, exps: u32, kh: u32, kw: u32, ci: u32, co: u32 }

    /// Matrix product of mantissas: `c[i][j] = f32(sum over k of a[i][k] * b[k][j])`, added to what is
    /// in `c` (one IEEE addition) if `accumulate` is not 0. `a_exps`: one for each row of `a`;
    /// `b_exps`: one for each column of `b`. At most [`BLOCK_TERMS_MAX`] terms.
    Gemm / gemm = 5 {
        a: u32, a_exps: u32, a_stride: u32, b: u32, b_exps: u32, b_stride: u32, c: u32, c_stride: u32,
        m: u32, k: u32, n: u32, accumulate: u32,
    }

    /// Convolution of mantissas (also of the backward pass, with flipped weights and `up` > 1).
    ///
    /// For output rows `oy` of `oy0 .. min(oy0 + rows, out_h)`, columns `ox` of `0 .. out_w`, channels `co` of
    /// the tile `0 .. co_tile` (global channel `co0 + co`):
    /// `y[oy - oy0][ox][co] = f32(sum of x[iy][ix][g * ci_group + ci] * w[ky][kx][ci][co])` over `ky, kx, ci`, where
    /// `ty = oy * stride_y + ky * dilation_y - pad_y` must be a multiple of `up_y` and `iy = ty / up_y` in `0 .. in_h`
    /// (other terms are zero), the same for x, and `g = (co0 + co) / co_group` is the group of the channel.
    /// `x` holds input rows from `iy0` on (all rows that are needed and exist), each `in_w * in_c` words; one exponent
    /// at `x_exp`. `w` is `[kh][kw][ci_group][co_tile]` with `w_stride` words from term to term, exponents `w_exps[co_tile]`. `kh * kw * ci_group` at
    /// most [`BLOCK_TERMS_MAX`]. `accumulate` as in [`Gemm`].
    Conv / conv = 6 {
        x: u32, x_exp: u32, iy0: i32, in_h: u32, in_w: u32, in_c: u32,
        w: u32, w_stride: u32, w_exps: u32, kh: u32, kw: u32, ci_group: u32, co_group: u32, co0: u32, co_tile: u32,
        y: u32, oy0: u32, rows: u32, out_h: u32, out_w: u32,
        stride_y: u32, stride_x: u32, dilation_y: u32, dilation_x: u32,
        pad_y: i32, pad_x: i32, up_y: u32, up_x: u32, accumulate: u32,
    }

    /// Gradient of convolution weights from one block of output rows (`oy0 .. min(oy0 + rows, out_h)`), mantissas:
    /// `dw[ky][kx][ci][co] += f32(sum over oy, ox of x[iy][ix][ci0 + ci] * dy[oy - oy0][ox][co])` with
    /// `iy = oy * stride_y + ky * dilation_y - pad_y` (terms outside the picture are zero), `ci` of `0 .. ci_tile`,
    /// `co` of `0 .. co_tile`. `x` holds input rows from `iy0` on, `in_w * in_c` words each, exponent `x_exp` (one);
    /// `dy` is `[rows][out_w][co_tile]` with one exponent at `dy_exp`. One IEEE addition for each weight and call. At
    /// most [`BLOCK_TERMS_MAX`] output positions in a block.
    ConvWgrad / conv_wgrad = 7 {
        x: u32, x_exp: u32, iy0: i32, in_h: u32, in_w: u32, in_c: u32, ci0: u32, ci_tile: u32,
        dy: u32, dy_exp: u32, co_tile: u32, oy0: u32, rows: u32, out_h: u32, out_w: u32,
        dw: u32, kh: u32, kw: u32,
        stride_y: u32, stride_x: u32, dilation_y: u32, dilation_x: u32, pad_y: i32, pad_x: i32,
    }

    /// `y[r][c] = act(y[r][c] + bias[c])` in place (`bias` may be [`NONE`]). `activation`: a number of
    /// [`crate::Activation`]; `alpha_bits` its parameter.
    BiasAct / bias_act = 8 { y: u32, rows: u32, cols: u32, stride: u32, bias: u32, activation: u32, alpha_bits: u32 }

    /// Backward of an activation: `out[i] = dy[i] * act'(..)`. `saved` holds the activation's *input* for activations
    /// whose derivative needs it, else its *output* (see `Activation::saves_input`). `out` may be `dy`.
    ActGrad / act_grad = 9 { dy: u32, saved: u32, out: u32, count: u32, activation: u32, alpha_bits: u32 }

    /// `out[i] = a[i] op b[i]`; `op`: 0 add, 1 subtract (a - b), 2 multiply, 3 maximum, 4 minimum. `out` may be an operand.
    Map2 / map2 = 10 { op: u32, a: u32, b: u32, out: u32, count: u32 }

    /// `out[r][c] = x[r][c] * scale[c] + shift[c]` (two roundings); `scale`/`shift` may be [`NONE`]. In place allowed.
    ScaleShift / scale_shift = 11 { x: u32, out: u32, rows: u32, cols: u32, scale: u32, shift: u32 }

    /// `out[i] = x[i] * factor` with one factor; in place allowed.
    Scale / scale = 12 { x: u32, out: u32, count: u32, factor_bits: u32 }

    /// Column sums, in row order: `sum[c] += v` with `v` by `op`: 0 `x[r][c]`; 1 `x[r][c] * y[r][c]`; 2 `(x[r][c] - y[c])^2`
    /// (`y` one row); 3 `x[r][c]^2`. `row_stride` is the distance of rows of `x` (and `y`) in words.
    ColumnSum / column_sum = 13 { op: u32, x: u32, y: u32, rows: u32, cols: u32, row_stride: u32, sum: u32 }

    /// Adds `parts` vectors in ascending order: `dst[i] = src[0][i] + src[1][i] + ..` (left to right).
    SumParts / sum_parts = 14 { src: u32, parts: u32, stride: u32, count: u32, dst: u32 }

    /// Pooling forward. Geometry as in [`Conv`] (`up` = 1, no dilation), over all `channels`: `y[oy - oy0][ox][c]`.
    /// `mode`: 0 maximum (the first one; both zeros are equal, a NaN is beyond the infinity of its sign), 1 average over the
    /// cells that exist (their sum in row-major order, divided). A window without cells gives 0. `x` rows from `iy0` on.
    /// Rows clamp to `out_h`.
    Pool / pool = 15 {
        mode: u32, x: u32, iy0: i32, in_h: u32, in_w: u32, channels: u32, y: u32, oy0: u32, rows: u32, out_h: u32, out_w: u32,
        kh: u32, kw: u32, stride_y: u32, stride_x: u32, pad_y: i32, pad_x: i32,
    }

    /// Pooling backward for input rows `iy0 .. min(iy0 + rows, in_h)`: `dx[iy - iy0][ix][c]` is the sum over the output windows
    /// (row-major order, from +0) that hold the cell: average `dy / cells`; maximum `dy` where this cell is the first of its
    /// window whose bits are those of `y`.
    /// `dy` (and for the maximum `y`) hold output rows from `oy0` on; for the maximum `x` holds input rows from `x_iy0` on:
    /// every row that any of these windows covers.
    PoolGrad / pool_grad = 16 {
        mode: u32, x: u32, x_iy0: i32, in_h: u32, in_w: u32, channels: u32, y: u32, dy: u32, oy0: i32, out_h: u32, out_w: u32,
        dx: u32, iy0: u32, rows: u32, kh: u32, kw: u32, stride_y: u32, stride_x: u32, pad_y: i32, pad_x: i32,
    }

    /// Softmax of each row, in place allowed: maximum subtracted first.
    Softmax / softmax = 17 { x: u32, out: u32, rows: u32, cols: u32 }

    /// Backward of softmax for each row: `dx[j] = y[j] * (dy[j] - sum over i of dy[i] * y[i])`. `dx` may be `dy`.
    SoftmaxGrad / softmax_grad = 18 { y: u32, dy: u32, dx: u32, rows: u32, cols: u32 }

    /// Loss and its gradient for `rows` samples of `cols` outputs. `kind`: a number of [`crate::Loss`]. `pred`: the outputs
    /// (logits when `from_logits`, else probabilities or values). `target`: `[rows][cols]` values, or for sparse kinds `[rows]`
    /// class numbers as f32. `weight[rows]`: sample weight divided by the number of samples. `loss[rows]` receives the
    /// unweighted loss of each sample; `grad[rows][cols]` the gradient of `sum of weight * loss` with respect to `pred`, or,
    /// when `fused` is 1 (softmax or sigmoid in the same core), with respect to the activation's input. `smoothing_bits`: label smoothing.
    /// `grad` may be [`NONE`] (evaluation).
    Loss / loss = 19 {
        kind: u32, pred: u32, target: u32, weight: u32, loss: u32, grad: u32, rows: u32, cols: u32,
        from_logits: u32, fused: u32, smoothing_bits: u32,
    }

    /// One optimizer step on `count` parameters: `w`, gradient `g`, state `m`, `v` and `x` ([`NONE`] where the rule has none).
    /// `kind`: a number of [`crate::Optimizer`]. `scalars`: 16 f32 words set by the host for this step
    /// (see `optimizer::Scalars`). `decay` 1: weight decay applies to these parameters.
    OptimizerStep / optimizer_step = 20 { kind: u32, w: u32, g: u32, m: u32, v: u32, x: u32, count: u32, scalars: u32, decay: u32 }

    /// Largest magnitude and sum of squares: `out[0] += sum of x^2` (IEEE, in order), `out[1] = max(out[1], max |x|)`.
    Norms / norms = 21 { x: u32, count: u32, out: u32 }

    /// Gradient clipping in place. `mode`: 1 by value (clamp to +-`limit`), 2 by norm: scale by `limit / norm` if
    /// `norm = sqrt(sum_squares[0])` is larger than `limit`.
    Clip / clip = 22 { mode: u32, x: u32, count: u32, limit_bits: u32, sum_squares: u32 }

    /// Inverted dropout: elements are kept with probability `1 - rate` and divided by it, else zero. The decision
    /// for element `i` is a hash of `seed_lo`, `seed_hi`, `stream`, `sample`, `first + i`: independent of the mapping. In place allowed.
    Dropout / dropout = 23 { x: u32, out: u32, count: u32, rate_bits: u32, seed_lo: u32, seed_hi: u32, stream: u32, sample: u32, first: u32 }

    /// Batch-normalisation coefficients from statistics: `scale[c] = gamma[c] / sqrt(var[c] + epsilon)`,
    /// `shift[c] = beta[c] - mean[c] * scale[c]`; `inv[c] = 1 / sqrt(var[c] + epsilon)`, by
    /// [`crate::functions::reciprocal_sqrt`]. `gamma`, `beta` may be [`NONE`] (1, 0); `inv` may be.
    NormCoefficients / norm_coefficients = 24 {
        mean: u32, var: u32, gamma: u32, beta: u32, scale: u32, shift: u32, inv: u32, count: u32, epsilon_bits: u32,
    }

    /// `out[i] = a[i] * momentum + b[i] * (1 - momentum)` with `1 - momentum` rounded to f32 first (moving statistics).
    Lerp / lerp = 25 { a: u32, b: u32, out: u32, count: u32, momentum_bits: u32 }

    /// Backward of batch normalisation over batch statistics, for rows of channels:
    /// `dx[r][c] = gamma[c] * inv[c] * (dy[r][c] - sum_dy[c] / n - xhat * sum_dy_xhat[c] / n)` with
    /// `xhat = (x[r][c] - mean[c]) * inv[c]`. `inv_n_bits`: 1 / n. `gamma` may be [`NONE`].
    NormGrad / norm_grad = 26 {
        x: u32, dy: u32, dx: u32, rows: u32, cols: u32, mean: u32, inv: u32, gamma: u32, sum_dy: u32, sum_dy_xhat: u32, inv_n_bits: u32,
    }

    /// `out[r][c] = (x[r][c] - mean[c]) * inv[c]`.
    Normalise / normalise = 27 { x: u32, out: u32, rows: u32, cols: u32, mean: u32, inv: u32 }

    /// Stores NaN or infinity found in `x` as a count: `out[0] += how many` (an integer word).
    CountNonFinite / count_non_finite = 28 { x: u32, count: u32, out: u32 }

    /// Brings rows of a picture to mantissas in place, with one exponent: rows `first .. first + rows`, of which only those in
    /// `0 .. limit` exist and are touched; row `r` lies at `x + (r - first) * row_words`. (The clamped rows are those that a
    /// DMA command with the same `first`, `rows` and `limit` brought.)
    PrepWindow / prep_window = 29 { x: u32, first: i32, rows: u32, limit: u32, row_words: u32, exp: u32 }

    /// Brings a matrix to halves, two to a word: along each row (`pair_rows` 0), or down each column (`pair_rows` > 0: rows `2 t` and `2 t + 1` of
    /// every group of `pair_rows` rows make one). The word of row `r` and column `c` (the one divided by two) lies at
    /// `dst[r * dst_row_stride + c * dst_col_stride]`. `axis` and `exps` as in [`Prep2d`]. `dst` may begin at `src` where no word comes to lie behind those
    /// it is made of: along rows in place with `dst_col_stride` 1, `dst_row_stride` at most `src_stride`; down columns with rows one after the other
    /// (`src_stride` = `dst_row_stride` = `cols`).
    PrepHalf / prep_half = 30 {
        src: u32, rows: u32, cols: u32, src_stride: u32,
        dst: u32, dst_row_stride: u32, dst_col_stride: u32, exps: u32, axis: u32, pair_rows: u32,
    }

    /// [`PrepConvBackward`] to halves: `dst[kh-1-ky][kw-1-kx][co / 2][ci]`, pairs of output channels.
    PrepConvBackwardHalf / prep_conv_backward_half = 31 { src: u32, dst: u32, exps: u32, kh: u32, kw: u32, ci: u32, co: u32 }

    /// Product of matrices of halves, as [`Gemm`]: `k` counts terms, so `a` holds rows of half as many words (rounded up), and `b` as many rows of `n`
    /// words.
    GemmHalf / gemm_half = 32 {
        a: u32, a_exps: u32, a_stride: u32, b: u32, b_exps: u32, b_stride: u32, c: u32, c_stride: u32,
        m: u32, k: u32, n: u32, accumulate: u32,
    }

    /// Convolution of halves, as [`Conv`]: `in_c` and `ci_group` count words (a group's channels begin at a word), `w` is
    /// `[kh][kw][ci_group][co_tile]` of words.
    ConvHalf / conv_half = 33 {
        x: u32, x_exp: u32, iy0: i32, in_h: u32, in_w: u32, in_c: u32,
        w: u32, w_stride: u32, w_exps: u32, kh: u32, kw: u32, ci_group: u32, co_group: u32, co0: u32, co_tile: u32,
        y: u32, oy0: u32, rows: u32, out_h: u32, out_w: u32,
        stride_y: u32, stride_x: u32, dilation_y: u32, dilation_x: u32,
        pad_y: i32, pad_x: i32, up_y: u32, up_x: u32, accumulate: u32,
    }

    /// Gradient of convolution weights from halves, as [`ConvWgrad`], but that pixels of `x` take `in_c` words and those of `dy` half of `co_tile` (rounded
    /// up); `ci0`, `ci_tile`, `co_tile` count channels as there, and `ci0` is even.
    ConvWgradHalf / conv_wgrad_half = 34 {
        x: u32, x_exp: u32, iy0: i32, in_h: u32, in_w: u32, in_c: u32, ci0: u32, ci_tile: u32,
        dy: u32, dy_exp: u32, co_tile: u32, oy0: u32, rows: u32, out_h: u32, out_w: u32,
        dw: u32, kh: u32, kw: u32,
        stride_y: u32, stride_x: u32, dilation_y: u32, dilation_x: u32, pad_y: i32, pad_x: i32,
    }

    /// [`PrepWindow`] to halves, in place: a row of `pixels` runs of `channels` numbers becomes one of as many runs of half as many words (rounded
    /// up); the rows that exist lie without gaps where they lay, row `r` at `x + (r - first)` times the words of such a row.
    PrepWindowHalf / prep_window_half = 35 { x: u32, first: i32, rows: u32, limit: u32, pixels: u32, channels: u32, exp: u32 }

    /// Signed bytes to halves, in their order: `dst[i] = src[i]` for the bytes of `count` words, so `dst` takes twice as many words. `src`
    /// may be the upper half of `dst`.
    Widen / widen = 40 { src: u32, dst: u32, count: u32 }

    /// Rows of a picture in bytes to halves, with a border. Row `r` of `0 .. rows` (`dst_row` words from one to the next) holds `left` halves of
    /// `zero`, then the `columns` bytes of picture row `first + r` (at `src`, `src_row` words from row to row), then halves of
    /// `zero` to the row's end. Rows of the picture outside `0 .. limit` are `zero` throughout, and `src` is not read for them. `dst_odd`
    /// may be [`NONE`], or takes a copy that begins with the second half: `dst_odd[i] = dst[i + 1]`, `zero` at the very end of each row.
    WidenWindow / widen_window = 41 {
        src: u32, src_row: u32, columns: u32, first: i32, rows: u32, limit: u32,
        dst: u32, dst_odd: u32, dst_row: u32, left: u32, zero: u32,
    }

    /// Products of halves, dense layers and convolutions alike, to bytes. For `r` of `0 .. rows`, `p` of `0 .. pixels`, `j` of `0 .. n`:
    ///
    /// `sum = bias[j] + sum over s of 0 .. segments, t of 0 .. terms: x[r * x_row + p * x_pixel + s * x_segment + t] * w[s * terms + t][j]`
    /// (32 bits, wrapping), `y[r * y_row + p * y_pixel + j] = clamp(floor(floor(sum * mult[j] / 2^16) / 2^shift + 1/2) + zero, 0, 255)`.
    ///
    /// `x` counts halves, `y` bytes, steps included; `x_row`, `x_segment` and `terms` are even. If `x_pixel` is odd, operands of odd pixels are read
    /// from `x_odd`, which holds `x[i + 1]` at `i` (else `x_odd` may be [`NONE`]). `w` lies in panels of [`PANEL_COLUMNS`] columns (the last
    /// one may be narrower): a panel holds for each pair of terms a word for each of its columns, the first term in the low half. `scales` holds for each panel
    /// the words `bias[j]` of its columns, then the words `mult[j]`, of which the low half is used, signed. `shift` is 1 ..= 22; a sum has terms.
    Product8 / product8 = 42 {
        x: u32, x_odd: u32, x_row: u32, x_pixel: u32, x_segment: u32, segments: u32, terms: u32,
        w: u32, scales: u32, shift: u32, zero: u32,
        y: u32, y_row: u32, y_pixel: u32, rows: u32, pixels: u32, n: u32,
    }

    /// Pooling of bytes, geometry as in [`Pool`]; rows of `x` and `y` begin `x_row` and `y_row` words from one another. Average: the sum of
    /// the cells that exist divided by their number, rounded half up. A window without cells gives `zero`.
    Pool8 / pool8 = 43 {
        mode: u32, x: u32, x_row: u32, iy0: i32, in_h: u32, in_w: u32, channels: u32, y: u32, y_row: u32, oy0: u32, rows: u32, out_h: u32,
        out_w: u32, kh: u32, kw: u32, stride_y: u32, stride_x: u32, pad_y: i32, pad_x: i32, zero: u32,
    }

    /// `out[i] = table[x[i]]` for the bytes of `count` words; `table` holds 256 bytes. In place allowed.
    Lookup8 / lookup8 = 44 { x: u32, out: u32, count: u32, table: u32 }

    /// Sum of two tensors of bytes: `out[i] = clamp(floor(((a[i] - zero_a) * mult_a + (b[i] - zero_b) * mult_b) / 2^shift + 1/2) + zero, 0, 255)`
    /// for the bytes of `count` words; multipliers of 0 .. 2^21, `shift` 1 ..= 31. `out` may be an operand.
    Add8 / add8 = 45 {
        a: u32, b: u32, out: u32, count: u32, zero_a: u32, zero_b: u32, mult_a: u32, mult_b: u32, shift: u32, zero: u32,
    }

    /// Rows of numbers to rows of bytes: `out[r][c] = clamp(round(x[r][c] * inverse) + zero, 0, 255)`, an IEEE product and half to even; NaN
    /// becomes `zero`. Rows of `out` begin at words, and what a row leaves of its last word becomes `zero`.
    Quantise8 / quantise8 = 46 { x: u32, out: u32, rows: u32, cols: u32, inverse_bits: u32, zero: u32 }

    /// The window of rows of outputs of a convolution with few channels, column by column, so that the operands of an output lie together: for each
    /// `o` of `0 .. outputs` a row of `dst_row` words, which holds for the pixels `x` of `0 .. left + width + right` and `ky` of `0 .. rows` the `channels`
    /// bytes of pixel `x - left` of picture row `first + o * step + ky`, as halves `(x * rows + ky) * channels ..`; `zero` where there is no such pixel, and
    /// to the end of the row. `src`, `src_row`, `limit` and `dst_odd` as in [`WidenWindow`]; the picture's row `first` is the one at `src`.
    WidenColumns / widen_columns = 48 {
        src: u32, src_row: u32, width: u32, channels: u32, first: i32, rows: u32, limit: u32, step: u32, outputs: u32,
        dst: u32, dst_odd: u32, dst_row: u32, left: u32, right: u32, zero: u32,
    }

    /// Rows of bytes (each begins at a word) to rows of numbers: `out[r][c] = (x[r][c] - zero) * scale`.
    Dequantise8 / dequantise8 = 47 { x: u32, out: u32, rows: u32, cols: u32, scale_bits: u32, zero: u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_survive_encoding() {
        let call = KernelCall::from(Gemm { a: 1, a_exps: 2, m: 3, k: 4, n: 5, ..Default::default() });
        let mut words = [0; CALL_WORDS_MAX];
        let n = call.encode(&mut words);
        assert_eq!(n, call.word_count());
        assert_eq!(KernelCall::decode(call.number(), &words[..n]), Ok(call));
        assert_eq!(words[usize::from(gemm::m)], 3);
        assert_eq!(
            KernelCall::decode(5, &words[..3]),
            Err(DecodeError::WrongLength { kernel: 5, expected: 12, found: 3 })
        );
        assert_eq!(KernelCall::decode(9999, &[]), Err(DecodeError::UnknownKernel(9999)));
    }
}
