"""Regions that torch.export wraps (no_grad, autocast off) are laid open: their operators become part of the graph."""

from typing import Any, cast

from torch import fx

from .deferred import DeferredGraphModule

INLINED = "wrap_with_set_grad_enabled", "wrap_with_autocast"


def inline_regions(module: DeferredGraphModule) -> None:
    """Replace every wrapped region by its nodes, in place. Autocast that is on stays wrapped: it changes what operators compute."""
    changed = True
    while changed:
        regions = [n for n in module.graph.nodes if n.op == "call_function" and _region(n) is not None]
        for node in regions:
            _inline(module, node)
        changed = bool(regions)
    _drop_checks(module.graph)
    module.graph.eliminate_dead_code()
    module.defer()


def _drop_checks(graph: fx.Graph) -> None:
    """The exporter notes element types that it saw; its notes would keep alive what nothing else reads."""
    for node in list(graph.nodes):
        if str(node.target).startswith("aten._assert_tensor_metadata"):
            graph.erase_node(node)


def _region(node: fx.Node) -> int | None:
    """The position of the region's body among the arguments, if the region can be laid open."""
    name = getattr(node.target, "__name__", "")
    if name not in INLINED or (name == "wrap_with_autocast" and node.args[2]):
        return None
    return 1 if name == "wrap_with_set_grad_enabled" else 4


def _inline(module: fx.GraphModule, node: fx.Node) -> None:
    at = _region(node)
    assert at is not None
    body = node.args[at]
    assert isinstance(body, fx.Node)
    name = str(body.target)
    inner = cast("fx.GraphModule", module.get_submodule(name))
    inputs = [n for n in inner.graph.nodes if n.op == "placeholder"]
    mapping: dict[fx.Node, Any] = dict(zip(inputs, node.args[at + 1 :], strict=True))
    result: Any = None
    with module.graph.inserting_before(node):
        for old in inner.graph.nodes:
            if old.op == "output":
                result = fx.map_arg(old.args[0], lambda n: mapping[n])
            elif old.op != "placeholder":
                mapping[old] = module.graph.node_copy(old, lambda n: mapping[n])
                if old.op == "get_attr":
                    mapping[old].target = f"{name}.{old.target}"
    _hand_over(module, node, result)


def _hand_over(module: fx.GraphModule, node: fx.Node, result: Any) -> None:
    """Readers of the region read what its body returned."""
    if isinstance(result, fx.Node):
        node.replace_all_uses_with(result)
    else:
        for user in list(node.users):
            user.replace_all_uses_with(result[cast("int", user.args[1])])
            module.graph.erase_node(user)
    module.graph.erase_node(node)
