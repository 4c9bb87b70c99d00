"""The inference normal form of small models for tests, compared with what the models compute."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from billhook.ir.capture import capture
from billhook.ir.program import operator_of
from billhook.passes.normalise import normalise_for_inference


def normal(model: nn.Module, *inputs: torch.Tensor) -> fx.GraphModule:
    captured = capture(model.eval(), inputs)
    return normalise_for_inference(captured.graph, captured.example)


def calls(graph: fx.GraphModule) -> list[str]:
    return [operator_of(n).removeprefix("aten.") for n in graph.graph.nodes if n.op == "call_function"]


def check(model: nn.Module, *inputs: torch.Tensor, ops: list[str] | None = None) -> fx.GraphModule:
    """The normal form gives the model's outputs with exactly these operators."""
    graph = normal(model, *inputs)
    with torch.no_grad():
        expected = model(*inputs)
        torch.testing.assert_close(graph(*inputs), expected if isinstance(expected, tuple) else (expected,), rtol=1e-5, atol=1e-5)
    if ops is not None:
        assert calls(graph) == ops
    return graph


class Function(nn.Module):
    """A module that applies a function of (module, inputs), with parameters that it may use."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)
