"""Workloads: the canonical description of one kernel, shared by the cost model and by the code generator."""

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Role = Literal["activation", "parameter"]


@dataclass(frozen=True, slots=True)
class TensorType:
    """Logical shape (as torch has it), element type, and layout of a tensor in memory.

    block 0: row-major. block b > 0 (4-D activations only): shape [N, C, H, W] is stored as [N, ceil(C/b), H, W, b].
    Lanes beyond C hold finite but unspecified values: a consumer ignores them or multiplies them by packed zeros.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    block: int = 0

    def __str__(self) -> str:
        dims = ",".join(map(str, self.shape))
        return f"{self.dtype}[{dims}]" + (f"c{self.block}" if self.block else "")

    @property
    def elements(self) -> int:
        """Number of stored elements, padding lanes included."""
        shape = list(self.shape)
        if self.block:
            shape[1] = -(-shape[1] // self.block) * self.block
        total = 1
        for size in shape:
            total *= size
        return total


@dataclass(frozen=True, slots=True)
class Ref:
    """A value inside a workload: inputs are numbered first, then the calls in order."""

    index: int

    def __str__(self) -> str:
        return f"%{self.index}"


Literal_: TypeAlias = int | float | bool | str | None
Arg: TypeAlias = Ref | Literal_ | tuple["Arg", ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One ATen call with all its arguments in schema order, defaults made explicit; kwargs are the keyword-only ones."""

    op: str  # e.g. "aten.conv2d.default"
    args: tuple[Arg, ...]
    kwargs: tuple[tuple[str, Arg], ...] = ()

    def __str__(self) -> str:
        parts = [_show(a) for a in self.args] + [f"{k}={_show(v)}" for k, v in self.kwargs]
        return f"{self.op}({', '.join(parts)})"


@dataclass(frozen=True, slots=True)
class Workload:
    """A kernel: inputs, a short straight-line program of ATen calls (anchor first, then its fused epilogue), one output.

    The output is the value of the last call. Two kernels with equal workloads are the same kernel, whatever model
    they come from: `key` identifies it in the database.
    """

    inputs: tuple[TensorType, ...]
    roles: tuple[Role, ...]
    calls: tuple[Call, ...]
    output: TensorType

    def __str__(self) -> str:
        head = ", ".join(
            f"{'%' if r == 'activation' else 'w%'}{i}: {t}" for i, (t, r) in enumerate(zip(self.inputs, self.roles, strict=True))
        )
        first = len(self.inputs)
        body = "; ".join(f"%{first + i} = {c}" for i, c in enumerate(self.calls))
        return f"({head}) -> {self.output} {{ {body} }}"

    @property
    def key(self) -> str:
        return workload_to_json(self)

    @property
    def anchor(self) -> Call:
        return self.calls[0]


def _show(arg: Arg) -> str:
    if isinstance(arg, tuple):
        return "[" + ", ".join(_show(a) for a in arg) + "]"
    return str(arg)


def _pack(arg: Arg) -> Any:
    if isinstance(arg, Ref):
        return {"ref": arg.index}
    if isinstance(arg, tuple):
        return [_pack(a) for a in arg]
    return arg


def _unpack(data: Any) -> Arg:
    if isinstance(data, dict):
        return Ref(int(data["ref"]))
    if isinstance(data, list):
        return tuple(_unpack(d) for d in data)
    return data


def workload_to_json(workload: Workload) -> str:
    """Canonical JSON text; equal workloads give equal texts."""
    data = {
        "inputs": [[list(t.shape), t.dtype, t.block, r] for t, r in zip(workload.inputs, workload.roles, strict=True)],
        "calls": [[c.op, _pack(c.args), [[k, _pack(v)] for k, v in c.kwargs]] for c in workload.calls],
        "output": [list(workload.output.shape), workload.output.dtype, workload.output.block],
    }
    return json.dumps(data, separators=(",", ":"), sort_keys=True)


def workload_from_json(text: str) -> Workload:
    """Inverse of `workload_to_json`."""
    data = json.loads(text)
    calls: list[Call] = []
    for op, args, kwargs in data["calls"]:
        packed = _unpack(args)
        assert isinstance(packed, tuple)
        calls.append(Call(op, packed, tuple((k, _unpack(v)) for k, v in kwargs)))
    shape, dtype, block = data["output"]
    return Workload(
        tuple(TensorType(tuple(s), d, b) for s, d, b, _ in data["inputs"]),
        tuple(r for *_, r in data["inputs"]),
        tuple(calls),
        TensorType(tuple(shape), dtype, block),
    )
