"""Layer norms and attention with the moves around them equal torch; the index arithmetic of moves equals torch's own."""

import itertools
import math

import pytest
import torch
from kernel_workloads import AVX2, ZEN4, WorkloadBuilder, wrong

from billhook.codegen import lower
from billhook.codegen.cpu import norm
from billhook.codegen.cpu.moves import rows_stay, views
from billhook.ir.reference import run_workload
from billhook.ir.target import Target
from billhook.ir.workload import Arg, Call, Ref, Workload

MOVES: dict[str, tuple[tuple[int, ...], list[tuple[str, tuple[Arg, ...]]]]] = {
    "permute": ((2, 3, 4), [("permute.default", ((2, 0, 1),))]),
    "heads": ((5, 2, 24), [("slice.Tensor", (2, 8, 16, 1)), ("reshape.default", ((5, 4, 4),)), ("permute.default", ((1, 0, 2),))]),
    "steps": ((6, 7), [("slice.Tensor", (0, 1, 6, 2)), ("slice.Tensor", (-1, None, None, 3))]),
    "window": (
        (1, 4, 6, 8),
        [("roll.default", ((-1, 2), (1, 2))), ("reshape.default", ((2, 2, 2, 3, 8),)), ("permute.default", ((0, 2, 1, 3, 4),))],
    ),
    "expand": ((2, 1, 3, 4), [("expand.default", ((2, 5, 3, 4),)), ("reshape.default", ((10, 3, 4),)), ("permute.default", ((1, 0, 2),))]),
    "expand-front": ((3, 4), [("expand.default", ((2, -1, 4),)), ("reshape.default", ((6, 4),))]),
    "select": ((3, 4, 5), [("select.int", (1, -1)), ("permute.default", ((1, 0),))]),
}


def _moves(shape: tuple[int, ...], calls: list[tuple[str, tuple[Arg, ...]]]) -> Workload:
    b = WorkloadBuilder()
    value = b.tensor(*shape)
    for op, args in calls:
        value = b.call(f"aten.{op}", value, *args)
    result: torch.Tensor = torch.zeros(shape)
    for call in b.calls:
        result = getattr(getattr(torch.ops.aten, call.op.split(".")[1]), call.op.split(".")[2])(result, *call.args[1:])
    return b.finish(*result.shape)


@pytest.mark.parametrize("name", MOVES)
def test_addresses_of_moved_elements_are_where_torch_takes_them_from(name: str) -> None:
    workload = _moves(*MOVES[name])
    given = workload.inputs[0].shape
    expected = run_workload(workload, (torch.arange(math.prod(given)).reshape(given),))
    seen = views(workload, len(workload.calls))
    assert seen is not None
    view = seen[len(workload.calls)]
    indices = itertools.product(*map(range, expected.shape))
    assert [view.address(i) for i in indices] == expected.numpy().reshape(-1).tolist()


@pytest.mark.parametrize("name", MOVES)
def test_moves_of_rows_are_recognised(name: str) -> None:
    workload = _moves(*MOVES[name])
    given, width = workload.inputs[0].shape, workload.inputs[0].shape[-1]
    moved = run_workload(workload, (torch.arange(math.prod(given)).reshape(given),)).reshape(-1)
    whole = moved.numel() % width == 0 and bool((moved.reshape(-1, width) - moved.reshape(-1, width)[:, :1] == torch.arange(width)).all())
    aligned = whole and bool((moved.reshape(-1, width)[:, 0] % width == 0).all())
    seen = views(workload, len(workload.calls))
    assert seen is not None
    assert rows_stay(seen[len(workload.calls)].moves, width) == aligned


def _norm(shape: tuple[int, ...], moves: list[tuple[str, tuple[Arg, ...], tuple[int, ...]]], affine: bool = True) -> Workload:
    b = WorkloadBuilder()
    x, width = b.tensor(*shape), shape[-1]
    vectors = (b.parameter(width), b.parameter(width)) if affine else (None, None)
    y, out = b.call("aten.layer_norm.default", x, (width,), *vectors, 1e-5, False), shape
    for op, args, after in moves:
        y, out = b.call(f"aten.{op}", y, *args), after
    return b.finish(*out)


WINDOW: list[tuple[str, tuple[Arg, ...], tuple[int, ...]]] = [
    ("roll.default", ((-1, -1), (1, 2)), (1, 4, 4, 40)),
    ("reshape.default", ((1, 2, 2, 2, 2, 40),), (1, 2, 2, 2, 2, 40)),
    ("permute.default", ((0, 1, 3, 2, 4, 5),), (1, 2, 2, 2, 2, 40)),
    ("reshape.default", ((4, 4, 40),), (4, 4, 40)),
]
NORMS = {
    "plain": _norm((2, 5, 96), []),
    "tail": _norm((3, 61), []),
    "narrow": _norm((7, 5), [], affine=False),
    "window": _norm((1, 4, 4, 40), WINDOW),
    "rows-swapped": _norm((2, 9, 768), [("permute.default", ((1, 0, 2),), (9, 2, 768))]),
    "first-row": _norm((2, 9, 32), [("select.int", (1, 0), (2, 32))]),
}


@pytest.mark.parametrize("workload", NORMS.values(), ids=NORMS.keys())
def test_layer_norm_equals_torch(workload: Workload) -> None:
    (choice,) = lower.candidates(workload, ZEN4)
    assert choice.template == "norm"
    assert wrong(workload, choice) is None


def test_a_norm_whose_rows_are_torn_apart_has_no_template() -> None:
    assert norm.candidates(_norm((2, 3, 8), [("permute.default", ((0, 2, 1),), (2, 8, 3))]), ZEN4) == ()


def _attention(n: int, heads: int, rows: int, depth: int, mask: tuple[int, ...] | None = None, keys: int | None = None) -> Workload:
    """Heads split from one tensor [n, rows, 3 * heads * depth], or from two if the number of keys differs; merged behind."""
    b = WorkloadBuilder()
    width = heads * depth
    x = b.tensor(n, rows, 3 * width)
    other = b.tensor(n, keys, 3 * width) if keys else x
    bias = b.parameter(*mask) if mask else None
    heads_of: list[Ref] = []
    for part, (source, count) in enumerate(((x, rows), (other, keys or rows), (other, keys or rows))):
        y = b.call("aten.slice.Tensor", source, 2, part * width, (part + 1) * width, 1)
        y = b.call("aten.reshape.default", y, (n, count, heads, depth))
        heads_of.append(b.call("aten.permute.default", y, (0, 2, 1, 3)))
    y = b.call("aten.scaled_dot_product_attention.default", *heads_of, bias, 0.0, False, scale=None, enable_gqa=False)
    y = b.call("aten.permute.default", y, (0, 2, 1, 3))
    b.call("aten.reshape.default", y, (n, rows, width))
    return b.finish(n, rows, width)


ATTENTIONS = {
    "one-head": _attention(1, 1, 16, 16),
    "tails": _attention(2, 3, 21, 8),
    "odd-depth": _attention(1, 2, 9, 13),
    "mask-shared": _attention(4, 2, 12, 32, mask=(1, 2, 12, 12)),
    "mask-per-sample": _attention(2, 3, 7, 16, mask=(2, 3, 7, 7)),
    "mask-of-keys": _attention(2, 2, 7, 16, mask=(1, 1, 1, 7)),
    "cross": _attention(1, 2, 5, 24, keys=19),
}


@pytest.mark.parametrize("workload", ATTENTIONS.values(), ids=ATTENTIONS.keys())
def test_attention_equals_torch(workload: Workload) -> None:
    candidates = lower.candidates(workload, ZEN4)
    assert candidates
    assert {c.template for c in candidates} == {"attention"}
    assert [(c, w) for c in candidates if (w := wrong(workload, c))] == []


def test_heads_that_share_keys_and_values_equal_torch() -> None:
    b = WorkloadBuilder()
    q, shared = b.tensor(2, 6, 9, 16), b.tensor(2, 2, 9, 16)
    y = b.call("aten.expand.default", b.call("aten.reshape.default", shared, (2, 2, 1, 9, 16)), (2, 2, 3, 9, 16), implicit=False)
    y = b.call("aten.reshape.default", y, (2, 6, 9, 16))
    b.call("aten.scaled_dot_product_attention.default", q, y, y, None, 0.0, False, scale=0.3, enable_gqa=False)
    workload = b.finish(2, 6, 9, 16)
    first = lower.candidates(workload, ZEN4)[0]
    assert first.template == "attention"
    assert wrong(workload, first) is None


CAUSAL = {
    "one-head": _attention(1, 1, 16, 16),
    "tails": _attention(2, 3, 37, 8),
    "many-rows": _attention(1, 2, 70, 16),
    "fewer-keys": _attention(1, 2, 21, 24, keys=9),
    "more-keys": _attention(1, 2, 5, 24, keys=40),
    "one-row": _attention(2, 2, 1, 16, keys=19),
}


@pytest.mark.parametrize("target", [ZEN4, AVX2], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", CAUSAL)
def test_causal_attention_equals_torch(name: str, target: Target) -> None:
    plain = CAUSAL[name]
    calls = tuple(Call(c.op, (*c.args[:5], True), c.kwargs) if "attention" in c.op else c for c in plain.calls)
    workload = Workload(plain.inputs, plain.roles, calls, plain.output)
    candidates = lower.candidates(workload, target)
    assert {c.template for c in candidates} == {"attention"}
    assert [(c, w) for c in candidates if (w := wrong(workload, c, target))] == []
