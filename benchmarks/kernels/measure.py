"""One case: build ours from measured kernels, build the peers, time all in turns, and profile our kernels."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from billhook.codegen.host import host_target
from billhook.compiler.compare import OURS, KernelTime, kernel_times, quiet
from billhook.compiler.engine import Build, Engine
from billhook.compiler.pipeline import Compiler, make_job
from billhook.costmodel.statistics import Rounds, Timing, interleave
from billhook.ir.capture import capture
from billhook.ir.grids import QUINT8
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.program import Program
from billhook.ir.progress import Progress
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.precision import BFLOAT16, precision_of
from billhook.peers import Absent, Subject, build_peer

from .case import DENSE, PRECISIONS, Case
from .quantised import INT8_PEERS, QuantisedSubject, build_quantised

PEERS = ("torch eager", "torch eager channels-last", "torch.compile", "ONNX Runtime", "OpenVINO")
REDUCED_PEERS = ("OpenVINO", "OpenVINO default precision")  # those that have a reduced precision, and the same in float32
PEERS_OF = {"fp32": PEERS, "bf16": REDUCED_PEERS, "int8": (*REDUCED_PEERS, *INT8_PEERS)}
BUDGET = 0.5  # of our dense latency: what a pruned network is cut to
ROUNDS = Rounds(statistic="minimum")  # whatever else runs on the machine only ever adds time


def measure(case: Case, database: Path, peers: tuple[str, ...], progress: Progress, rounds: Rounds = ROUNDS) -> dict[str, Any]:
    """The record's row of a case. Building ours includes choosing among candidates by measurement, unless `database` knows them."""
    model, image = _network(case, database, progress)
    program, _ = run_passes(capture(model, (image,), {}), ANALYSIS)
    target = host_target(case.threads)
    with Engine(target, database, progress, precision=case.precision) as engine:
        begun = time.perf_counter()
        build = engine.build(cut_graph(program, Plan({})), program.example)
        seconds = time.perf_counter() - begun
        measured = engine.measured
        narrow = precision_of(build.network, QUINT8 if case.precision == "int8" else BFLOAT16)
        kernels = kernel_times(build, [image], engine)
        choices = engine.choices(build.network)
        templates = [choices[k.workload].template for k in build.network.kernels]
    contenders, absent = _contenders(program, build, case, peers)
    with quiet(case.threads):
        timings = interleave(contenders, rounds, progress=progress)
    rows = [_kernel(k, t) for k, t in zip(kernels, templates, strict=True)]
    return {
        "model": case.model,
        "threads": case.threads,
        "batch": case.batch,
        "precision": PRECISIONS[case.precision],
        "variant": case.variant,
        "error": build.error,
        "rounding_error": build.rounding_error,
        "kernel_error": build.kernel_error,
        "narrow_kernels": len(narrow.narrow),
        "build_seconds": seconds,
        "kernels_measured": measured,
        "runtimes": {name: _timing(t) for name, t in timings.items()},
        "absent": absent,
        "kernels": rows,
    }


def _network(case: Case, database: Path, progress: Progress) -> tuple[torch.nn.Module, torch.Tensor]:
    """The model and its image; a pruned one has the widths that our allocator chose, so that kernels and widths fit each other."""
    model, image = case.load()
    if case.variant == DENSE:
        return model, image
    job = make_job(
        model,
        image,
        "llvm",
        BUDGET,
        data=None,
        evaluate=None,
        finetune=None,
        loss=None,
        criterion="l2",  # needs no data; which indices go is of no interest here
        score_batches=1,
        probe_batches=1,
        peers=(),
        database=database,
        threads=case.threads,
        precision=case.precision,
    )
    with Engine(job.target, database, progress, precision=case.precision) as engine:
        return Compiler(job, engine, progress).run().model.eval(), image


def _contenders(
    program: Program, build: Build, case: Case, peers: tuple[str, ...]
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """Calls to time, and why others are missing. Every runtime has passed a check against torch eager."""
    assert program.model is not None
    subject = Subject(program.model, *program.example)
    contenders: dict[str, Callable[[], object]] = {OURS: build.artifact.bind(*subject.inputs)}
    quantised = QuantisedSubject(program.model, *program.example)
    absent: dict[str, str] = {}
    for name in peers:
        peer = build_quantised(quantised, name, case.threads) if name in INT8_PEERS else build_peer(subject, name, case.threads)
        if isinstance(peer, Absent):
            absent[name] = peer.reason
        else:
            contenders[name] = peer.run
    return contenders, absent


def _timing(timing: Timing) -> dict[str, Any]:
    """Seconds: the minimum with its interval, and percentiles."""
    latency = timing.latency
    percentiles = {f"p{p}": timing.percentile(p) for p in (10, 50, 90)}
    rounds = len(timing.seconds)
    return {
        "seconds": latency.seconds,
        "low": latency.low,
        "high": latency.high,
        **percentiles,
        "rounds": rounds,
        "verdict": timing.verdict,
    }


def _kernel(kernel: KernelTime, template: str) -> dict[str, Any]:
    """A kernel as it was timed alone and as it runs inside the network; seconds and nominal operations per second."""
    inside = kernel.measured.seconds
    return {
        "name": kernel.name,
        "template": template,
        "alone": kernel.predicted.seconds,
        "inside": inside,
        "gflops": kernel.flops / max(inside, 1e-9) / 1e9,
        "workload": kernel.workload,
    }
