"""Measuring on a GPU: ours and the peers in turns, by CUDA events, each checked against float64 on the host first."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as _safetensors

from billhook.codegen.cuda.driver import Driver
from billhook.codegen.cuda.program import load_program
from billhook.codegen.cuda.session import Session
from billhook.ir.errors import BillhookError

from .cases import Case, build_model
from .peers import PEERS, Run, prepare

ROUNDS = 15  # turns; in each, every contestant is timed over several inferences
_SECONDS = 0.02  # of device work per turn and contestant
_TOLERANCE = {"float32": 1e-4, "tf32": 5e-3, "float16": 2e-2, "bfloat16": 1e-1}

safetensors: Any = _safetensors
Timed = Callable[[int], list[float]]


def measure_case(case: Case, load: Any, home: Path, driver: Driver) -> list[dict[str, Any]]:
    """Rows of one case: seconds per inference (median of the turns, quartiles), error relative to float64, or why there is none."""
    model, _ = build_model(case, load)
    folder = home / str(case)
    safetensors.load_model(model, str(folder / "model.safetensors"))
    x = torch.randn(case.batch, 3, 224, 224)
    with torch.no_grad():
        exact = model.double()(x.double())
    model.float()
    contestants: dict[str, Timed] = {}
    rows: dict[str, dict[str, Any]] = {}
    with Session(load_program(folder), driver) as session:
        error = _error(session.run(x)[0], exact)
        for name, graph in (("billhook float32 graph", True), ("billhook float32 launches", False)):
            rows[name] = _row(case, name, error, _TOLERANCE["float32"])
            contestants[name] = lambda n, graph=graph: session.time(n, graph=graph)
        for peer in PEERS:
            try:
                run, output = prepare(peer, model, x)
            except (RuntimeError, BillhookError) as failure:
                rows[str(peer)] = {"case": str(case), "name": str(peer), "failed": str(failure).splitlines()[0][:200]}
                continue
            rows[str(peer)] = _row(case, str(peer), _error(output, exact), _TOLERANCE[peer.precision])
            contestants[str(peer)] = lambda n, run=run: _timed(run, n)
        for name, times in _in_turns(contestants).items():
            low, middle, high = statistics.quantiles(times, n=4)
            rows[name] |= {"seconds": middle, "low": low, "high": high, "best": min(times)}
    return list(rows.values())


def _row(case: Case, name: str, error: float, tolerance: float) -> dict[str, Any]:
    return {"case": str(case), "name": name, "error": error, "correct": error <= tolerance}


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Norm of the difference relative to the norm of the reference; infinite for NaN."""
    error = float(((found.double() - exact).square().sum() / exact.square().sum()).sqrt())
    return error if error == error else float("inf")


def _in_turns(contestants: dict[str, Timed]) -> dict[str, list[float]]:
    """Mean seconds of an inference in each turn."""
    repeats = {name: max(3, int(_SECONDS / max(statistics.median(run(5)), 1e-6))) for name, run in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            times[name].append(statistics.mean(run(repeats[name])))
    return times


def _timed(run: Run, repeats: int) -> list[float]:
    """Seconds of each inference by CUDA events."""
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, end in events:
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in events]
