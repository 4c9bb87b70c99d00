"""Convolution kernels equal torch for every candidate, shape, layout and epilogue."""

from dataclasses import replace

import pytest
from kernel_workloads import AVX2, ZEN4, conv, wrong

from billhook.codegen import lower, samples
from billhook.codegen.cpu.candidate import candidate
from billhook.codegen.cpu.packing import to_blocked
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
    "3x3-winograd-overhang": conv((1, 40, 13, 6), 61, 3, epilogue=("residual", "relu")),
    "3x3-winograd-unpadded": conv((1, 48, 10, 11), 24, 3, padding=0),
    "3x3-winograd-wide-padding": conv((1, 16, 5, 6), 16, 3, padding=2),
    "3x3-winograd-one-pixel": conv((2, 16, 1, 1), 16, 3),
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


@pytest.mark.parametrize("channels", [8, 61, 128, 384])
def test_winograd_is_offered_beside_direct_and_stays_within_its_tolerance(channels: int) -> None:
    workload = conv((1, channels, 12, 12), 24, 3)
    candidates = lower.candidates(workload, ZEN4)
    assert {(c.template, c["m"]) for c in candidates if c.template == "winograd"} == {("winograd", 2), ("winograd", 4)}
    assert any(c.template == "conv" for c in candidates)
    assert [w for c in candidates if c.template == "winograd" and (w := wrong(workload, c))] == []


def test_a_kernel_above_the_tolerance_of_its_template_is_rejected() -> None:
    workload = conv((1, 16, 8, 8), 16, 3)
    expected = samples.expected_output(workload, samples.sample_inputs(workload))
    off = to_blocked(expected + 3e-5 * abs(expected).max(), 16)
    assert samples.mismatch(workload, off, expected, lower.tolerance(candidate("conv"))) is None
    assert "wrong result" in str(samples.mismatch(workload, off, expected, lower.tolerance(candidate("winograd"))))


@pytest.mark.parametrize(("stride", "dilation", "kernel"), [(2, 1, 3), (1, 2, 3), (1, 1, 5)])
def test_winograd_is_for_plain_3x3_only(stride: int, dilation: int, kernel: int) -> None:
    found = lower.candidates(conv((1, 16, 12, 12), 16, kernel, stride=stride, dilation=dilation), ZEN4)
    assert found
    assert all(c.template != "winograd" for c in found)


@pytest.mark.parametrize("op", ["relu", "sigmoid", "silu", "tanh", "gelu", "erf", "hardswish", "hardsigmoid", "relu6"])
def test_activations(op: str) -> None:
    workload = conv((1, 16, 4, 4), 16, 1, epilogue=(op,))
    assert wrong(workload, lower.candidates(workload, ZEN4)[-1]) is None


SHARED = {
    "winograd-rows": conv((1, 32, 64, 56), 32, 3, epilogue=("relu",)),
    "winograd-groups": conv((1, 96, 14, 14), 96, 3),
    "vectors": conv((1, 96, 14, 14), 128, 1, epilogue=("residual",)),
    "rows": conv((1, 3, 57, 64), 64, 3, stride=2, plain=True),
    "depthwise": conv((2, 40, 33, 32), 40, 3, groups=40),
}


@pytest.mark.parametrize("workload", SHARED.values(), ids=SHARED.keys())
def test_kernels_of_several_threads_equal_torch(workload: Workload) -> None:
    target = replace(ZEN4, threads=2)
    assert [(c, w) for c in lower.candidates(workload, target) if (w := wrong(workload, c, target))] == []


def test_narrow_vectors() -> None:
    workload = conv((1, 24, 9, 9), 40, 3, epilogue=("relu",), target=AVX2)
    for choice in lower.candidates(workload, AVX2):
        assert wrong(workload, choice, AVX2) is None
