//! Deep neural networks on SpiNNaker machines, with a Keras-like face.
#![forbid(unsafe_code)]
