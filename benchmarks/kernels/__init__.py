"""Kernels: our builds of whole networks against the other runtimes, and every kernel against the machine's peak."""
