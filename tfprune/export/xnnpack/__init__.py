"""The form of a graph that XNNPACK's sparse mode takes."""
