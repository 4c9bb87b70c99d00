"""Which instructions a target's processor has, by the name that LLVM knows it by."""

from functools import cache

import tvm_ffi

from billhook.codegen.tvm_any import tvm
from billhook.ir.target import Target

BF16_DOT = "avx512bf16"
INT8_DOT = "avx512vnni"


@cache
def has_feature(target: Target, feature: str) -> bool:
    """Whether the processor that `target` names has an instruction set, as in "avx512bf16"."""
    if target.kind != "llvm" or not target.mcpu:
        return False
    given = {"kind": "llvm", "mcpu": target.mcpu}
    return bool(tvm_ffi.get_global_func("target.llvm_cpu_has_feature")(feature, tvm.target.Target(given)))
