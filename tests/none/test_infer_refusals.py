"""What cannot be known is frozen, and the reason names the operator, the node and the source line."""

import re
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from axis_oracle import Bench, bench
from torch import nn

from billhook.ir.axis import Reason
from billhook.passes.rules import register_rule
from billhook.passes.rules.context import Context, Result
from billhook.passes.rules.registry import forget_rule

Operator = Callable[[torch.Tensor], torch.Tensor]


class Around(nn.Module):
    """A linear layer of width 6, an operator, and a linear reader; `free` beside it must stay prunable."""

    def __init__(self, operator: Operator, width: int = 6) -> None:
        super().__init__()
        self.make, self.read, self.operator = nn.Linear(4, 6), nn.Linear(width, 3), operator
        self.free, self.out = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.read(self.operator(self.make(x))) + self.out(self.free(x).relu())


def around(operator: Operator, width: int = 6) -> Bench:
    found = bench(Around(operator, width), torch.randn(3, 4))
    assert found.program.axis("free.out").prunable
    found.check({"free.out": [0, 2]})
    return found


def reason_of(found: Bench, name: str = "make.out") -> Reason:
    axis = found.program.axis(name)
    assert not axis.prunable
    return axis.frozen_because[0]


@torch.library.custom_op("billhook_test::mix", mutates_args=())
def mix(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1) * x


@cast(Any, mix).register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return grad_outputs[0] * 2


def test_an_unknown_operator_is_refused_with_node_operator_and_line() -> None:
    reason = reason_of(around(lambda x: mix(x)))
    assert reason.op == "billhook_test.mix.default"
    assert reason.node == "mix"
    assert "no rule" in reason.why
    assert re.fullmatch(r"test_infer_refusals\.py:\d+", reason.source)
    assert "billhook_test.mix" in str(reason)
    assert "test_infer_refusals.py" in str(reason)


ORDER_OR_DATA: list[tuple[Operator, int, str | None, str]] = [
    (lambda x: x[:, torch.argsort(x[0])], 6, "aten.argsort", "order"),
    (lambda x: x.index_select(1, torch.tensor([0, 3])), 2, "aten.index_select", "indexed by data"),
    (lambda x: x.roll(1, 1), 6, None, ""),
    (lambda x: x.roll(1), 6, "aten.roll", "by position"),
    (lambda x: x.flip(1), 6, "aten.flip", "by position"),
    (lambda x: x.cumsum(1), 6, None, ""),
    (lambda x: x.sort(1).values, 6, "aten.sort", "order"),
    (lambda x: x.topk(2, 1).values, 2, None, ""),
    (lambda x: x.topk(2, 1).indices.to(x.dtype) + 1.0, 2, "aten.add", "computed with by number"),
    (lambda x: x[:, [4]], 1, "aten.index", "indexed by data"),
    (lambda x: x.max(1, keepdim=True).values, 1, None, ""),
    (lambda x: x.median(1, keepdim=True).values, 1, "aten.median", "median over this dimension"),
    (lambda x: x * torch.arange(6.0), 6, None, ""),
    (lambda x: nn.functional.pad(x, (-1, 0)), 5, "aten.pad", "by position"),
    (lambda x: cast(Any, torch.linalg).vector_norm(x, ord=0, dim=1, keepdim=True) + x, 6, None, ""),
    (lambda x: (x.reshape(-1, 6, 1) @ x.reshape(-1, 1, 6)).diagonal(dim1=1, dim2=2), 6, "aten.diagonal", "no rule"),
]


@pytest.mark.parametrize(("operator", "width", "op", "why"), ORDER_OR_DATA)
def test_what_depends_on_order_or_data(operator: Operator, width: int, op: str | None, why: str) -> None:
    found = around(operator, width)
    if op is None:
        found.check_every_axis()
        return
    reason = reason_of(found)
    assert reason.op.startswith(op)
    assert why in reason.why


def test_a_view_that_does_not_factor_is_refused() -> None:
    """Six channels viewed as 2 x 3 and as 3 x 2."""

    def operator(x: torch.Tensor) -> torch.Tensor:
        a = x.view(-1, 2, 3)
        b = x.view(-1, 3, 2)
        return (a.transpose(1, 2) + b).flatten(1)

    found = around(operator)
    reason = reason_of(found, "make.out.0")
    assert not found.program.axis("make.out.1").prunable
    assert "cannot be matched" in reason.why
    assert "does not factor" in reason.why
    assert reason.op.startswith("aten.")


def test_a_custom_autograd_function_never_lets_a_wrong_cut_through() -> None:
    found = around(cast(Any, Doubled).apply)
    axis = found.program.axis("make.out")
    if axis.prunable:  # it was traced through: then the cut must be right
        found.check_every_axis()
    else:
        assert axis.frozen_because[0].op


def test_inputs_and_outputs_are_frozen() -> None:
    found = bench(nn.Linear(4, 3), torch.randn(2, 4))
    why = {axis.name: axis.frozen_because[0].why for axis in found.program.axes}
    assert why == {"in": "an input of the program", "out": "an output of the program"} or set(why.values()) == {
        "an input of the program",
        "an output of the program",
    }


def test_a_users_rule_frees_the_axis() -> None:
    def same(ctx: Context, node: torch.fx.Node) -> Result:
        return ctx.dims(node.args[0])

    @torch.library.custom_op("billhook_test::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @cast(Any, double).register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    assert not around(lambda x: double(x)).program.axis("make.out").prunable
    register_rule(torch.ops.billhook_test.double, same)
    try:
        found = around(lambda x: double(x))
    finally:
        forget_rule(torch.ops.billhook_test.double)
    assert found.program.axis("make.out").prunable
    found.check_every_axis()


def test_a_rule_that_forgets_what_becomes_of_an_axis_freezes_it() -> None:
    """The safety net: a result without the axis, and no sum declared."""

    def careless(ctx: Context, node: torch.fx.Node) -> Result:
        return (ctx.dims(node.args[0])[0], *ctx.fresh([1]))

    @torch.library.custom_op("billhook_test::spread", mutates_args=())
    def spread(x: torch.Tensor) -> torch.Tensor:
        return x.amax(1, keepdim=True) - x.amin(1, keepdim=True)

    @cast(Any, spread).register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(x.shape[0], 1)

    register_rule(torch.ops.billhook_test.spread, careless)
    try:
        reason = reason_of(around(lambda x: spread(x), 1))
    finally:
        forget_rule(torch.ops.billhook_test.spread)
    assert "does not say" in reason.why
