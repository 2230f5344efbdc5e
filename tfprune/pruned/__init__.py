"""The pruned model: attaching methods to layers, state, wrappers, saving and loading."""
