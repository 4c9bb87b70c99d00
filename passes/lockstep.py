"""Running a graph over several batches at once and stopping on the way, so that weights ahead can still change."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import fx

from billhook.ir.program import state_of

from .batches import apply
from .observe import watched


class Lockstep:
    """All batches through a graph in evaluation mode, node by node: `until` runs as far as a value, and a node sees its parameters as
    they are when it runs.

    watched: names of the values that will be asked for, in any order; others are dropped after their last reader. Raises DataError
    where a batch does not fit the graph.
    """

    def __init__(self, graph: fx.GraphModule, batches: Sequence[Any], asked: Collection[str]) -> None:
        self._graph, self._asked = graph, frozenset(asked)
        self._nodes = [node for node in graph.graph.nodes if node.op != "output"]
        self._last = {source: place for place, node in enumerate(graph.graph.nodes) for source in node.all_input_nodes}
        self._done = 0
        self._values: list[dict[fx.Node, Any]] = [self._inputs(batch) for batch in batches]

    def until(self, name: str) -> list[torch.Tensor]:
        """The value of this name for every batch. Raises KeyError for a name that was not announced."""
        while not any(node.name == name for node in self._values[0]):
            self._step(self._nodes[self._done])
        return [next(value for node, value in values.items() if node.name == name).detach() for values in self._values]

    def _step(self, node: fx.Node) -> None:
        runner: Any = fx.Interpreter(self._graph)
        for values in self._values:
            if node.op == "get_attr":
                values[node] = state_of(self._graph, str(node.target))
            elif node.op != "placeholder":
                runner.env = values
                with torch.no_grad():
                    values[node] = runner.run_node(node)
            for source in node.all_input_nodes:
                if self._last[source] == self._done and source.name not in self._asked:
                    values.pop(source, None)
        self._done += 1

    def _inputs(self, batch: Any) -> dict[fx.Node, Any]:
        """The values of the placeholders: a pass that only looks at them knows how arguments become tensors."""
        found: dict[str, torch.Tensor] = {}
        read = [node for node in self._nodes if node.op == "placeholder" and node.users]  # the others need not even be tensors
        names = [node.name for node in read]
        with torch.no_grad():
            apply(watched(self._graph, {name: lambda value, name=name: found.update({name: value}) for name in names}), batch)
        return {node: found[node.name] for node in read}
