"""Kernels on bytes equal the integers that float64 arithmetic on the same grids gives, and multiply with the processor's instruction."""

from dataclasses import replace

import numpy as np
import pytest
from kernel_workloads import AVX2, ZEN4, WorkloadBuilder, conv, on_grids, wrong

from billhook.codegen import lower, samples
from billhook.codegen.host import cpu_flags
from billhook.ir.grids import grids_input, on_grid, quantise_rows, without_grids
from billhook.ir.workload import Workload

needs_vnni = pytest.mark.skipif("avx512_vnni" not in cpu_flags(), reason="this processor lacks avx512_vnni")


def _linear(rows: int, depth: int, width: int) -> Workload:
    b = WorkloadBuilder()
    x, weight, bias = b.tensor(rows, depth), b.parameter(width, depth), b.parameter(width)
    y = b.call("aten.linear.default", x, weight, bias)
    b.call("aten.gelu.default", y, approximate="none")
    return b.finish(rows, width)


def _pool() -> Workload:
    b = WorkloadBuilder()
    b.call("aten.max_pool2d.default", b.tensor(1, 24, 9, 9, blocked=True), (3, 3), (2, 2), (1, 1), (1, 1), False)
    return b.finish(1, 24, 5, 5, blocked=True)


def _cat() -> Workload:
    b = WorkloadBuilder()
    x, y = b.tensor(1, 16, 5, 5, blocked=True), b.tensor(1, 20, 5, 5, blocked=True)
    b.call("aten.cat.default", (x, y), 1)
    return b.finish(1, 36, 5, 5, blocked=True)


def _image(channels: int) -> Workload:
    b = WorkloadBuilder()
    b.call("billhook.layout", b.tensor(2, channels, 8, 6))
    return b.finish(2, channels, 8, 6, blocked=True)


EXACT = {
    "3x3": conv((1, 32, 7, 14), 48, 3, epilogue=("residual", "relu")),
    "3x3-odd-widths": conv((1, 61, 5, 11), 56, 3, epilogue=("silu",)),
    "3x3-stride2": conv((2, 32, 9, 16), 40, 3, stride=2, epilogue=("relu",)),
    "3x3-dilated": conv((1, 16, 7, 7), 16, 3, dilation=2, padding=2),
    "3x3-small-map": conv((1, 64, 7, 7), 96, 3),
    "7x7-three-channels": conv((1, 3, 12, 12), 40, 7, stride=2, epilogue=("relu",)),
    "1x1": conv((1, 64, 7, 14), 80, 1, epilogue=("residual",)),
    "depthwise": conv((1, 40, 7, 14), 40, 3, groups=40, epilogue=("hardswish",)),
    "depthwise-5x5-stride2": conv((2, 24, 9, 11), 24, 5, stride=2, groups=24, epilogue=("residual",)),
    "linear": _linear(7, 64, 61),
}
CONVERTED = {
    "linear-odd-depth": _linear(7, 63, 40),
    "max-pool": _pool(),
    "concatenation": _cat(),
    "thin-groups": conv((1, 32, 5, 7), 32, 3, groups=8, epilogue=("relu",)),
}


@needs_vnni
@pytest.mark.parametrize("name", EXACT)
def test_every_candidate_gives_the_integers_of_the_reference(name: str) -> None:
    workload = on_grids(EXACT[name])
    candidates = lower.candidates(workload, ZEN4)
    assert candidates
    assert all(c.template.endswith("_int8") for c in candidates)
    assert [(c, w) for c in candidates if (w := wrong(workload, c))] == []


SHARED = {
    "vectors": conv((1, 96, 14, 14), 128, 1, epilogue=("residual",)),
    "rows": conv((1, 16, 57, 64), 16, 3, stride=2, epilogue=("relu",)),
    "depthwise": conv((2, 40, 33, 32), 40, 3, groups=40),
    "linear": _linear(64, 128, 96),
}


@needs_vnni
@pytest.mark.parametrize("name", SHARED)
def test_two_threads_give_the_integers_of_the_reference(name: str) -> None:
    workload, target = on_grids(SHARED[name]), replace(ZEN4, threads=2)
    first = lower.candidates(workload, target)[0]
    assert first.template.endswith("_int8")
    assert wrong(workload, first, target) is None


@needs_vnni
@pytest.mark.parametrize("name", CONVERTED)
def test_other_kernels_convert_what_they_read_and_write(name: str) -> None:
    workload = on_grids(CONVERTED[name])
    first = lower.candidates(workload, ZEN4)[0]
    assert not first.template.endswith("_int8")
    assert wrong(workload, first) is None


def test_sums_that_might_leave_int32_are_of_real_numbers() -> None:
    short, long = (on_grids(_linear(1, depth, 16)) for depth in (33_000, 33_200))
    assert lower.multiplies_bytes(short, ZEN4)
    assert lower.candidates(long, ZEN4)
    assert not lower.multiplies_bytes(long, ZEN4)


def test_what_has_no_template_stays_real() -> None:
    b = WorkloadBuilder()
    b.call("aten.cumsum.default", b.tensor(4, 6), 1, dtype=None)
    assert lower.candidates(on_grids(b.finish(4, 6)), ZEN4) == ()


@needs_vnni
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_an_image_is_put_on_its_grid(channels: int) -> None:
    workload = on_grids(_image(channels), inputs=False)
    (only,) = lower.candidates(workload, ZEN4)
    assert wrong(workload, only) is None


@needs_vnni
@pytest.mark.parametrize(("inputs", "output"), [(True, False), (False, True)])
def test_one_end_of_a_kernel_may_be_real(inputs: bool, output: bool) -> None:
    for workload in (on_grids(EXACT["1x1"], inputs=inputs, output=output), on_grids(EXACT["linear"], inputs=inputs, output=output)):
        first = lower.candidates(workload, ZEN4)[0]
        assert first.template.endswith("_int8") == inputs
        assert wrong(workload, first) is None


def test_only_processors_with_the_instruction_get_kernels_that_use_it() -> None:
    wide, narrow = (on_grids(conv((1, 32, 8, 8), 32, 3, target=t)) for t in (ZEN4, AVX2))
    assert lower.multiplies_bytes(wide, ZEN4)
    assert not lower.multiplies_bytes(on_grids(CONVERTED["max-pool"]), ZEN4)
    assert lower.candidates(narrow, AVX2) == ()


def test_products_use_the_instruction() -> None:
    workload = on_grids(EXACT["1x1"])
    assembly = lower.compile_kernel(workload, lower.candidates(workload, ZEN4)[0], ZEN4).inspect_source("asm")
    assert "vpdpbusd" in assembly
    assert "billhook_dot_int8" not in "".join(line for line in assembly.splitlines() if "call" in line)


def test_a_wrong_result_is_found() -> None:
    workload = on_grids(EXACT["1x1"])
    expected = samples.expected_output(workload, samples.sample_inputs(workload))
    step, zero = samples.sample_grids(workload)[on_grid(workload)[-1]]
    right = np.clip(np.rint(expected / step + zero), 0, 255).astype(np.uint8)
    flat = np.ascontiguousarray(right.reshape(1, 5, 16, 7, 14).transpose(0, 1, 3, 4, 2)).reshape(-1)
    assert samples.mismatch(workload, flat, expected, 1e-4) is None
    assert "integers differ" in (samples.mismatch(workload, flat ^ (np.arange(flat.size) % 20 == 0), expected, 1e-4) or "")
    assert "2 units off" in (samples.mismatch(workload, flat + 2 * (np.arange(flat.size) == flat.argmin()), expected, 1e-4) or "")


def test_workloads_tell_their_grids_by_a_parameter_that_templates_do_not_see() -> None:
    plain = EXACT["3x3"]
    workload = on_grids(plain)
    assert on_grid(workload) == (0, 3, 5)
    assert grids_input(workload) == 4
    assert workload.inputs[4].shape == (3, 2)
    bare = without_grids(workload)
    assert [replace(t, dtype="float32") for t in bare.inputs] == list(plain.inputs)
    assert bare.calls == plain.calls
    assert without_grids(plain) == plain


def test_weights_round_to_the_nearest_integers_of_each_channel() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 2, 2)) * np.array([1.0, 10.0, 0.1, 0.0]).reshape(4, 1, 1, 1)
    integers, steps = quantise_rows(weight)
    assert np.abs(integers).max((1, 2, 3)).tolist() == [127, 127, 127, 0]
    assert np.abs(integers * steps.reshape(4, 1, 1, 1) - weight).max((1, 2, 3)) == pytest.approx(steps / 2, rel=0.2, abs=1 / 127)
    again, same = quantise_rows((integers * steps.reshape(4, 1, 1, 1)).astype(np.float32))
    assert np.array_equal(again, integers)
    assert np.allclose(same, steps, rtol=1e-6)
