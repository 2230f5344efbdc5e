"""Measuring how sensitive the outputs of a net are to each weight, in training steps."""
