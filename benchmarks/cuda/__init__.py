"""Dense and pruned networks on a GPU: ours against PyTorch's eager, compiled and graph-captured forms."""
