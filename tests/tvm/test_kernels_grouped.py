"""Grouped convolutions and group norms of blocked maps equal torch for every candidate, on wide and narrow vectors."""

from dataclasses import replace

import pytest
from kernel_workloads import AVX2, ZEN4, WorkloadBuilder, conv, wrong

from billhook.codegen import lower
from billhook.ir.target import Target
from billhook.ir.workload import Workload

TARGETS = {"wide": ZEN4, "narrow": AVX2}


def _thin(target: Target) -> dict[str, Workload]:
    """Vectors of several groups."""
    return {
        "resnext": conv((1, 32, 5, 9), 32, 3, groups=8, epilogue=("relu",), target=target),
        "stride2": conv((2, 32, 7, 8), 32, 3, stride=2, groups=8, target=target),
        "cut-to-three": conv((1, 48, 4, 6), 48, 3, groups=16, epilogue=("residual", "relu"), target=target),
        "other-widths": conv((1, 36, 4, 5), 20, 3, groups=4, target=target),
        "many-inputs": conv((1, 60, 4, 5), 20, 3, groups=5, epilogue=("silu",), target=target),
        "multiplied-depthwise": conv((1, 24, 5, 5), 48, 3, groups=24, target=target),
        "1x1": conv((1, 40, 4, 5), 40, 1, groups=10, target=target),
        "5x5-dilated": conv((1, 16, 9, 7), 16, 5, padding=4, dilation=2, groups=4, target=target),
    }


def _wide(target: Target) -> dict[str, Workload]:
    """Groups of whole vectors, or nearly."""
    return {
        "two": conv((1, 64, 6, 7), 64, 3, groups=2, epilogue=("residual",), target=target),
        "regnet": conv((1, 48, 5, 14), 48, 3, groups=2, epilogue=("relu",), target=target),
        "odd": conv((1, 40, 5, 6), 72, 3, groups=2, target=target),
        "unpadded": conv((2, 32, 6, 9), 96, 3, padding=0, groups=2, target=target),
    }


CASES = {f"{name}-{lanes}": (w, t) for lanes, t in TARGETS.items() for name, w in {**_thin(t), **_wide(t)}.items()}


@pytest.mark.parametrize(("workload", "target"), CASES.values(), ids=CASES.keys())
def test_grouped_convolution_equals_torch(workload: Workload, target: Target) -> None:
    candidates = lower.candidates(workload, target)
    assert candidates
    assert {c.template for c in candidates} == {"grouped"}
    assert [(c, w) for c in candidates if (w := wrong(workload, c, target))] == []


def test_thin_groups_are_shuffled_and_wide_ones_spread() -> None:
    thin, wide = _thin(ZEN4)["resnext"], _wide(ZEN4)["two"]
    assert {c["shuffled"] for c in lower.candidates(thin, ZEN4)} == {1}
    assert {c["shuffled"] for c in lower.candidates(wide, ZEN4)} == {0}


def test_two_threads_share_a_grouped_convolution() -> None:
    target = replace(ZEN4, threads=2)
    for workload in (conv((1, 64, 14, 14), 64, 3, groups=16), conv((1, 128, 14, 14), 128, 3, groups=2)):
        first = lower.candidates(workload, target)[0]
        assert wrong(workload, first, target) is None


def _norm(channels: int, groups: int, target: Target, affine: bool = True, batch: int = 2) -> Workload:
    b = WorkloadBuilder(target)
    x = b.tensor(batch, channels, 5, 7, blocked=True)
    other = b.tensor(batch, channels, 5, 7, blocked=True)
    vectors = (b.parameter(channels), b.parameter(channels)) if affine else (None, None)
    y = b.call("aten.group_norm.default", x, groups, *vectors, 1e-5, True)
    y = b.call("aten.silu.default", y)
    b.call("aten.add.Tensor", y, other, alpha=1)
    return b.finish(batch, channels, 5, 7, blocked=True)


NORMS = {
    f"{channels}-in-{groups}-{lanes}": (_norm(channels, groups, t, affine=groups != channels), t)
    for lanes, t in TARGETS.items()
    for channels, groups in ((64, 32), (40, 8), (61, 1), (36, 3), (24, 24))
}


@pytest.mark.parametrize(("workload", "target"), NORMS.values(), ids=NORMS.keys())
def test_group_norm_equals_torch(workload: Workload, target: Target) -> None:
    (choice,) = lower.candidates(workload, target)
    assert choice.template == "group_norm"
    assert wrong(workload, choice, target) is None


def test_two_threads_share_a_group_norm() -> None:
    target = replace(ZEN4, threads=2)
    workload = _norm(1024, 32, target)
    assert wrong(workload, lower.candidates(workload, target)[0], target) is None
