"""Beside the contest: how faithful the objective is, and what compensation repairs without training."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from scipy import stats

from billhook.ir.plan import Plan
from billhook.passes.allocation_presets import PRESETS
from billhook.passes.compensate import absorb, reconstruct, reform
from billhook.passes.prune import carry_out
from billhook.passes.saliency import Data

from .aim import at_measured
from .contenders import SCORED_BATCH, Ranking, Seen
from .data import everywhere, score
from .train import recalibrate

MASKS = 100


def fidelity_row(seen: Seen, budget: float) -> Iterator[dict[str, object]]:
    """Correlation of predicted and measured loss increase over random plans at an expected latency, before and after probing.

    A plan gives every axis a random candidate, and is kept if its latency is within 15% of the budget; its indices are the best by the
    scores, as in every plan that the allocator may choose.
    """
    plain, probed = Ranking(PRESETS["mdp"], seen), Ranking(PRESETS["ours"], seen)
    probed.probe(budget / seen.bench.bias())
    drawn = _draw(seen, budget)
    dense = seen.loss(Plan({}))
    measured = np.array([seen.loss(plain.plan(sizes)) - dense for sizes in drawn])
    row: dict[str, object] = {"contender": "fidelity", "plans": len(drawn), "measured": measured.round(5).tolist()}
    for name, ranking in (("before", plain), ("after", probed)):
        lost = np.array([sum(float(w[-1] - w[sizes[n]]) for n, w in ranking.worth.items() if n in sizes) for sizes in drawn])
        row[name] = {"pearson": _statistic(stats.pearsonr, lost, measured), "spearman": _statistic(stats.spearmanr, lost, measured)}
    yield row


def _statistic(test: Callable[..., object], left: object, right: object) -> float:
    return round(float(getattr(test(left, right), "statistic")), 4)  # noqa: B009


def _draw(seen: Seen, budget: float) -> list[Mapping[str, int]]:
    """Random sizes near an expected latency: every axis a candidate, drawn around a share of its own."""
    bench, random = seen.bench, np.random.default_rng(round(1000 * budget))
    aim = budget / bench.bias()
    found: list[Mapping[str, int]] = []
    for _ in range(400 * MASKS):
        mean = random.uniform(0.2, 1.0)
        sizes = {n: _near(c, random.normal(mean, 0.25), random) for n, c in bench.candidates.items() if len(c) > 1}
        if abs(bench.predicted(sizes) / aim - 1) <= 0.15:
            found.append(sizes)
        if len(found) == MASKS:
            break
    return found


def _near(candidates: tuple[int, ...], share: float, random: np.random.Generator) -> int:
    positive = [c for c in candidates if c]
    return min(positive, key=lambda c: abs(c - min(max(share, 0.0), 1.0) * candidates[-1]) + 1e-6 * random.random())


def compensation_rows(seen: Seen, budget: float) -> Iterator[dict[str, object]]:
    """Our plan without training: norms recalibrated only, and each compensation before that."""
    ranking, bench = Ranking(PRESETS["ours"], seen, chooses=True), seen.bench
    ranking.prepare(budget / bench.bias())
    sizes = at_measured(ranking.sizes, bench.predicted, bench.measured, budget, bench.bias(), faster=True)
    share = {"share": bench.measured(sizes), "predicted_share": bench.predicted(sizes)}
    for name, repair in {"none": None, "absorb": absorb, "reform": reform, "reconstruct": reconstruct}.items():
        pruned = carry_out(seen.program, ranking.plan(sizes))
        recalibrate(pruned.model, seen.trained)
        changed = 0 if repair is None else repair(seen.program, pruned, Data(seen.trained.train.loader(SCORED_BATCH), everywhere, 8))
        recalibrate(pruned.model, seen.trained)
        found = score(pruned.model, seen.trained.test)
        yield {"contender": name, "one_shot": [found.accuracy, found.nll], "layers": changed, **share}
