"""Tune, build, bundle and run networks on the local OpenCL device, and write the record.

python -m benchmarks.opencl [NETWORK ...] [--trials tuned|static]     # cnn, vit, demo, or one of torchvision's
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, Rows, write_record
from benchmarks.target_cases import FORMS, Prepared, prepare, relative_error
from billhook.codegen.backend import backend_of, target_named
from billhook.codegen.bundle import BundleContent, verify, write_bundle
from billhook.codegen.bundle_vector import TestVector
from billhook.codegen.cpu.candidate import Candidate
from billhook.codegen.opencl.artifact import OpenClArtifact
from billhook.codegen.opencl.devices import is_processor, local_device
from billhook.codegen.opencl.host_parts import build_host
from billhook.costmodel.statistics import interleave
from billhook.ir.plan import Plan
from billhook.ir.target import Target
from billhook.ir.workload import Workload

ROWS = Path("out") / "opencl" / "rows.jsonl"
_NOTE = "host-measured on PoCL: OpenCL on this machine's processor; says nothing about a GPU"


def main() -> int:
    """Run what is missing, then write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.opencl", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["cnn", "vit", "resnet18"])
    parser.add_argument("--trials", choices=["tuned", "static"], default="tuned", help="time candidates, or take the first one")
    options = parser.parse_args()
    rows = Rows(ROWS, ("model", "form"))
    for name in options.networks:
        for form in FORMS:
            if rows.find(model=name, form=form) is None:
                rows.add(row := run(name, form, tuned=options.trials == "tuned"))
                print(row, flush=True)
    print(write_record("opencl", summary(rows.read()), rows.read(), note=_note(), device=str(local_device().name)))
    return 0


def run(name: str, form: str, *, tuned: bool) -> Row:
    """One network: errors through Python and through the C++ host, launches, and the latency where the machine gives one."""
    target = target_named("opencl")
    given = prepare(name, form, target)
    begun = time.perf_counter()
    choices, rejected = choose(given, target, tuned=tuned)
    built = backend_of(target).build(given.network, choices, target)
    assert isinstance(built, OpenClArtifact)
    row: Row = {"model": name, "form": form, "tuned": tuned, "workloads": len(choices), "rejected_candidates": rejected}
    row |= {"launches": len(built.program.launches), "arena_bytes": built.program.arena_bytes, "local_bytes": built.program.local_bytes}
    row |= {"prepare_seconds": round(time.perf_counter() - begun, 1)}
    row["relative_error"] = relative_error(built.run(given.inputs)[0], given.expected)
    row["host_relative_error"] = host_error(built, given, target)
    timing = interleave({"ours": built.bind(given.inputs)})["ours"]
    row |= {"seconds": timing.latency.seconds, "low": timing.latency.low, "high": timing.latency.high, "latency_is": _note()}
    return row


def choose(given: Prepared, target: Target, *, tuned: bool) -> tuple[dict[Workload, Candidate], int]:
    """The fastest candidate of every workload, or the statically first; and how many were rejected as wrong, slow or not built."""
    backend = backend_of(target)
    workloads = dict.fromkeys(k.workload for k in given.network.kernels)
    if not tuned:
        return {w: backend.candidates(w, target)[0] for w in workloads}, 0
    timer = backend.timer(target, None)
    try:
        found = [timer.measure_candidates(w, backend.candidates(w, target)) for w in workloads]
    finally:
        timer.close()
    return {m.workload: m.candidate for m in found}, sum(len(m.rejected) for m in found)


def host_error(built: OpenClArtifact, given: Prepared, target: Target) -> float:
    """Error of the C++ host on the bundle, as it prints it."""
    with tempfile.TemporaryDirectory(prefix="billhook-") as folder:
        bundle = Path(folder, "bundle")
        vector = TestVector((given.inputs.numpy(),), (given.expected.numpy(),))
        write_bundle(bundle, BundleContent(built, target, given.program, Plan({}), given.model, vector))
        assert verify(bundle).ok
        host = build_host(bundle, Path(folder, "build"))
        done = subprocess.run([str(host), str(bundle)], capture_output=True, text=True, check=True)
        return float(done.stdout.split("max relative error ")[1].split(",")[0])


def summary(rows: list[Row]) -> dict[str, Any]:
    """What the record is judged by."""
    errors = [max(r["relative_error"], r["host_relative_error"]) for r in rows]
    return {
        "max_relative_error": max(errors, default=None),
        "models": sorted({f"{r['model']} {r['form']}" for r in rows}),
        "rejected_candidates": sum(r["rejected_candidates"] for r in rows),
    }


def _note() -> str:
    return _NOTE if is_processor(local_device()) else "device: the GPU's own clock"


if __name__ == "__main__":
    raise SystemExit(main())
