"""Fused projections: query, key and value within one weight have axes of their own, and nothing else is rewritten."""

import pytest
import torch
from axis_oracle import bench
from structures import STRUCTURES
from torch import nn

import billhook as bh
from billhook.ir.capture import capture
from billhook.passes.normalise_split import split_fused

BEFORE = """
linear = aten.linear.default(x, qkv_weight, qkv_bias)
view = aten.view.default(linear, [2, 3, 3, 2, 4])
permute = aten.permute.default(view, [2, 0, 3, 1, 4])
unbind = aten.unbind.int(permute)
getitem = <built-in function getitem>(unbind, 0)
getitem_1 = <built-in function getitem>(unbind, 1)
getitem_2 = <built-in function getitem>(unbind, 2)
transpose = aten.transpose.int(getitem_1, -2, -1)
matmul = aten.matmul.default(getitem, transpose)
matmul_1 = aten.matmul.default(matmul, getitem_2)
"""
AFTER = """
linear = aten.linear.default(x, qkv_weight, qkv_bias)
part_of_view = aten.slice.Tensor(linear, 2, 0, 8)
part_of_view_1 = aten.reshape.default(part_of_view, [2, 3, 2, 4])
part_of_view_2 = aten.slice.Tensor(linear, 2, 8, 16)
part_of_view_3 = aten.reshape.default(part_of_view_2, [2, 3, 2, 4])
part_of_view_4 = aten.slice.Tensor(linear, 2, 16, 24)
part_of_view_5 = aten.reshape.default(part_of_view_4, [2, 3, 2, 4])
part_of_permute = aten.permute.default(part_of_view_1, [0, 2, 1, 3])
part_of_permute_1 = aten.permute.default(part_of_view_3, [0, 2, 1, 3])
part_of_permute_2 = aten.permute.default(part_of_view_5, [0, 2, 1, 3])
transpose = aten.transpose.int(part_of_permute_1, -2, -1)
matmul = aten.matmul.default(part_of_permute, transpose)
matmul_1 = aten.matmul.default(matmul, part_of_permute_2)
"""


class Fused(nn.Module):
    """Linear attention from one projection [3 * 2 heads * 4]. also: what else is done with the fused value."""

    def __init__(self, also: str = "") -> None:
        super().__init__()
        self.qkv, self.also = nn.Linear(5, 24), also

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        qkv = self.qkv(x).view(x.shape[0], 3, 3, 2, 4).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = q @ k.transpose(-2, -1) @ v
        if self.also == "summed":
            return y + qkv.sum(0)
        return (y, qkv) if self.also == "returned" else y


def text(program: bh.Program) -> str:
    calls = (n for n in program.nodes() if n.op == "call_function")
    return "\n" + "".join(f"{n.name} = {n.target}({', '.join(map(str, n.args))})\n" for n in calls)


def test_before_and_after() -> None:
    program = capture(Fused(), (torch.randn(2, 3, 5),))
    assert text(program) == BEFORE
    assert text(split_fused(program)) == AFTER
    assert text(program) == BEFORE


def test_values_and_weights_stay() -> None:
    model, x = Fused(), torch.randn(2, 3, 5)
    program = split_fused(capture(model, (x,)))
    assert torch.equal(program.graph(x), model(x))
    assert program.state()["qkv.weight"] is model.qkv.weight
    assert all(tuple(n.meta["val"].shape) for n in program.nodes() if n.op == "call_function")


@pytest.mark.parametrize("also", ["summed", "returned"])
def test_a_value_that_is_used_whole_is_left_alone(also: str) -> None:
    program = capture(Fused(also), (torch.randn(2, 3, 5),))
    assert split_fused(program) is program


def test_bare_indices_are_left_alone() -> None:
    """Interleaved pairs have nothing inside each part, and neighbouring pixels are made by no projection."""

    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(5, 8)

        def forward(self, x: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
            a, b = self.up(x).view(2, 3, 4, 2).unbind(-1)
            rows = image.view(2, 2, 6)
            return (a * b).sum() + (rows[:, 0] - rows[:, 1]).sum()

    program = capture(Pairs(), (torch.randn(2, 3, 5), torch.randn(2, 12)))
    assert split_fused(program) is program


@pytest.mark.parametrize("name", sorted(n for n in STRUCTURES if n.startswith("FusedQKV")))
def test_value_is_cut_wider_than_query_and_key(name: str) -> None:
    """One weight, of which queries and keys keep two columns per head and values five, in one head of two."""
    model, (args, kwargs) = STRUCTURES[name].build()
    found = bench(model, *args, **kwargs)
    heads, width, value = (f"qkv.out.{i}" for i in range(3))
    kept = {heads: [1], width: [0, 3], value: [0, 1, 2, 4, 5]}
    found.check(kept)
    pruned = bh.prune(found.program, kept)
    assert tuple(pruned.model.get_parameter("qkv.weight").shape) == (2 + 2 + 5, 8)
    assert set(pruned.model.state_dict()) == set(model.state_dict())
