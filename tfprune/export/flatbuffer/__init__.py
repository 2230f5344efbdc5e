"""The `.tflite` file format: reading, changing and writing it."""
