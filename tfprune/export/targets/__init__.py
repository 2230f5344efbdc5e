"""Export targets: each turns a view of a Keras model into the bytes of a file."""
