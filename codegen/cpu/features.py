"""Which instructions a target's processor has, by the name that LLVM knows it by."""

from functools import cache

import tvm_ffi

from billhook.codegen.tvm_any import tvm
from billhook.ir.target import Target

BF16_DOT = "avx512bf16"
INT8_DOT, INT8_DOT_ARM = "avx512vnni", "dotprod"


@cache
def has_feature(target: Target, feature: str) -> bool:
    """Whether the processor that `target` names has an instruction set, as in "avx512bf16"."""
    if target.kind != "llvm" or not target.mcpu:
        return False
    given = {"kind": "llvm", "mcpu": target.mcpu, **({"mtriple": target.triple} if target.triple else {})}
    return bool(tvm_ffi.get_global_func("target.llvm_cpu_has_feature")(feature, tvm.target.Target(given)))


def is_arm(target: Target) -> bool:
    """Whether the target is a 64-bit Arm processor."""
    return target.triple.startswith("aarch64")


def int8_dot(target: Target) -> str:
    """The instruction set with which kernels of this architecture multiply bytes; `has_feature` tells whether the processor has it."""
    return INT8_DOT_ARM if is_arm(target) else INT8_DOT
