"""Probes: worths from losses, and their agreement with losses measured by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import billhook as bh
from billhook.ir.plan import Plan, make_plan
from billhook.passes.probe import plan_loss, probe_sizes, probed_worth, worth
from billhook.passes.saliency_criteria import score_axes
from tests.support.tiny import batches, example, tiny


def test_worth_is_the_loss_that_keeping_more_saves() -> None:
    values = worth(4, {0: 3.0, 2: 1.0, 4: 0.5})
    assert values[0] == 0
    assert values[2] == pytest.approx(2.0)
    assert values[4] == pytest.approx(2.5)
    assert (np.diff(values) >= 0).all()


def test_a_loss_that_rises_with_size_counts_as_flat() -> None:
    values = worth(4, {0: 2.0, 2: 0.5, 4: 1.0})
    assert values[2] == pytest.approx(values[4])


def test_sizes_cover_both_ends() -> None:
    assert probe_sizes((0, 8, 16, 24, 32)) == (0, 8, 16, 24, 32)
    assert probe_sizes(tuple(range(8, 72, 8))) == (8, 16, 32, 48, 64)


def test_probes_are_losses_of_the_cut_network() -> None:
    program = bh.trace(tiny(), example())
    scores = score_axes("l2", program, tiny(), None)
    candidates = {a.name: (a.size // 2, a.size) if a.prunable else (a.size,) for a in program.axes}
    base = {name: sizes[-1] for name, sizes in candidates.items()}
    data = batches()
    found = probed_worth(program, scores, candidates, base, data, F.cross_entropy, batches=2)
    name = next(a.name for a in program.axes if a.prunable)
    kept = np.sort(np.argsort(-scores[name], kind="stable")[: candidates[name][0]])
    half = plan_loss(program, make_plan(program, {name: [int(i) for i in kept]}), data[:2], F.cross_entropy)
    whole = plan_loss(program, Plan({}), data[:2], F.cross_entropy)
    assert found[name][-1] == pytest.approx(max(half - whole, 0.0), abs=1e-6)


def test_probing_changes_no_weights() -> None:
    model = tiny()
    program = bh.trace(model, example())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan_loss(program, Plan({}), batches()[:1], F.cross_entropy)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
