"""A cut network as a Hugging Face checkpoint: `save` writes config and weights that `from_pretrained` loads.

A configuration can say a cut if some values of its integers make a model with exactly the cut tensors' shapes and outputs. Which
integers these are is not looked up but found: each may take the sizes that what had its value has now; candidates are compared by
the shapes of their tensors, then, with weights drawn anew so that nothing hides, by their outputs. The one that fits is saved,
loaded by transformers itself, and run. So every architecture is supported as far as its configuration reaches, and nothing wrong
is ever left behind.
"""

import copy
from collections.abc import Iterator, Mapping
from itertools import combinations, islice
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from billhook.huggingface_search import REFUSALS, Search, Setting, configured
from billhook.ir.atomic import atomic_folder
from billhook.ir.dims import Concat, Dim, Product, extent
from billhook.ir.errors import DataError, PlanError
from billhook.ir.program import Program
from billhook.ir.tensors import tensors_in
from billhook.passes.oracle import relative_error
from billhook.passes.prune import Pruned

TOLERANCE = 1e-4  # relative to the largest output
MOST_RUNS = 64  # of models whose shapes fit; they differ in integers that no shape shows

State = Mapping[str, torch.Tensor]


def save(pruned: Pruned, program: Program, folder: str | Path) -> dict[str, int]:
    """Write config and weights of a cut network to a folder, and return what its configuration says anew, by name.

    program: the dense program that `pruned` was cut from. Its model is a `PreTrainedModel`, or has one inside (a wrapper that
    picks an output, say), which is then what is saved. The checkpoint is loaded once more and must give the cut network's
    outputs on the program's example.

    Raises DataError where there is no `PreTrainedModel`, PlanError where no configuration fits the cut, naming a tensor that
    does not or that the outputs differ, and OutputError where the folder cannot be written.
    """
    dense, host, prefix = _pretrained(program)
    state = _cut_state(pruned, dense, host, prefix)
    drawn = _drawn(state)
    graph = copy.deepcopy(pruned.program.graph, {id(t): drawn[name] for name, t in state.items()})
    wanted = _outputs(graph, program, double=True)
    search = Search(host, {name: tuple(t.shape) for name, t in state.items()}, _extents(program, pruned))
    nearest = float("inf")
    for settings in islice(search.fitting(), MOST_RUNS):
        trial = _with_host(dense, host, _made(host, settings, drawn))
        error = relative_error(_outputs(trial, program, double=True), wanted)
        if error <= TOLERANCE:
            _write(_made(host, settings, state), Path(folder), pruned, program)
            return {".".join(map(str, place)): value for place, value in settings}
        nearest = min(nearest, error)
    raise PlanError(search.refusal() if nearest == float("inf") else _differs(host, nearest))


def _pretrained(program: Program) -> tuple[nn.Module, Any, str]:
    """The captured module, the outermost PreTrainedModel in it, and the prefix of its names there."""
    if program.model is not None:
        for name, module in program.model.named_modules():
            if hasattr(module, "save_pretrained") and hasattr(module, "config"):
                return program.model, module, f"{name}." if name else ""
    kind = type(program.model).__qualname__
    raise DataError(f"{kind} has no transformers.PreTrainedModel inside; use result.save, which works for every model")


def _cut_state(pruned: Pruned, dense: nn.Module, host: Any, prefix: str) -> State:
    """The host's state after the cut: cut tensors under all their names, and dense ones that the graph never reads."""
    state = pruned.program.state()
    named = {**dict(dense.named_parameters(remove_duplicate=False)), **dict(dense.named_buffers(remove_duplicate=False))}
    cut = {id(tensor): state[name] for name, tensor in named.items() if name in state}
    return {name: cut.get(id(t), t) for name in host.state_dict() for t in [named[prefix + name]]}


def _drawn(state: State) -> dict[str, torch.Tensor]:
    """The state with numbers that show every difference: small weights, as of a fresh model, make all attention alike."""
    generator = torch.Generator().manual_seed(0)
    made: dict[int, torch.Tensor] = {}
    for tensor in state.values():
        value = tensor.detach().clone()
        if value.is_floating_point():
            draw = torch.rand if value.dim() < 2 else torch.randn  # a vector may be a variance: positive
            drawn = draw(value.shape, generator=generator) * (1.0 if value.dim() < 2 else 1.5 / max(1, value.shape[-1]) ** 0.5)
            value = (drawn + (0.5 if value.dim() < 2 else 0.0)).to(value)
        parameter = isinstance(tensor, nn.Parameter)
        made.setdefault(id(tensor), nn.Parameter(value, requires_grad=tensor.requires_grad) if parameter else value)
    return {name: made[id(tensor)] for name, tensor in state.items()}


def _extents(program: Program, pruned: Pruned) -> dict[int, set[int]]:
    """What has become of every extent: of dimensions, and of the runs of factors and the segments within them."""
    sizes, found = pruned.plan.sizes(), dict[int, set[int]]()
    for node in program.nodes():
        if node.op == "get_attr":
            for part in (p for dim in program.types[node.name] for p in _parts(dim)):
                found.setdefault(part.size, set()).add(extent(part, sizes))
    return found


def _parts(dim: Dim) -> Iterator[Dim]:
    yield dim
    if isinstance(dim, Concat):
        for segment in dim.segments:
            yield from _parts(segment)
    elif isinstance(dim, Product):
        for i, j in combinations(range(len(dim.factors) + 1), 2):
            run = dim.factors[i:j]
            if 1 < len(run) < len(dim.factors):
                yield Product(run, prod(f.size for f in run))
        for factor in dim.factors:
            yield from _parts(factor)


def _made(host: Any, settings: tuple[Setting, ...], state: State) -> Any:
    """A model of the host's class with changed settings and copies of the given state, in evaluation mode."""
    model: Any = type(host)(configured(host.config, settings))
    model.to(next(t.dtype for t in state.values() if t.is_floating_point()))
    model.load_state_dict({name: t.detach().clone() for name, t in state.items()})
    return model.eval()


def _with_host(dense: nn.Module, host: nn.Module, model: nn.Module) -> nn.Module:
    """The captured module with another model in the place of its host."""
    return copy.deepcopy(dense, {id(host): model})


def _outputs(module: nn.Module, program: Program, *, double: bool = False) -> list[torch.Tensor]:
    """Outputs on the program's example, in evaluation mode. double: of a module that may be changed, in float64."""
    modes = {part: part.training for part in module.modules()}
    args, kwargs = copy.deepcopy((program.example[0], dict(program.example[1])))
    if double:
        module.double()
        args, kwargs = pytree.tree_map(lambda v: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v, (args, kwargs))
    module.eval()
    try:
        with torch.no_grad():
            return tensors_in(module(*args, **kwargs))
    except REFUSALS as failure:
        kind = type(module).__qualname__
        raise PlanError(f"{kind} does not run on the program's example: {str(failure).splitlines()[0]}; use result.save") from failure
    finally:
        module.train(modes[module])
        for part, training in modes.items():
            part.training = training


def _write(model: Any, folder: Path, pruned: Pruned, program: Program) -> None:
    """Save, load what was saved, and only then let the folder appear."""
    dense, host, _ = _pretrained(program)
    expected = _outputs(pruned.model, program)
    with atomic_folder(folder, seal="config.json") as stage:
        model.save_pretrained(stage)
        loaded: Any = type(model).from_pretrained(stage, dtype=model.dtype)
        error = relative_error(_outputs(_with_host(dense, host, loaded), program), expected)
        if error > TOLERANCE:
            raise PlanError(f"{type(model).__qualname__}.from_pretrained changes the outputs (relative error {error:.1e}); use result.save")


def _differs(host: Any, error: float) -> str:
    return (
        f"{type(host.config).__qualname__} can say the shapes of the cut network, but its outputs differ (relative error {error:.1e}): "
        "the model computes something from its widths, such as an attention scale, a mean square or rotary angles; cut heads and MLP "
        "widths only, or use result.save"
    )
