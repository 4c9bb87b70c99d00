"""arm64: dense and pruned networks cross-compiled and executed under qemu against torch; static estimates of widths. No times."""
