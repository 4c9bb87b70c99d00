"""Convolution kernels equal torch for every candidate, shape, layout and epilogue."""

import pytest
from kernel_workloads import AVX2, ZEN4, conv, wrong

from billhook.codegen import lower
from billhook.ir.workload import Workload

CASES = {
    "3x3": conv((1, 32, 16, 32), 48, 3, epilogue=("relu",)),
    "3x3-residual": conv((1, 64, 4, 8), 64, 3, epilogue=("residual", "relu")),
    "3x3-small-map": conv((1, 32, 7, 7), 96, 3),
    "3x3-tiny-map": conv((1, 32, 2, 3), 64, 3),
    "3x3-stride2": conv((1, 32, 15, 16), 40, 3, stride=2, epilogue=("relu",)),
    "3x3-odd-widths": conv((1, 61, 9, 11), 56, 3, epilogue=("residual",)),
    "3x3-mixed-blocks": conv((1, 24, 9, 11), 32, 3),
    "3x3-dilated": conv((1, 16, 13, 17), 16, 3, padding=2, dilation=2),
    "3x3-unpadded": conv((1, 16, 9, 13), 16, 3, padding=0),
    "3x3-batch": conv((3, 16, 6, 6), 24, 3, epilogue=("residual",)),
    "1x1": conv((1, 64, 14, 14), 80, 1, epilogue=("residual", "relu")),
    "1x1-stride2": conv((1, 64, 16, 32), 128, 1, stride=2, padding=0),
    "1x1-pixel": conv((2, 40, 1, 1), 72, 1, epilogue=("hardsigmoid",)),
    "stem-7x7": conv((1, 3, 32, 32), 64, 7, stride=2, epilogue=("relu",), plain=True),
    "stem-3x3-gray": conv((1, 1, 16, 32), 24, 3, plain=True),
    "depthwise": conv((1, 40, 14, 14), 40, 3, groups=40, epilogue=("hardswish",)),
    "depthwise-5x5-stride2": conv((1, 32, 15, 13), 32, 5, stride=2, groups=32, epilogue=("silu",)),
    "depthwise-batch": conv((2, 61, 7, 7), 61, 3, groups=61, epilogue=("residual", "relu")),
}


@pytest.mark.parametrize("workload", CASES.values(), ids=CASES.keys())
def test_every_candidate_equals_torch(workload: Workload) -> None:
    candidates = lower.candidates(workload, ZEN4)
    assert candidates
    assert [(c, w) for c in candidates if (w := wrong(workload, c))] == []


@pytest.mark.parametrize("op", ["relu", "sigmoid", "silu", "tanh", "gelu", "hardswish", "hardsigmoid", "relu6"])
def test_activations(op: str) -> None:
    workload = conv((1, 16, 4, 4), 16, 1, epilogue=(op,))
    assert wrong(workload, lower.candidates(workload, ZEN4)[-1]) is None


def test_narrow_vectors() -> None:
    workload = conv((1, 24, 9, 9), 40, 3, epilogue=("relu",), target=AVX2)
    for candidate in lower.candidates(workload, AVX2):
        assert wrong(workload, candidate, AVX2) is None


def test_grouped_convolutions_have_no_template() -> None:
    assert lower.candidates(conv((1, 32, 8, 8), 32, 3, groups=4), ZEN4) == ()
