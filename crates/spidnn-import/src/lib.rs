//! Keras and NumPy files in and out.
#![forbid(unsafe_code)]
