"""Running a file and comparing it with the Keras model."""
