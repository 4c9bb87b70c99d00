"""How contraction templates multiply: one number per lane, or a group of neighbouring input channels per lane in one instruction."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from billhook.codegen.tvm_any import T

from . import gridded, reduced
from .gridded import OnGrid
from .vector import accumulate, load, splat, store


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """name: suffix of the templates that multiply so; group: input channels per lane; weight, sums: element types of both."""

    name: str
    group: int
    weight: str
    sums: str = "float32"

    @property
    def exact(self) -> bool:
        """Whether products are of integers."""
        return self.sums == "int32"

    def spread(self, buffer: Any, index: Any, lanes: int) -> Any:
        """The `group` numbers from `index` on, in every lane."""
        if self.group == 1:
            return splat(load(buffer, index, 1), lanes)
        stored = buffer.bytes if isinstance(buffer, OnGrid) else buffer
        return T.broadcast(T.reinterpret("int32", stored[T.ramp(index, 1, self.group)]), lanes)

    def multiply_add(self, accumulator: Any, value: Any, weight: Any, lanes: int) -> None:
        """Add, in every lane, the products of a spread value with a vector of weights to an accumulator."""
        if self.group == 1:
            accumulate(accumulator, value * weight, lanes)
        elif self.exact:
            store(accumulator, 0, gridded.dot(load(accumulator, 0, lanes), value, weight, lanes), lanes)
        else:
            store(accumulator, 0, reduced.dot(load(accumulator, 0, lanes), value, weight, lanes), lanes)

    def packed(self, array: np.ndarray) -> np.ndarray:
        """Weights in the kernel's order, the members of a group last, as the flat buffer that it reads."""
        if self.group == 1:
            return np.ascontiguousarray(array, np.float32).reshape(-1)
        if self.exact:
            return np.ascontiguousarray(array, np.int8).reshape(-1).view(np.int32)
        return reduced.to_bits(array).reshape(-1).view(np.int32)


FLOAT32 = Arithmetic("", 1, "float32")
BFLOAT16 = Arithmetic("_bf16", 2, "int32")
INT8 = Arithmetic("_int8", 4, "int32", "int32")
