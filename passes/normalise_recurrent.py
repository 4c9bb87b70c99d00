"""Recurrent layers become their steps: linear maps and pointwise operators, which every target has kernels for.

Gates are told apart by a dimension of their own, so that all extents follow the layer's width. Definitions: torch.nn.LSTM, GRU, RNN.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import fx

from billhook.costmodel.operators import dims_of
from billhook.costmodel.origin import Extents, dims_meta
from billhook.ir.errors import CaptureError
from billhook.ir.program import operator_of

from .normalise_draft import Draft
from .normalise_operators import reshaped

aten: Any = torch.ops.aten

State: TypeAlias = tuple[fx.Node, ...]  # hidden state, and an LSTM's cell state
MOST_STEPS = 256  # every step is some kernel calls in the network
_GATES = {"aten.lstm": 4, "aten.gru": 3, "aten.rnn_tanh": 1, "aten.rnn_relu": 1}


def unroll_recurrent(draft: Draft) -> None:
    """Replace every recurrent layer by its steps. CaptureError if there are too many of them, or a packed sequence gives their number."""
    for node in draft.calls():
        if operator_of(node) in _GATES:
            _unroll(draft, node)


def _unroll(draft: Draft, node: fx.Node) -> None:
    if not str(node.target).endswith(".input"):
        raise CaptureError(f"node {node.name} ({node.target}): lengths of packed sequences depend on data; give padded inputs")
    value, start, parameters, biases, layers, dropout, training, both, batch_first = cast("Any", node.args)
    time, steps = int(batch_first), dims_of(value)[int(batch_first)]
    if not 0 < steps <= MOST_STEPS:
        raise CaptureError(f"node {node.name} ({node.target}) has {steps} steps; 1 to {MOST_STEPS} are unrolled, give shorter inputs")
    if dropout and training:
        raise CaptureError(f"node {node.name} drops at random; capture the model in evaluation mode")
    starts = tuple(start) if isinstance(start, (list, tuple)) else (start,)
    directions = 1 + bool(both)
    weights = list(_weights(parameters, bool(biases), int(layers) * directions))
    steps_of = _Steps(draft, node, operator_of(node), time)
    results = {cast("int", part.args[1]): part for part in node.users}
    last: list[State] = []
    for layer in range(int(layers)):
        sides: list[fx.Node] = []
        for direction in range(directions):
            number = layer * directions + direction
            first = tuple(steps_of.chosen(s, 0, number) for s in cast("State", starts))
            outputs, state = steps_of.run(value, weights[number], first, backwards=direction == 1)
            sides.append(steps_of.joined(outputs, time))
            last.append(state)
        final = layer == int(layers) - 1
        if len(sides) == 1:
            value = sides[0]
        elif not final or 0 in results:
            width = dims_meta(results[0].meta)[-1] if final else dims_meta(weights[(layer + 1) * 2].inputs.meta)[1]
            value = steps_of.call(aten.cat.default, (sides, -1), (*dims_meta(sides[0].meta)[:-1], width))
    for piece, part in results.items():
        draft.replace(part, value if piece == 0 else steps_of.joined([state[piece - 1] for state in last], 0))


@dataclass(frozen=True, slots=True)
class _Weights:
    """Parameters of one direction of one layer. projection: of the hidden state (LSTMs with proj_size)."""

    inputs: fx.Node
    state: fx.Node
    input_bias: fx.Node | None = None
    state_bias: fx.Node | None = None
    projection: fx.Node | None = None


def _weights(parameters: Sequence[fx.Node], biases: bool, count: int) -> Iterator[_Weights]:
    """The parameters of every direction, in torch's order."""
    each = len(parameters) // count
    for i in range(count):
        inputs, state, *rest = parameters[i * each : (i + 1) * each]
        first, second = (rest.pop(0), rest.pop(0)) if biases else (None, None)
        yield _Weights(inputs, state, first, second, rest[0] if rest else None)


@dataclass(frozen=True, slots=True)
class _Steps:
    """Calls that take the place of a recurrent node; each is inserted before it. time: the dimension of the steps."""

    draft: Draft
    node: fx.Node
    kind: str
    time: int

    def run(self, value: fx.Node, w: _Weights, state: State, *, backwards: bool) -> tuple[list[fx.Node], State]:
        """Outputs [batch, width] in order of time, and the last state. value: [batch, steps, inputs] or [steps, batch, inputs]."""
        whole = self._linear(value, w.inputs, w.input_bias)
        numbers = range(dims_of(value)[self.time])
        outputs: list[fx.Node] = []
        for t in reversed(numbers) if backwards else numbers:
            state = self._step(self.chosen(whole, self.time, t), w, state)
            outputs.append(state[0])
        return outputs[::-1] if backwards else outputs, state

    def _step(self, given: fx.Node, w: _Weights, state: State) -> State:
        """The next state. given: the input's part of the gates, [batch, gates * width]."""
        hidden = state[0]
        before = self._linear(hidden, w.state, w.state_bias)
        if self.kind == "aten.gru":
            return (self._gru(given, before, hidden, w),)
        total = self._pointwise(aten.add.Tensor, before, given)
        if self.kind != "aten.lstm":
            return (self._pointwise(aten.relu.default if self.kind == "aten.rnn_relu" else aten.tanh.default, total),)
        enter, forget, fresh, leave = self._gates(total, w)
        kept = self._pointwise(aten.mul.Tensor, self._sigmoid(forget), state[1])
        added = self._pointwise(aten.mul.Tensor, self._sigmoid(enter), self._pointwise(aten.tanh.default, fresh))
        cell = self._pointwise(aten.add.Tensor, kept, added)
        hidden = self._pointwise(aten.mul.Tensor, self._sigmoid(leave), self._pointwise(aten.tanh.default, cell))
        return (hidden if w.projection is None else self._linear(hidden, w.projection, None)), cell

    def _gru(self, given: fx.Node, before: fx.Node, hidden: fx.Node, w: _Weights) -> fx.Node:
        (reset, update, fresh), (reset_h, update_h, fresh_h) = self._gates(given, w), self._gates(before, w)
        reset = self._sigmoid(self._pointwise(aten.add.Tensor, reset, reset_h))
        update = self._sigmoid(self._pointwise(aten.add.Tensor, update, update_h))
        mixed = self._pointwise(aten.add.Tensor, fresh, self._pointwise(aten.mul.Tensor, reset, fresh_h))
        fresh = self._pointwise(aten.tanh.default, mixed)
        change = self._pointwise(aten.mul.Tensor, update, self._pointwise(aten.sub.Tensor, hidden, fresh))
        return self._pointwise(aten.add.Tensor, fresh, change)

    def _gates(self, total: fx.Node, w: _Weights) -> list[fx.Node]:
        """The parts [batch, width] of [batch, gates * width]."""
        count, batch = _GATES[self.kind], dims_of(total)[0]
        width = dims_meta(w.state.meta)[1] if w.projection is None else dims_meta(w.projection.meta)[1]
        shaped = self._reshape(total, [batch, count, dims_of(total)[1] // count], (dims_meta(total.meta)[0], count, width))
        return [self.chosen(shaped, 1, k) for k in range(count)]

    def joined(self, values: Sequence[fx.Node], dim: int) -> fx.Node:
        """Values [batch, width] side by side along a new dimension."""
        extents = dims_meta(values[0].meta)
        wide = [self._reshape(v, [*dims_of(v)[:dim], 1, *dims_of(v)[dim:]], (*extents[:dim], 1, *extents[dim:])) for v in values]
        return self.call(aten.cat.default, (wide, dim), (*extents[:dim], len(values), *extents[dim:]))

    def chosen(self, value: fx.Node, dim: int, index: int) -> fx.Node:
        extents = dims_meta(value.meta)
        return self.call(aten.select.int, (value, dim, index), (*extents[:dim], *extents[dim + 1 :]))

    def _reshape(self, value: fx.Node, shape: list[int], dims: Extents) -> fx.Node:
        return reshaped(self.draft, self.node, value, shape, dims, f"{self.node.name}_step")

    def _linear(self, value: fx.Node, weight: fx.Node, bias: fx.Node | None) -> fx.Node:
        return self.call(aten.linear.default, (value, weight, bias), (*dims_meta(value.meta)[:-1], dims_meta(weight.meta)[0]))

    def _sigmoid(self, value: fx.Node) -> fx.Node:
        return self._pointwise(aten.sigmoid.default, value)

    def _pointwise(self, target: Any, *values: fx.Node) -> fx.Node:
        return self.call(target, values, dims_meta(values[0].meta))

    def call(self, target: Any, args: tuple[Any, ...], dims: Extents) -> fx.Node:
        return self.draft.call(self.node, target, args, name=f"{self.node.name}_step", dims=dims)
