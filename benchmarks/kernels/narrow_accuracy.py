"""What narrow kernels cost in accuracy: the demo's trained network in every precision, on its test pictures.

python -m benchmarks.kernels.narrow_accuracy writes results/kernels/accuracy-<machine>-<date>.json. The network is trained first, unless an
earlier run of the demo left its weights in the cache. int8 is calibrated with training pictures.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from billhook.codegen.host import host_target
from billhook.compiler.engine import Engine
from billhook.compiler.precision import PRECISIONS
from billhook.costmodel.machine import this_machine
from billhook.demo import data, net
from billhook.demo.run import trained
from billhook.ir.capture import capture
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.progress import no_progress
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph

from .record import HOME, PACKAGES, ROWS, slug


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels.narrow_accuracy", description=__doc__)
    parser.add_argument("--cache", type=Path, default=ROWS.parent, help="where the trained weights are kept")
    parser.add_argument("--database", type=Path, default=ROWS.with_name("kernels.db"), help="measurements of kernels to reuse and extend")
    options = parser.parse_args()
    train, test = data.two_digits()
    model = trained(train, options.cache, no_progress)
    with torch.no_grad():
        real = model(test.pictures)
    rows = [_row("torch float32", real, real, test)]
    rows += [row(name, model, train, test, options.database, real) for name in PRECISIONS]
    machine = this_machine(PACKAGES)
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    environment = {"date": date, **asdict(machine), "versions": dict(machine.versions)}
    path = HOME / f"accuracy-{slug(machine)}-{date}.json"
    path.write_text(json.dumps({"environment": environment, "pictures": len(test), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(path, *rows, sep="\n")
    return 0


def row(name: str, model: nn.Module, train: data.Pictures, test: data.Pictures, database: Path, real: torch.Tensor) -> dict[str, Any]:
    """The row of our build in one precision, picture by picture."""
    example = train.pictures[:1]
    program, _ = run_passes(capture(model, (example,), {}), ANALYSIS)
    with Engine(host_target(1), database, no_progress, precision=name, data=train.loader(32)) as engine:
        build = engine.build(cut_graph(program, Plan({})), program.example)
    run: Callable[[torch.Tensor], torch.Tensor] = lambda x: build.artifact.run(x)[0]  # noqa: E731
    found = torch.cat([run(picture[None]) for picture in test.pictures])
    return {**_row(name, found, real, test), "rounding_error": build.rounding_error, "kernel_error": build.kernel_error}


def _row(name: str, found: torch.Tensor, real: torch.Tensor, test: data.Pictures) -> dict[str, Any]:
    """Share of numbers read right, negative log-likelihood in nats, share of answers that are torch's, largest relative error."""
    answers = found.argmax(1)
    return {
        "precision": name,
        "accuracy": float((answers == test.numbers).float().mean()),
        "nll": float(F.cross_entropy(found, test.numbers)),
        "agreement": float((answers == real.argmax(1)).float().mean()),
        "error": float((found - real).abs().max() / real.abs().max()),
        "classes": net.CLASSES,
    }


if __name__ == "__main__":
    sys.exit(main())
