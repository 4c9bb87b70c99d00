"""One row: a model cut at half of every prunable axis, partitioned into kernels, built without tuning, and compared with torch."""

import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from billhook.codegen import lower
from billhook.codegen.build import build
from billhook.codegen.cpu.candidate import Candidate
from billhook.codegen.generic import NAME as GENERIC
from billhook.codegen.host import host_target
from billhook.costmodel.partition import partition
from billhook.ir.capture import capture
from billhook.ir.errors import BillhookError
from billhook.ir.network import Network
from billhook.ir.passes import run_passes
from billhook.ir.plan import make_plan
from billhook.ir.target import Target
from billhook.ir.tensors import tensors_in
from billhook.ir.workload import Workload
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.oracle import relative_error

from .case import Case
from .measure import finite, half, outputs, precise, settle
from .support import cheap_construction, redraw

TOLERANCE = 1e-3  # float32, relative to the largest output: random networks amplify differences of rounding
NOT_TRIED = "not tried: time"


@dataclass
class CompiledRow:
    """What is known of one model's build. templates, generic: kernels with a template, and with TVM's own lowering."""

    set: str
    model: str
    stage: str = "cut"
    compiled: str = NOT_TRIED
    error: str = ""
    kernels: int = 0
    templates: int = 0
    generic: int = 0
    generic_anchors: dict[str, int] = field(default_factory=dict[str, int])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    relative_error: float = math.inf
    compile_s: float = 0.0


def line_of(row: Mapping[str, Any]) -> str:
    """A row in one line."""
    return f"{row['compiled']} {row['error'][:200]}; {row['kernels']} kernels, {row['generic']} generic, error {row['relative_error']:.1e}"


def compile_row(case: Case, row: CompiledRow, reached: Callable[[], None]) -> None:
    """Fill the row, stage by stage; what a stage raises is the caller's to record."""
    graph, args, kwargs = _cut_network(case)
    row.stage = "partition"
    row.compiled = "no: it cannot be partitioned"
    started, target = time.process_time(), host_target()
    network = partition(normalise_for_inference(graph, (args, kwargs)), target).network
    row.compiled, row.stage = NOT_TRIED, "build"
    choices = _choices(network, target, row)
    reached()
    _lower_generic(choices, target, row)
    if row.refused:
        row.compiled = "no: " + "; ".join(f"{op}: {why}" for op, why in row.refused.items())
        return
    reached()
    row.compiled = "no: it cannot be built"
    artifact = build(network, choices, target)
    row.compile_s, row.stage = time.process_time() - started, "run"
    row.compiled = "no: it does not run"
    inputs = tensors_in((args, kwargs))
    with torch.no_grad():
        expected = tensors_in(graph(*args, **kwargs))
    row.relative_error = relative_error(list(artifact.run(*inputs)), expected)
    row.compiled, row.stage = "yes" if row.relative_error < TOLERANCE else "no: outputs differ from torch's", "done"


def _cut_network(case: Case) -> tuple[fx.GraphModule, tuple[Any, ...], Mapping[str, Any]]:
    """The network of the coverage suite in float32, cut at half, in evaluation mode, and its example."""
    with cheap_construction():
        model, (args, kwargs) = case.build()
    redraw(model)
    model = model.float().eval()
    settle(model, args, kwargs, _stable)
    program, _ = run_passes(capture(model, args, kwargs), ANALYSIS)
    return cut_graph(program, make_plan(program, half(program))).eval(), args, kwargs


def _stable(model: torch.nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether the network does not amplify rounding, as untrained deep ones may: torch in float32 agrees with torch in float64."""
    if not finite(model, args, kwargs):
        return False
    wide, wide_args, wide_kwargs, _ = precise(copy.deepcopy(model), args, dict(kwargs))
    return relative_error(outputs(model, args, kwargs), outputs(wide, wide_args, wide_kwargs)) < TOLERANCE / 10


def _choices(network: Network, target: Target, row: CompiledRow) -> dict[Workload, Candidate]:
    """The statically most promising kernel of every workload; those without any are refused by name."""
    choices: dict[Workload, Candidate] = {}
    anchors: Counter[str] = Counter()
    for kernel in network.kernels:
        if kernel.workload not in choices:
            found = lower.candidates(kernel.workload, target)
            if not found:
                types = ", ".join(map(str, (*kernel.workload.inputs, kernel.workload.output)))
                row.refused[kernel.workload.anchor.op] = f"no kernel for {types}"[:200]
                continue
            choices[kernel.workload] = found[0]
        if choices[kernel.workload].template == GENERIC:
            anchors[kernel.workload.anchor.op] += 1
    row.kernels, row.generic = len(network.kernels), sum(anchors.values())
    row.templates = sum(k.workload in choices for k in network.kernels) - row.generic
    row.generic_anchors = dict(anchors.most_common())
    return choices


def _lower_generic(choices: Mapping[Workload, Candidate], target: Target, row: CompiledRow) -> None:
    """Import what has no template, so that a refusal names its operator instead of the network."""
    for workload, chosen in choices.items():
        if chosen.template == GENERIC:
            try:
                lower.lower(workload, chosen, target)
            except BillhookError as failure:
                row.refused[workload.anchor.op] = str(failure)[:200]
