"""arm64 kernels that multiply bytes or leave columns out: their code, their static estimate, and networks of them under qemu."""

from pathlib import Path

import pytest
import torch
from kernel_workloads import conv, on_grids
from targets import Cnn, Vit, case, error, need

from billhook.codegen import lower
from billhook.codegen.arm import toolchain
from billhook.codegen.arm.estimate import assembly, estimate
from billhook.codegen.arm.targets import arm_target
from billhook.codegen.backend import backend_of
from billhook.codegen.cpu.candidate import Candidate
from billhook.compiler.precision import check_precision, in_int8
from billhook.costmodel.partition import partition
from billhook.ir.capture import capture
from billhook.ir.errors import OptionError, ToolchainError
from billhook.ir.network import Network
from billhook.ir.passes import run_passes
from billhook.ir.plan import Plan
from billhook.ir.workload import Workload
from billhook.passes.analyse import ANALYSIS
from billhook.passes.block_sparsity import block_layers, mask_parameters, release, sparse_network
from billhook.passes.cut import cut_graph
from billhook.passes.normalise import normalise_for_inference
from billhook.passes.quantise_reference import run_quantised

TARGET = arm_target()
needs_mca = need("llvm-mca", "llvm")


@pytest.fixture(scope="module")
def runtime() -> tuple[Path, ...]:
    """What running arm64 code takes; the tests that do are skipped with the reason where it is missing."""
    try:
        toolchain.cross_compiler()
        toolchain.emulator()
        return toolchain.arm_runtime()
    except ToolchainError as reason:
        pytest.skip(str(reason))


def first(network: Network) -> dict[Workload, Candidate]:
    return {k.workload: lower.candidates(k.workload, TARGET)[0] for k in network.kernels}


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("make", [Cnn, Vit])
def test_int8_networks_equal_integer_arithmetic_under_emulation(make: type[torch.nn.Module]) -> None:
    given = case(make, TARGET, pruned=False)
    real = partition(normalise_for_inference(cut_graph(given.program, Plan({})), given.program.example), TARGET)
    found = in_int8(real, backend_of(TARGET), (given.inputs,))
    choices = first(found.partition.network)
    assert {"conv_int8", "linear_int8"} & {c.template for c in choices.values()}
    (computed,) = backend_of(TARGET).build(found.partition.network, choices, TARGET).run(*given.inputs)
    (expected,) = run_quantised(real.network, found.quantisation, given.inputs)
    assert error(computed, expected.float()) < 0.02, "a few integers may round to the other side of a tie"
    assert error(computed, given.expected) > 1e-4, "integers do not equal float32"


def test_bytes_are_multiplied_by_the_dot_product_where_the_processor_has_it() -> None:
    workload = on_grids(conv((1, 32, 8, 8), 32, 3, target=TARGET))
    best = lower.candidates(workload, TARGET)[0]
    assert best.template == "conv_int8"
    assert assembly(workload, best, TARGET).count("sdot") >= 8
    old = arm_target("cortex-a72")
    assert lower.candidates(workload, old) == (), "ARMv8.0 has no dot product"
    check_precision("int8", TARGET)
    with pytest.raises(OptionError, match="asimddp, which cortex-a72 lacks"):
        check_precision("int8", old)


@needs_mca
def test_the_static_estimate_counts_dot_products_and_kept_columns() -> None:
    real = conv((1, 32, 8, 8), 32, 3, target=TARGET)
    quantised = on_grids(real)
    direct = next(c for c in lower.candidates(real, TARGET) if c.template == "conv")
    in_float = estimate(real, direct, TARGET)
    in_bytes = estimate(quantised, lower.candidates(quantised, TARGET)[0], TARGET)
    assert in_bytes.multiply_adds >= 8
    assert in_bytes.cycles < 0.5 * in_float.cycles, "an instruction multiplies four times as much"


@pytest.mark.usefixtures("runtime")
def test_sparse_networks_equal_torch_under_emulation() -> None:
    given = case(Cnn, TARGET, pruned=False)
    chosen = {layer.parameter: layer.patterns[1] for layer in block_layers(given.network, given.model)}
    mask_parameters(given.model, chosen)
    release(given.model, chosen)
    program, _ = run_passes(capture(given.model, given.inputs, {}), ANALYSIS)
    dense = partition(normalise_for_inference(cut_graph(program, Plan({})), program.example), TARGET).network
    network = sparse_network(dense, chosen)
    choices = first(network)
    assert sum(c.template == "block_sparse" for c in choices.values()) >= 2
    (computed,) = backend_of(TARGET).build(network, choices, TARGET).run(*given.inputs)
    with torch.no_grad():
        assert error(computed, given.model(*given.inputs)) < 1e-5
