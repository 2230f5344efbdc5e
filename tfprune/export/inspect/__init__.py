"""Contents of a `.tflite` file, and the time that it takes to run."""
