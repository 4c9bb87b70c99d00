"""Block column sparsity measured against our best dense kernel, on this machine's processor, and statically for arm64.

python -m benchmarks.arm64.sparse [kernels] [networks] [record]     # by default all of them
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import billhook.api as bh
from benchmarks.networks import Named
from benchmarks.rows import Row, Rows, write_record
from billhook.codegen.arm.timer import CYCLE
from billhook.codegen.backend import backend_of, target_named
from billhook.compiler.block_sparse import prune_blocks
from billhook.compiler.engine import Engine
from billhook.costmodel.statistics import interleave
from billhook.ir.block_sparse import BlockPattern
from billhook.ir.plan import Plan
from billhook.ir.progress import no_progress
from billhook.ir.target import Target
from billhook.ir.workload import Call, Ref, TensorType, Workload
from billhook.passes.block_sparsity import ROWS, SHARES, sparse_workload
from billhook.passes.cut import cut_graph

OUT = Path("out") / "sparse"
_NOTE = (
    "kernels and networks are measured on the processor named in the environment, one thread; dense is our fastest dense kernel, "
    "Winograd included. Kernels of arm64 are static cycles (llvm-mca, hottest loop only, no Winograd), no time. Networks have random "
    "weights: their patterns are chosen by what is left out of the squared norm, and nothing is said about accuracy."
)
# (input channels, output channels, pixels of a side, taps of a side, stride), and (rows, inputs, outputs) of linear layers
CONVOLUTIONS = (
    *((64, 64, 28, 3, 1), (128, 128, 14, 3, 1), (256, 256, 7, 3, 1), (64, 128, 28, 3, 2)),
    *((256, 64, 14, 1, 1), (64, 256, 14, 1, 1), (144, 24, 28, 1, 1)),
)
LINEAR = ((64, 256, 1024), (197, 768, 768), (1, 512, 1024))
NETWORKS = (("resnet18", 64, 0.6),)  # pixels, share of the dense time


def main(parts: list[str]) -> None:
    """Run what is missing of the named parts."""
    rows = Rows(OUT / "rows.jsonl", ("part", "name", "share"))
    for part in parts or ["kernels", "networks", "record"]:
        if part == "kernels":
            for name, dense in workloads("llvm").items():
                if rows.find(part="kernel", name=name, share=SHARES[-1]) is None:
                    for row in kernel_rows(name, dense):
                        rows.add(row)
                        print(row, flush=True)
        elif part == "networks":
            for name, pixels, share in NETWORKS:
                if rows.find(part="network", name=name, share=share) is None:
                    rows.add(row := network_row(name, pixels, share))
                    print(row, flush=True)
        elif part == "record":
            print(write_record("block_sparse", summary(rows.read()), rows.read(), note=_NOTE))
        else:
            raise SystemExit(f"no part is called {part}; choose kernels, networks or record")


def workloads(target_name: str) -> dict[str, Workload]:
    """The dense kernels by name, in the layout of a target."""
    target = target_named(target_name)
    found = {f"{k}x{k} {c}->{n} at {h}" + (f" stride {s}" if s > 1 else ""): _conv(target, c, n, h, k, s) for c, n, h, k, s in CONVOLUTIONS}
    return found | {f"linear {m}x{k}->{n}": _linear(m, k, n) for m, k, n in LINEAR}


def _conv(target: Target, source: int, goal: int, size: int, window: int, stride: int) -> Workload:
    pad = window // 2
    out = (size + 2 * pad - window) // stride + 1
    x = TensorType((1, source, size, size), block=target.channel_block(source))
    call = Call("aten.conv2d.default", (Ref(0), Ref(1), Ref(2), (stride, stride), (pad, pad), (1, 1), 1))
    y = TensorType((1, goal, out, out), block=target.channel_block(goal))
    weight = TensorType((goal, source, window, window))
    relu = Call("aten.relu.default", (Ref(3),))
    return Workload((x, weight, TensorType((goal,))), ("activation", "parameter", "parameter"), (call, relu), y)


def _linear(rows: int, depth: int, width: int) -> Workload:
    call = Call("aten.linear.default", (Ref(0), Ref(1), Ref(2)))
    types = TensorType((rows, depth)), TensorType((width, depth)), TensorType((width,))
    return Workload(types, ("activation", "parameter", "parameter"), (call,), TensorType((rows, width)))


def kernel_rows(name: str, dense: Workload) -> list[Row]:
    """The dense kernel and each sparse one: seconds on this processor, static cycles on arm64."""
    measured = {share: _fastest("llvm", _at(dense, share)) for share in (1.0, *SHARES)}
    static = {share: _fastest("arm64", _at(workloads("arm64")[name], share)) for share in (1.0, *SHARES)}
    return [
        {
            "part": "kernel",
            "name": name,
            "share": share,
            "candidate": str(found.candidate),
            "seconds": found.latency.seconds,
            "low": found.latency.low,
            "high": found.latency.high,
            "provenance": found.latency.provenance,
            "speedup": measured[1.0].latency.seconds / found.latency.seconds,
            "arm64_static_cycles": round(static[share].latency.seconds / CYCLE),
        }
        for share, found in measured.items()
    ]


def _at(dense: Workload, share: float) -> Workload:
    weight = dense.inputs[1]
    columns = weight.elements // weight.shape[0]
    return dense if share == 1 else sparse_workload(dense, BlockPattern(ROWS, max(1, round(share * columns))))


def _fastest(target_name: str, workload: Workload) -> Any:
    target = target_named(target_name)
    backend = backend_of(target)
    timer = backend.timer(target, None)
    try:
        return timer.measure_candidates(workload, backend.candidates(workload, target))
    finally:
        timer.close()


def network_row(name: str, pixels: int, share: float) -> Row:
    """A network made sparse until its kernels take `share` of their time: predicted, and both builds measured in turns."""
    torch.manual_seed(0)
    model, x = Named(name, pixels).load()
    program = bh.trace(model, x)
    with tempfile.TemporaryDirectory() as folder, Engine(target_named("llvm"), Path(folder, "k.db"), no_progress) as engine:
        found = prune_blocks(program, engine, share, F.cross_entropy)
        dense = engine.build(cut_graph(program, Plan({})), program.example)
        timing = interleave({"dense": dense.artifact.bind(x), "sparse": found.build.artifact.bind(x)})
    layers = {o.layer.parameter: {"prices": [p.seconds for p in o.prices]} for o in found.offers}
    return {
        "part": "network",
        "name": name,
        "share": share,
        "pixels": pixels,
        "layers": len(layers),
        "sparse_layers": {n: p.kept / program.model.get_parameter(n)[0].numel() for n, p in found.chosen.items() if program.model},
        "relative_error": found.build.error,
        "kernels_dense": found.dense.seconds,
        "kernels_sparse": found.predicted.seconds,
        **{f"{n}_seconds": t.latency.seconds for n, t in timing.items()},
        **{f"{n}_interval": [t.latency.low, t.latency.high] for n, t in timing.items()},
        "provenance": "host",
    }


def summary(rows: list[Row]) -> dict[str, Any]:
    """Speed-ups by share, least to most, and what networks gain."""
    kernels = [r for r in rows if r["part"] == "kernel"]
    by_share = {s: sorted((r["speedup"], r["name"]) for r in kernels if r["share"] == s) for s in SHARES}
    return {
        "speedup": {f"{s:.0%} of the columns": {n: round(x, 2) for x, n in found} for s, found in by_share.items()},
        "slower_than_dense": [f"{n} at {s:.0%}" for s, found in by_share.items() for x, n in found if x < 1],
        "networks": {
            r["name"]: {
                "asked": r["share"],
                "measured": round(r["sparse_seconds"] / r["dense_seconds"], 3),
                "predicted": round(r["kernels_sparse"] / r["kernels_dense"], 3),
                "sparse_layers": f"{len(r['sparse_layers'])} of {r['layers']}",
                "relative_error": r["relative_error"],
            }
            for r in rows
            if r["part"] == "network"
        },
    }


if __name__ == "__main__":
    main(sys.argv[1:])
