"""The oracle catches planted faults: a rule made wrong on purpose must fail on a network that uses its operator."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from axis_oracle import bench
from structures import STRUCTURES

from billhook.ir.errors import VerifyError
from billhook.passes.rules import Context, registry
from billhook.passes.unify import cat, prod

Rule = Callable[[Context, torch.fx.Node], Any]


RULES = dict(registry._RULES)  # as they are, before any fault is planted


def right(name: str) -> Rule:
    return RULES[name]


def without_edit(name: str) -> Rule:
    def rule(ctx: Context, node: Any) -> Any:
        result = right(name)(ctx, node)
        ctx.edits.pop(node.name, None)
        return result

    return rule


def without_reads(name: str) -> Rule:
    def rule(ctx: Context, node: Any) -> Any:
        before = len(ctx.reads)
        result = right(name)(ctx, node)
        dropped = ctx.reads[before:]
        del ctx.reads[before:]
        for read in dropped:
            ctx.drop(node, ctx.dims(node.args[0])[read.read.dim])
        return result

    return rule


def swapped_cat(ctx: Context, node: Any) -> Any:
    out = list(right("aten.cat")(ctx, node))
    out[1] = cat([ctx.dims(v)[1] for v in reversed(node.args[0])])
    return tuple(out)


def backwards_view(ctx: Context, node: Any) -> Any:
    """Factors taken with the first one fastest."""
    shape = ctx.shape(node)
    x = ctx.dims(node.args[0])
    if len(shape) <= len(x):
        return right("aten.view")(ctx, node)
    new = ctx.fresh(shape)
    ctx.equate(node, prod(list(reversed(new))), prod(list(reversed(x))))
    ctx.edit(node, {"size": ctx.sizes(new)})
    return new


def no_scale(ctx: Context, node: Any) -> Any:
    result = right("aten.mean")(ctx, node)
    pending = ctx.edits[node.name]
    ctx.edits[node.name] = replace(pending, edit=replace(pending.edit, scale=1.0))
    return result


def elementwise(ctx: Context, node: Any) -> Any:
    return ctx.dims(node.args[0])


def wrong_rules() -> dict[str, tuple[str, Rule, str]]:
    """Planted faults: the rule's name, a wrong rule made from the right one, and a structure that it must be caught in."""
    return {
        "flip is elementwise": ("aten.flip", elementwise, "Reordered_flip"),
        "roll is elementwise": ("aten.roll", elementwise, "Reordered_roll"),
        "cat in reverse": ("aten.cat", swapped_cat, "ManyInputs"),
        "view in reverse": ("aten.view", backwards_view, "FusedQKV_chunk"),
        "mean of fewer": ("aten.mean", no_scale, "Normed_response"),
        "attention rescaled": ("aten.scaled_dot_product_attention", without_edit("aten.scaled_dot_product_attention"), "FusedQKV_view"),
        "groups forgotten": ("aten.conv2d", without_edit("aten.conv2d"), "Grouped_4_4"),
        "convolution does not sum": ("aten.conv2d", without_reads("aten.conv2d"), "SPPF"),
        "softmax without statistic": ("aten.softmax", without_reads("aten.softmax"), "ChannelStatistics"),
        "layer norm without statistic": ("aten.layer_norm", without_reads("aten.layer_norm"), "Normed_layer"),
        "group norm keeps its groups": ("aten.group_norm", without_edit("aten.group_norm"), "Normed_group"),
    }


@pytest.mark.parametrize("fault", sorted(wrong_rules()))
def test_a_planted_wrong_rule_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong, where = wrong_rules()[fault]
    model, (args, kwargs) = STRUCTURES[where].build()
    bench(model, *args, **kwargs).check_every_axis()
    monkeypatch.setitem(registry._RULES, name, wrong)
    with pytest.raises((AssertionError, RuntimeError, VerifyError)):
        bench(model, *args, **kwargs).check_every_axis()
