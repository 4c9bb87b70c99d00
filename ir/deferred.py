"""Graph modules whose Python code is generated when it is first needed."""

import weakref
from typing import Any

from torch import fx


class DeferredGraphModule(fx.GraphModule):
    """A GraphModule that generates its code when it is first run or read.

    Passes make many graphs that nobody runs, and generating and compiling their code would cost more than the passes do.
    `recompile()` still generates at once; setting `graph`, or `defer()` after a change of it, puts that off.
    """

    @property
    def graph(self) -> fx.Graph:
        return self._graph

    @graph.setter
    def graph(self, g: fx.Graph) -> None:
        self._graph = g
        g.owning_module = self
        self.defer()

    def defer(self) -> None:
        """Take note that the graph has changed: the next use generates the code anew."""
        own_class: Any = type(self)  # fx makes a class for every graph module
        own_class.forward = _Deferred(self)

    @property
    def code(self) -> str:
        self._generated()
        return super().code

    def __str__(self) -> str:
        self._generated()
        return super().__str__()

    def _generated(self) -> None:
        if isinstance(vars(type(self)).get("forward"), _Deferred):
            self.recompile()


class _Deferred:
    """Stands for `forward` until someone asks for it."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = weakref.ref(module)  # its class refers to this object: a plain reference would keep the weights alive

    def __get__(self, instance: fx.GraphModule | None, owner: Any) -> Any:
        module = instance if instance is not None else self._module()
        if module is None:
            raise AttributeError("forward: the graph module is gone")
        module.recompile()
        return getattr(owner if instance is None else instance, "forward")  # noqa: B009 (the attribute is another one by now)
