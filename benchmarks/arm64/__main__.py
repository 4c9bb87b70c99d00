"""Cross-compile networks for arm64, run their bundles under qemu, estimate widths statically, and write the record.

python -m benchmarks.arm64 [NETWORK ...] [--processor cortex-a76]     # cnn, vit, demo, or one of torchvision's
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, Rows, write_record
from benchmarks.target_cases import FORMS, prepare
from billhook.codegen.arm.timer import CYCLE
from billhook.codegen.backend import backend_of, target_named
from billhook.codegen.bundle import BundleContent, verify, write_bundle
from billhook.codegen.bundle_vector import TestVector
from billhook.ir.plan import Plan
from billhook.ir.workload import Call, Ref, TensorType, Workload

ROWS = Path("out") / "arm64" / "rows.jsonl"
_NOTE = "executed under qemu-user: results count, times do not; cycles are static estimates (llvm-mca), which order widths and tiles"
_WIDTHS = (32, 40, 44, 48, 52, 56, 60, 64)


def main() -> int:
    """Run what is missing, then write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arm64", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["cnn", "vit", "resnet18"])
    parser.add_argument("--processor", default="cortex-a76")
    options = parser.parse_args()
    rows = Rows(ROWS, ("model", "form", "processor"))
    for name in options.networks:
        for form in FORMS:
            if rows.find(model=name, form=form, processor=options.processor) is None:
                rows.add(row := run(name, form, options.processor))
                print(row, flush=True)
    print(write_record("arm64", summary(rows.read()), rows.read(), note=_NOTE, widths=widths(options.processor)))
    return 0


def run(name: str, form: str, processor: str) -> Row:
    """One network: the error of its bundle under emulation, and its kernels' static estimate in cycles."""
    target = target_named(f"arm64:{processor}")
    backend = backend_of(target)
    given = prepare(name, form, target)
    begun = time.perf_counter()
    timer = backend.timer(target, None)
    found = {
        w: timer.measure_candidates(w, backend.candidates(w, target)) for w in dict.fromkeys(k.workload for k in given.network.kernels)
    }
    built = backend.build(given.network, {w: m.candidate for w, m in found.items()}, target)
    with tempfile.TemporaryDirectory(prefix="billhook-") as folder:
        vector = TestVector((given.inputs.numpy(),), (given.expected.numpy(),))
        write_bundle(Path(folder, "b"), BundleContent(built, target, given.program, Plan({}), given.model, vector))
        error = verify(Path(folder, "b")).max_relative_error
    return {
        "model": name,
        "form": form,
        "processor": processor,
        "kernels": len(given.network.kernels),
        "relative_error": error,
        "static_cycles": round(sum(found[k.workload].latency.seconds for k in given.network.kernels) / CYCLE),
        "prepare_seconds": round(time.perf_counter() - begun, 1),
    }


def widths(processor: str) -> list[dict[str, Any]]:
    """Static cycles of one 3x3 convolution of 64 channels on 28x28 at several output widths, with the tile that the estimate prefers."""
    target = target_named(f"arm64:{processor}")
    backend = backend_of(target)
    timer = backend.timer(target, None)
    rows: list[dict[str, Any]] = []
    for width in _WIDTHS:
        source, goal = (TensorType((1, channels, 28, 28), block=target.channel_block(channels)) for channels in (64, width))
        call = Call("aten.conv2d.default", (Ref(0), Ref(1), None, (1, 1), (1, 1), (1, 1), 1))
        workload = Workload((source, TensorType((width, 64, 3, 3))), ("activation", "parameter"), (call,), goal)
        best = timer.measure_candidates(workload, backend.candidates(workload, target))
        rows.append({"width": width, "static_cycles": round(best.latency.seconds / CYCLE), "candidate": str(best.candidate)})
    return rows


def summary(rows: list[Row]) -> dict[str, Any]:
    """What the record is judged by."""
    return {
        "max_relative_error": max((r["relative_error"] for r in rows), default=None),
        "models": sorted({f"{r['model']} {r['form']}" for r in rows}),
        "executed": "qemu-user",
    }


if __name__ == "__main__":
    raise SystemExit(main())
