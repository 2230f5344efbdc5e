"""What is in a `.tflite` file, and what it costs to run."""
