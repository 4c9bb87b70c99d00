#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that Billhook uses. Run as root, or with sudo.
set -euo pipefail

packages=(
  g++                   # links the generated kernels into a library; builds the C++ runner of a bundle
  cmake                 # configures the C++ runner
  make                  # the targets of the Makefile
  verilator             # simulates the FPGA accelerator cycle by cycle
  yosys                 # synthesises the FPGA accelerator, for its resources
  pocl-opencl-icd       # target opencl: OpenCL on the processor, where kernels are run and checked
  ocl-icd-opencl-dev    # target opencl: headers and library for the C++ host of a bundle
  g++-aarch64-linux-gnu # target arm64: links kernels, runner and RPC server for arm64
  qemu-user             # target arm64: runs arm64 programs here
  llvm                  # target arm64: llvm-mca, the static estimates
  python3-venv          # the environment of the Makefile, where the system's Python is used
)

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  sudo=(sudo)
fi
"${sudo[@]}" apt-get update
"${sudo[@]}" apt-get install --yes --no-install-recommends "${packages[@]}"
