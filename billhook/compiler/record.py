"""From a result to its record: everything that the report shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from billhook.costmodel.machine import this_machine
from billhook.costmodel.statistics import Timing
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.passes.allocate import Front, Solution
from billhook.report.record import AxisRow, Check, FrontPoint, KernelRow, Record, Stage

from .compare import OURS
from .outcome import Outcome
from .stages import peak_memory

PACKAGES = ("billhook", "torch", "apache-tvm", "apache-tvm-ffi", "onnxruntime", "openvino", "numpy", "scipy")
MOST_POINTS = 400  # of the front, in the record
EQUAL = 1e-4  # relative error to which the compiled network equals torch


def make_record(result: Outcome, title: str, **more: Any) -> Record:
    """The record of a compilation; `more` overrides or adds fields (accuracies, seeds, notes, ...)."""
    machine = this_machine(PACKAGES)
    latency, comparison, solution = result.latency, result.comparison, result.fitted.solution
    proof = proof_of(result)
    dense = sum(p.numel() for p in result.program.model.parameters()) if result.program.model is not None else 0
    fields: dict[str, Any] = {
        "title": title,
        "model": result.program.model.__class__.__qualname__ if result.program.model is not None else "",
        "target": str(result.target),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "ours": OURS,
        "budget_s": latency.budget,
        "budget_text": f"{result.budget} of the best dense latency" if result.budget.unit == "share" else str(result.budget),
        "measured_s": latency.measured.seconds,
        "measured_interval_s": (latency.measured.low, latency.measured.high),
        "predicted_s": latency.predicted.seconds,
        "predicted_interval_s": (latency.predicted.low, latency.predicted.high),
        **_runtimes("dense", comparison.dense),
        **_runtimes("pruned", comparison.pruned),
        "allocation_gap": proof.gap,
        "certificate": proof.text,
        "front": front_points(result.front, solution),
        "axes": axis_rows(result.program, result.plan),
        "kernels": kernel_rows(result),
        "peak_gflops": result.peaks.operations / 1e9 if result.peaks is not None else None,
        "peak_gbytes": result.peaks.bandwidth / 1e9 if result.peaks is not None else None,
        "parameters": {"dense": dense, "pruned": sum(p.numel() for p in result.model.parameters())},
        "checks": checks(result),
        "stages": tuple(Stage(name=n, seconds=s) for n, s in result.stages.seconds.items()),
        "notes": notes(result),
        "hit_rate": result.reuse.hit_rate if result.reuse.wanted else None,
        "seconds_total": result.stages.total,
        "peak_rss_bytes": peak_memory(),
        "versions": dict(machine.versions),
        "environment": environment(result),
    }
    return Record(**{**fields, **more})


@dataclass(frozen=True, slots=True)
class Proof:
    """How far from the best the plan can be at most, and why, in one sentence."""

    gap: float
    text: str


def proof_of(result: Outcome) -> Proof:
    """Of the objective that the job had."""
    if result.attained is not None:
        return Proof(result.attained.gap, str(result.attained))
    return Proof(result.fitted.solution.gap, certificate(result.fitted.solution))


def certificate(solution: Solution) -> str:
    """The proof in one sentence."""
    proof = f"no plan within {solution.budget * 1e3:.4f} ms retains more than {solution.bound:.6g}"
    return f"retained {solution.value:.6g}, {proof}: gap {solution.gap:.4%}"


def front_points(front: Front, chosen: Solution) -> tuple[FrontPoint, ...]:
    """The front thinned to what a chart can show; importance as a share of the dense network's."""
    points = front.points
    whole = max((p.value for p in points), default=1.0) or 1.0
    step = max(1, len(points) // MOST_POINTS)
    shown = [FrontPoint(latency_s=p.seconds, retained=p.value / whole) for p in points[::step] if p.seconds > 0]
    shown.append(FrontPoint(latency_s=chosen.seconds, retained=chosen.value / whole, chosen=True))
    return tuple(sorted(shown, key=lambda p: p.latency_s))


def axis_rows(program: Program, plan: Plan) -> tuple[AxisRow, ...]:
    """Every axis before and after."""
    sizes = plan.sizes()
    return tuple(
        AxisRow(
            name=axis.name,
            size=axis.size,
            kept=sizes.get(axis.name, axis.size),
            prunable=axis.prunable,
            frozen_because=str(axis.frozen_because[0]) if axis.frozen_because else "",
        )
        for axis in program.axes
    )


def kernel_rows(result: Outcome) -> tuple[KernelRow, ...]:
    """Every kernel of the build, predicted (timed alone, cold weights) against measured (inside the network)."""
    return tuple(
        KernelRow(
            name=k.name,
            predicted_s=k.predicted.seconds,
            measured_s=k.measured.seconds,
            gflops=k.flops / k.measured.seconds / 1e9 if k.measured.seconds > 0 else None,
            gbytes=k.bytes / k.measured.seconds / 1e9 if k.measured.seconds > 0 else None,
            workload=k.workload,
        )
        for k in result.kernels
    )


def _integer_check(result: Outcome) -> tuple[Check, ...]:
    """In int8: whether the kernels do what integer arithmetic does, up to roundings, which cost about as much the other way round."""
    found, rounding = result.build.kernel_error, result.build.rounding_error
    if found is None or rounding is None:
        return ()
    detail = f"relative error {found:.1e}; integers themselves are {rounding:.1e} from torch"
    return (Check(name="kernels equal integer arithmetic", passed=found <= max(2 * rounding, EQUAL), detail=detail),)


def checks(result: Outcome) -> tuple[Check, ...]:
    """What was verified on the way."""
    error, latency, most = result.build.error, result.latency, result.precision.tolerance
    proof = proof_of(result)
    off = latency.predicted.seconds / latency.measured.seconds - 1
    return (
        Check(
            name="compiled network equals torch",
            passed=error <= most,
            detail=f"relative error {error:.1e}, at most {most:g} in {result.precision.name}",
        ),
        *_integer_check(result),
        Check(
            name="cut network equals the masked one",
            passed=result.oracle_error <= EQUAL,
            detail=f"relative error {result.oracle_error:.1e}",
        ),
        Check(name="prediction", passed=abs(off) <= 0.05, detail=f"predicted {off:+.1%} of measured, at most 5%"),
        Check(name="allocation is optimal", passed=proof.gap <= 1e-3, detail=proof.text),
    )


def notes(result: Outcome) -> tuple[str, ...]:
    """What a reader should know about the numbers."""
    found = [f"round {i + 1}: predicted {r.predicted}, measured {r.measured}" for i, r in enumerate(result.fitted.rounds)]
    found += [f"{name} took no part: {why}" for name, why in result.comparison.absent.items()]
    found += [
        f"{side} {name}: too noisy for a verdict" for side, timings in _sides(result) for name, t in timings.items() if t.verdict != "ok"
    ]
    if result.noisy_kernels:
        found.append(f"{result.noisy_kernels} of {result.reuse.wanted} kernels: too noisy, so the predictions with them are uncertain")
    found += sparse_notes(result)
    if result.program.factored:
        found.append(f"layers that became two of lower rank, by weight: {', '.join(result.program.factored)}")
    found += [str(limit) for limit in (result.memory, result.weights) if limit is not None]
    if result.pruned.why_graph:
        found.append(f"the pruned network is a graph: {result.pruned.why_graph}")
    return (*found, f"calibration: {result.fitted.calibration}", f"database: {result.reuse}")


def sparse_notes(result: Outcome) -> list[str]:
    """How many layers are sparse, and which columns they keep, if any could be. The front and its proof are those of the widths."""
    sparse, parameters = result.sparse, dict(result.model.named_parameters())
    if not sparse.layers:
        return []
    kept = ", ".join(f"{n} {p.kept / parameters[n][0].numel():.0%}" for n, p in sparse.chosen.items())
    return [f"{len(sparse.chosen)} of {sparse.layers} layers are sparse, and the front is of widths alone; columns kept: {kept or 'all'}"]


def environment(result: Outcome) -> dict[str, str]:
    """The processor that measured, and the machine that compiled, as text."""
    machine = this_machine()
    facts = {"cpu": result.processor, "cores": str(machine.cores), "threads": str(result.target.threads), "system": machine.system}
    return facts | {"load": f"{machine.load:.1f}" if machine.load is not None else "unknown", "governor": machine.governor or "unknown"}


def _sides(result: Outcome) -> tuple[tuple[str, Mapping[str, Timing]], ...]:
    return ("dense", result.comparison.dense), ("pruned", result.comparison.pruned)


def _runtimes(side: str, timings: Mapping[str, Timing]) -> dict[str, Any]:
    return {
        f"{side}_s": {name: t.latency.seconds for name, t in timings.items()},
        f"{side}_interval_s": {name: (t.latency.low, t.latency.high) for name, t in timings.items()},
    }
