"""TVM's modules, typed Any in this one place: TVM ships no usable type information."""

from importlib import import_module
from typing import Any

import tvm as _tvm
from tvm import relax as _relax
from tvm.script.ir_builder import IRBuilder as _IRBuilder

tvm: Any = _tvm
relax: Any = _relax
T: Any = import_module("tvm.script.ir_builder.tirx")
IRBuilder: Any = _IRBuilder

__all__ = ["IRBuilder", "T", "relax", "tvm"]
