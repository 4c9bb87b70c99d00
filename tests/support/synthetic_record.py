"""A record like those of real runs, made of a formula: for tests of the report."""

import math
from typing import Any

STAGES = (
    ("train dense", 61.0),
    ("trace and axes", 4.2),
    ("measure kernels", 48.5),
    ("allocate", 0.8),
    ("cut and fine-tune", 71.3),
    ("build", 22.4),
    ("measure", 41.0),
    ("uniform baseline", 38.1),
)


def synthetic_record() -> dict[str, Any]:
    """Every key of the record, as JSON would hold it."""
    return {
        "schema_version": 1,
        "title": "Billhook demo",
        "model": "resnet on two noisy digits",
        "target": "llvm:znver4, 1 thread",
        "created": "2026-11-21 09:31",
        "seeds": [0, 1, 2],
        "allocation_gap": 0.00031,
        "certificate": "Lagrangian bound",
        "front": [
            {"latency_s": 0.0012 + 0.0107 * i / 47, "retained": 1 - math.exp(-4.2 * (i + 2) / 49), "chosen": i == 20} for i in range(48)
        ],
        "axes": _axes(),
        "kernels": _kernels(),
        "peak_gflops": 120.0,
        "peak_gbytes": 10.0,
        "parameters": {"dense": 2_778_000, "pruned": 741_000},
        "checks": [
            {"name": "Reloading the saved result is bit-equal", "passed": True},
            {"name": "Compiled output equals torch", "passed": True, "detail": "largest relative error 3.1e-6, allowed 1e-4"},
            {"name": "C++ runner gives the same output", "passed": True, "detail": "0 of 10 values differ"},
        ],
        "stages": [{"name": name, "seconds": seconds} for name, seconds in STAGES],
        "notes": ["The machine was shared: intervals are wider than on a quiet one."],
        "seconds_total": 287.3,
        "peak_rss_bytes": 2_190_000_000,
        "versions": {"billhook": "0.1.0", "torch": "2.13.0+cpu", "apache-tvm": "0.27.0.post1", "openvino": "2026.4.1"},
        "environment": {"processor": "AMD EPYC 9B14", "cores": "2", "system": "Linux 6.1", "python": "3.11.7"},
        **_latency(),
        **_accuracy(),
    }


def _latency() -> dict[str, Any]:
    dense = {"billhook": 0.01184, "openvino": 0.01241, "onnxruntime": 0.01322, "torch.compile": 0.01633, "torch eager": 0.01795}
    pruned = {"billhook": 0.00581, "openvino": 0.00742, "onnxruntime": 0.00765, "torch.compile": 0.00911, "torch eager": 0.01102}
    return {
        "budget_s": 0.00592,
        "budget_text": "50% of the best dense runtime",
        "measured_s": 0.00581,
        "predicted_s": 0.00569,
        "measured_interval_s": [0.00577, 0.00589],
        "dense_s": dense,
        "pruned_s": pruned,
        "dense_interval_s": {name: [s * 0.985, s * (1.02 + 0.01 * i)] for i, (name, s) in enumerate(dense.items())},
        "pruned_interval_s": {name: [s * 0.985, s * (1.02 + 0.01 * i)] for i, (name, s) in enumerate(pruned.items())},
    }


def _accuracy() -> dict[str, Any]:
    accuracy = {"dense": [0.947, 0.951, 0.944], "pruned": [0.942, 0.947, 0.943], "uniform": [0.931, 0.938, 0.926]}
    nll = {"dense": [0.171, 0.166, 0.178], "pruned": [0.183, 0.176, 0.186], "uniform": [0.221, 0.209, 0.232]}
    return {
        "accuracy": {name: sum(v) / 3 for name, v in accuracy.items()},
        "nll": {name: sum(v) / 3 for name, v in nll.items()},
        "accuracy_by_seed": accuracy,
        "nll_by_seed": nll,
        "contender_s": {"dense": 0.01184, "pruned": 0.00581, "uniform": 0.00583},
    }


def _axes() -> list[dict[str, Any]]:
    axes: list[dict[str, Any]] = []
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            kept = 8 * round(width * (0.85 - 0.13 * stage + 0.08 * block) / 8)
            axes.append({"name": f"layer{stage}.{block}.conv1.out", "size": width, "kept": kept})
        axes.append({"name": f"layer{stage}.residual", "size": width, "kept": 8 * round(width * 0.6 / 8)})
    axes.append(
        {"name": "input.channels", "size": 3, "kept": 3, "prunable": False, "frozen_because": "a program input (placeholder, node x)"}
    )
    axes.append({"name": "fc.out", "size": 10, "kept": 10, "prunable": False, "frozen_because": "a program output (node linear)"})
    return axes


def _kernels() -> list[dict[str, Any]]:
    kernels: list[dict[str, Any]] = []
    for index in range(20):
        measured = 2.6e-5 * 1.21 ** (index % 13) * (1 + 0.05 * (index % 4))
        predicted = measured * (1 + 0.06 * math.sin(3.7 * index))
        kernels.append(
            {
                "name": f"layer{1 + index // 5}.{index % 2}.conv{1 + index % 3}",
                "predicted_s": predicted,
                "measured_s": measured,
                "gflops": 90.0 + index,
                "gbytes": 9.0 - 0.4 * index,
            }
        )
    return kernels
