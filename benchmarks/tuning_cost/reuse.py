"""The hit rate on a second model: kernels that it needs and that the first model's compilation has measured."""

import shutil
import time
from pathlib import Path

from benchmarks.networks import Named
from benchmarks.rows import Row
from billhook.codegen.host import host_target
from billhook.compiler.engine import Engine
from billhook.costmodel.measured import Reuse
from billhook.ir.capture import capture
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.progress import Progress
from billhook.passes.analyse import ANALYSIS
from billhook.passes.candidate_sizes import candidate_sizes, with_dense
from billhook.passes.cut import cut_graph


def second_model(first: Named, second: Named, threads: int, folder: Path, progress: Progress) -> Row:
    """Measure what a compilation of `first` needs, then what one of `second` needs, in one database.

    The first model's database is kept, so that an interrupted run goes on; the second starts from a copy of it each time.
    """
    known = folder / f"{first}.db"
    _, seconds = _needed(first, threads, known, progress)
    both = folder / f"{first}-{second}.db"
    for leftover in folder.glob(both.name + "*"):
        leftover.unlink()
    shutil.copy(known, both)
    reuse, more = _needed(second, threads, both, progress)
    return {
        "first": str(first),
        "second": str(second),
        "wanted": reuse.wanted,
        "found": reuse.found,
        "hit_rate": reuse.hit_rate,
        "seconds": [seconds, more],
    }


def _needed(network: Named, threads: int, database: Path, progress: Progress) -> tuple[Reuse, float]:
    """Everything that a compilation measures before it solves: the dense network's kernels and the anchors of its surfaces."""
    model, image = network.load()
    program, _ = run_passes(capture(model, (image,), {}), ANALYSIS)
    target = host_target(threads)
    begun = time.perf_counter()
    with Engine(target, database, progress) as engine:
        cost = engine.network_cost(program, with_dense(program, candidate_sizes(program, target)))
        cost.prepare(progress)
        engine.choices(engine.lower(cut_graph(program, Plan({})), program.example).network)
        return engine.note_run(str(network)), time.perf_counter() - begun
