"""Accuracy at equal measured latency: ours, the literature's presets, Torch-Pruning; criteria; compensation; fidelity of the objective."""
