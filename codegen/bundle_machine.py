"""Which machines can run a library: its architecture, and the vector instructions that its code may use."""

import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tvm_ffi

from billhook.ir.errors import BundleError
from billhook.ir.target import Target

from .host import cpu_flags
from .lower import tvm_target

# Instruction sets that generated code uses, as LLVM names them, and the name under which Linux lists them.
_VECTOR_SETS = {name: name for name in ("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "sve")}
_VECTOR_SETS.update(neon="asimd", avx512bf16="avx512_bf16")
_LISTED = {**_VECTOR_SETS, "avx512vnni": "avx512_vnni", "dotprod": "asimddp"}  # also those that only some networks ask for, by name

_ELF_MACHINES = {0x3E: "x86_64", 0xB7: "aarch64", 0x28: "armv7l", 0xF3: "riscv64"}


def architecture(library: Path) -> str:
    """Architecture of a shared library, named as the operating system names machines, from its ELF header.

    Raises:
        BundleError: not an ELF file, or of an architecture that Billhook does not know.
    """
    with library.open("rb") as file:
        header = file.read(20)
    machine = int.from_bytes(header[18:20], "little")
    if header[:4] != b"\x7fELF" or machine not in _ELF_MACHINES:
        raise BundleError(f"{library}: not a shared library of a known architecture ({', '.join(_ELF_MACHINES.values())})")
    return _ELF_MACHINES[machine]


def required_features(target: Target) -> tuple[str, ...]:
    """Vector instruction sets that code for this target may use."""
    features: Iterable[Any] = tvm_ffi.get_global_func("target.llvm_get_cpu_features")(tvm_target(target))
    return tuple(sorted(_VECTOR_SETS.keys() & {str(feature) for feature in features}))


def check_machine(made_for: str, features: Iterable[str]) -> None:
    """Refuse code that this machine cannot run; an illegal instruction would end the process.

    Raises:
        BundleError: another architecture, or the first instruction set that is missing.
    """
    here = platform.machine()
    if made_for != here:
        raise BundleError(f"the bundle is made for {made_for}, this machine is {here}; verify it on its own device")
    flags = cpu_flags()
    missing = [name for name in features if _LISTED.get(name, name) not in flags]
    if flags and missing:
        raise BundleError(f"the bundle needs {missing[0]} instructions, which this processor lacks; compile it for this processor")
