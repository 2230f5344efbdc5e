"""Pure functions of tensors and weights, in `keras.ops` and NumPy; no layer, model or file."""
