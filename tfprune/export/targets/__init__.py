"""Export targets: each turns a view of a Keras model into the bytes of a file.

dense
    Ordinary tensors; runs on every TFLite runtime.
smallest
    What is sparse as compressed rows, of DCT coefficients where these are fewer: a small file that
    computes at the speed of a dense one or somewhat slower, and faster with
    `tfprune.export.load_delegate`.
mobile-sparse
    Small, and fast on phones' CPUs: filters and sparse 1x1 convolutions that LiteRT computes in
    XNNPACK's sparse mode, from an image to a global average pooling; refused, with every reason,
    where not all in between has a form there.
mobile-sparse-block
    Layers with 1x4 blocks of zeros along their inputs, as `FrequencyDomain(granularity="input4")`
    leaves them, by TFLite's block kernel; in any graph, float32 only.
auto
    Whichever of those is fastest on phones, if any is, else smallest; says why.

To add a target, write a file here with a `TARGET`, its name's "-" being "_" in the file's, and list
the name in registry.py.
"""
