"""Kernels on bfloat16 values stay within the stated tolerance of torch in float64, and multiply with the processor's instruction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_workloads import AVX2, ZEN4, WorkloadBuilder, conv, in_bfloat16, wrong
from torch import nn

from billhook.codegen import lower
from billhook.codegen.cpu.reduced import TOLERANCE, from_bits, to_bits
from billhook.codegen.host import cpu_flags, host_target
from billhook.compiler.engine import Engine
from billhook.compiler.precision import PRECISIONS, check_precision
from billhook.ir.capture import capture
from billhook.ir.errors import OptionError
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.progress import no_progress
from billhook.ir.workload import Workload
from billhook.passes.analyse import ANALYSIS
from billhook.passes.cut import cut_graph
from billhook.passes.precision import precision_of

needs_bf16 = pytest.mark.skipif("avx512_bf16" not in cpu_flags(), reason="this processor lacks avx512_bf16")


def _linear(rows: int, depth: int, width: int) -> Workload:
    b = WorkloadBuilder()
    x, weight, bias = b.tensor(rows, depth), b.parameter(width, depth), b.parameter(width)
    y = b.call("aten.linear.default", x, weight, bias)
    b.call("aten.gelu.default", y, approximate="none")
    return b.finish(rows, width)


def _norm() -> Workload:
    b = WorkloadBuilder()
    x, weight, bias = b.tensor(5, 70), b.parameter(70), b.parameter(70)
    b.call("aten.layer_norm.default", x, (70,), weight, bias, 1e-5, True)
    return b.finish(5, 70)


def _layout() -> Workload:
    b = WorkloadBuilder()
    b.call("billhook.layout", b.tensor(1, 20, 5, 6, blocked=True))
    return b.finish(1, 20, 5, 6)


CASES = {
    "3x3": conv((1, 32, 13, 14), 48, 3, epilogue=("residual", "relu")),
    "3x3-odd-widths": conv((1, 61, 9, 11), 56, 3, epilogue=("silu",)),
    "3x3-stride2": conv((2, 32, 15, 16), 40, 3, stride=2, epilogue=("relu",)),
    "1x1": conv((1, 64, 14, 14), 80, 1, epilogue=("residual",)),
    "1x1-pixel": conv((2, 40, 1, 1), 72, 1),
    "depthwise": conv((1, 40, 14, 14), 40, 3, groups=40, epilogue=("hardswish",)),
    "linear": _linear(7, 64, 61),
    "linear-odd-depth": _linear(7, 63, 40),
    "norm": _norm(),
    "layout": _layout(),
}


@needs_bf16
@pytest.mark.parametrize("name", CASES)
def test_every_candidate_is_within_the_tolerance(name: str) -> None:
    workload = in_bfloat16(CASES[name])
    candidates = lower.candidates(workload, ZEN4)
    assert candidates
    assert [(c, w) for c in candidates if (w := wrong(workload, c))] == []


@needs_bf16
def test_types_may_differ_between_the_ends_of_a_kernel() -> None:
    plain = conv((1, 3, 32, 32), 64, 7, stride=2, plain=True)
    for workload in (in_bfloat16(plain, inputs=False), in_bfloat16(CASES["1x1"], output=False), in_bfloat16(CASES["linear"], output=False)):
        assert [(c, w) for c in lower.candidates(workload, ZEN4) if (w := wrong(workload, c))] == []


def test_only_processors_with_the_instruction_get_kernels_that_use_it() -> None:
    wide, narrow = (in_bfloat16(conv((1, 32, 8, 8), 32, 3, target=t)) for t in (ZEN4, AVX2))
    assert {c.template for c in lower.candidates(wide, ZEN4)} >= {"conv_bf16", "winograd_bf16"}
    assert lower.candidates(narrow, AVX2) == ()


def test_products_use_the_instruction_and_float32_kernels_do_not_know_it() -> None:
    reduced = in_bfloat16(CASES["1x1"])
    assembly = lower.compile_kernel(reduced, lower.candidates(reduced, ZEN4)[0], ZEN4).inspect_source("asm")
    assert "vdpbf16ps" in assembly
    assert "avx512bf16" not in str(lower.tvm_target(ZEN4))


def test_winograd_products_in_bfloat16_are_f2_only() -> None:
    found = lower.candidates(in_bfloat16(conv((1, 64, 28, 28), 64, 3)), ZEN4)
    assert {c["m"] for c in found if c.template == "winograd_bf16"} == {2}


def test_rounding_is_torchs() -> None:
    values = torch.cat([torch.randn(1000), torch.tensor([0.0, -0.0, 1e-30, 3e38, 1.00390625, 1.01171875])])
    assert np.array_equal(from_bits(to_bits(values.numpy())), values.bfloat16().float().numpy())


def test_a_result_beyond_the_tolerance_is_rejected() -> None:
    assert TOLERANCE < 0.01  # F(4x4) with products in bfloat16 has about 0.011


def test_a_target_without_the_flag_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"avx512_bf16.*x86-64-v3 lacks; use fp32"):
        check_precision("bf16", AVX2)
    with pytest.raises(OptionError, match="use one of fp32, bf16, int8"):
        check_precision("fp8", ZEN4)


@needs_bf16
def test_a_network_runs_in_bfloat16(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 49, 10)
    )
    program, _ = run_passes(capture(model.eval(), (torch.randn(1, 3, 16, 16),), {}), ANALYSIS)
    with Engine(host_target(), tmp_path / "k.db", no_progress, trials=0, precision="bf16") as engine:
        built = engine.build(cut_graph(program, Plan({})), program.example)
    assert built.error < PRECISIONS["bf16"].tolerance
    assert built.error > 1e-5  # it did round
    assert "bfloat16" in str(built.network)
    assert not precision_of(built.network).full
