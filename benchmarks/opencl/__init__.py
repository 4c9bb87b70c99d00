"""OpenCL: dense and pruned networks on this machine's OpenCL device, with and without Python, against torch."""
