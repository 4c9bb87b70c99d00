"""How long analysis and cut take, side by side with Torch-Pruning: `python -m benchmarks.axes_speed --help`."""
