"""Keras layers, graphs and models as such; nothing here knows of pruning."""
