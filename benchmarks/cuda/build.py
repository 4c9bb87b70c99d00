"""Building the programs, where TVM and nvcc are: a folder per case, and what can be said of it without a GPU."""

import json
import time
from pathlib import Path
from typing import Any

from safetensors.torch import save_model

from billhook.codegen.cuda.build import Built, build
from billhook.costmodel.partition import partition
from billhook.costmodel.work import kernel_bytes, kernel_flops
from billhook.ir.plan import Plan
from billhook.ir.target import Target
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference

from .cases import Case, build_model

TARGET = Target(kind="cuda", mcpu="sm_90")


def build_case(case: Case, load: Any, home: Path) -> dict[str, Any]:
    """Build one case into `home`/case and return its static row."""
    model, program = build_model(case, load)
    network = partition(normalise_for_inference(cut_graph(program, Plan({})), program.example), TARGET).network
    started = time.perf_counter()
    built = build(network, TARGET)
    seconds = time.perf_counter() - started
    folder = home / str(case)
    built.program.save(folder)
    save_model(model, str(folder / "model.safetensors"))
    workloads = [k.workload for k in network.kernels]
    row = {
        "case": str(case),
        "build_seconds": round(seconds, 1),
        "kernels": len(workloads),
        "distinct_workloads": len(set(workloads)),
        "gflop": round(sum(kernel_flops(w) for w in workloads) / 1e9, 3),
        "gigabytes": round(sum(kernel_bytes(w) for w in workloads) / 1e9, 4),
        **_static(built),
    }
    (folder / "row.json").write_text(json.dumps(row, indent=1) + "\n")
    return row


def _static(built: Built) -> dict[str, Any]:
    program, usage = built.program, built.usage.values()
    return {
        "launches": len(program.launches),
        "arena_bytes": program.arena_bytes,
        "constant_bytes": sum(c.nbytes for c in program.constants.values()),
        "image_bytes": len(program.image),
        "architectures": list(program.architectures),
        "registers_max": max(u["registers"] for u in usage),
        "spilled_bytes_max": max(u["spilled_bytes"] for u in usage),
        "blocks_min": min(g[0] * g[1] * g[2] for g in (n.grid for n in program.launches)),
    }
