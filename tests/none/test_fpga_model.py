"""The FPGA target without a simulator: quantisation against float, cycle model, resources, search, and what is refused."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fpga_cases import SMALL, Block, Encoder, layer_case, quantised, samples, traced
from torch import nn

from billhook.codegen.fpga.accelerator import Accelerator
from billhook.codegen.fpga.boards import BOARDS, find_board
from billhook.codegen.fpga.generate import generate
from billhook.codegen.fpga.instructions import ACC_FULL, Execute, Step, Store, encode
from billhook.codegen.fpga.kernels import network_layers
from billhook.codegen.fpga.memory import IDEAL, Memory
from billhook.codegen.fpga.operations import Attention, Norm, run_operation
from billhook.codegen.fpga.pricing import Pricer
from billhook.codegen.fpga.resources import COUNTED, estimate, features, fit, memory_blocks, multipliers
from billhook.codegen.fpga.search import fits, search
from billhook.codegen.fpga.shape import LayerShape, MapShape
from billhook.codegen.fpga.tiling import tilings
from billhook.codegen.fpga.timeline import engine_cycles, execute_cycles, step_cycles
from billhook.compiler.fpga import FpgaOptions, compile_fpga
from billhook.compiler.fpga_cost import dense_partition, fpga_target
from billhook.ir.errors import BudgetError, CaptureError, DataError, MeasureError, OptionError

CONV = LayerShape(MapShape(16, 8, 8, 1), MapShape(16, 8, 8, 1), (3, 3), (1, 1), (1, 1))


@pytest.mark.parametrize(("model", "tolerance"), [(Block, 0.05), (Encoder, 0.1)])
def test_int8_is_near_float(model: type[nn.Module], tolerance: float) -> None:
    torch.manual_seed(0)
    network = model().eval()
    integers = quantised(traced(network))
    for sample in samples():
        with torch.no_grad():
            real = network(sample).numpy()
        assert np.abs(integers.outputs(sample.numpy()) - real).max() < tolerance * np.abs(real).max()


def test_the_norm_of_integers_is_layer_normalisation() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (24, 1, 7)).astype(np.int8)
    operation = Norm("n", "x", "y", np.full(24, 40 << 8, dtype=np.int32), np.zeros(24, dtype=np.int64), 20, 1)
    real = nn.functional.layer_norm(torch.from_numpy(x[:, 0].T.astype(np.float64)), (24,)).numpy().T * 40
    assert np.abs(run_operation(operation, {"x": x}, (24, 1, 7))[:, 0] - real).max() <= 0.51


def test_the_attention_of_integers_is_softmax_attention() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.integers(-100, 101, (2, 9, 8)).astype(np.int8) for _ in range(3))
    operation = Attention("a", "q", "k", "v", "y", step=64, step_shift=12, multiplier=1 << 14, shift=22)
    floats = [torch.from_numpy(t.astype(np.float64)) for t in (q, k, v)]
    real = nn.functional.scaled_dot_product_attention(floats[0], floats[1], floats[2], scale=1 / 4096)
    assert np.abs(run_operation(operation, {"q": q, "k": k, "v": v}, (2, 9, 8)) - real.numpy()).max() <= 2


def test_the_cycles_of_an_execute_instruction_are_a_closed_form() -> None:
    i = Execute(0, 0, 0, (2, 3, 3), (64, 8, 1), (4, 4), (8, 1), 16)
    assert execute_cycles(i, SMALL) == SMALL.columns + 2 * 9 * 16 + 7


def test_engines_that_wait_for_ever_are_found() -> None:
    store = Store(0, 0, 4, (1, 1), 1, 0, 8, -128, 127, wait=(ACC_FULL,))
    with pytest.raises(MeasureError, match="for ever"):
        step_cycles(Step((), (), (store,)), SMALL, IDEAL)


def test_the_bound_of_a_tiling_is_below_its_cycles() -> None:
    for memory in (IDEAL, Memory(shared=True, interval=2)):
        pricer = Pricer(SMALL, memory)
        for tiling in tilings(CONV, SMALL):
            steps = pricer.steps(CONV, tiling)
            assert sum(engine_cycles(s, SMALL, memory) for s in steps) <= sum(step_cycles(s, SMALL, memory) for s in steps)


def test_cycles_are_a_staircase_on_the_arrays_grid() -> None:
    pricer = Pricer(SMALL, IDEAL)

    def cycles(inputs: int, outputs: int) -> int:
        return pricer.price(LayerShape(MapShape(inputs, 8, 8, 1), MapShape(outputs, 8, 8, 1), (3, 3), (1, 1), (1, 1))).cycles

    assert cycles(16, 13) == cycles(16, 16) > cycles(16, 12)
    assert cycles(9, 8) > cycles(8, 8)


def test_instructions_have_eight_words_and_their_semaphores_in_the_first() -> None:
    layer, _, _ = layer_case(CONV)
    for program in Pricer(SMALL, IDEAL).steps(layer.shape, next(tilings(CONV, SMALL)))[0].programs:
        for i in program:
            words = encode(i)
            assert words.shape == (8,)
            assert int(words[0]) & 255 == sum(1 << s for s in i.wait)
            assert int(words[0]) >> 8 & 255 == sum(1 << s for s in i.signal)


def test_equal_shapes_give_equal_verilog_and_others_another_identification() -> None:
    assert generate(SMALL) == generate(Accelerator(8, 4, 4, 256, 256, 64, 128))
    other = Accelerator(8, 4, 4, 256, 256, 64, 256)
    assert other.identification != SMALL.identification
    assert other.identification in generate(other)["accelerator.v"]


def test_multipliers_and_memories_are_counted() -> None:
    assert multipliers(Accelerator(16, 8, 8)) == 16 * 8 + 3 * 8
    # three instruction memories of 2048 x 32 take 4 blocks each, input words 2 x 2048 x 64 bits 8 each, weights 2048 x 128 bits 15,
    # accumulators 2 x 256 x 256 bits 8 each, the residual 1024 x 64 bits 4, parameters 16 x 384 bits 11
    assert memory_blocks(Accelerator(16, 8, 8)) == 3 * 4 + 2 * 8 + 15 + 2 * 8 + 4 + 11


def test_found_designs_fit_their_board_and_get_no_slower_with_more_room() -> None:
    layers = network_layers(dense_partition(traced(Block()), fpga_target("ulx3s", None)).network)
    cycles: dict[str, int] = {}
    for board in BOARDS:
        designs = search(layers, board)
        assert all(not fits(d.accelerator, board) for d in designs)
        assert designs[0].cycles == min(d.cycles for d in designs)
        cycles[board.name] = designs[0].cycles
    assert cycles["zcu102"] < 1.02 * cycles["zcu104"] < 1.05 * cycles["pynq-z2"] < cycles["ulx3s"]


def test_pruning_meets_its_budget_of_cycles_on_the_arrays_grid() -> None:
    torch.manual_seed(0)
    board = find_board("pynq-z2")
    result = compile_fpga(Block().eval(), torch.zeros(1, 3, 12, 12), FpgaOptions(board, 0.7, SMALL), None)
    assert result.design.cycles <= math.ceil(0.7 * result.dense.cycles)
    for axis, kept in result.plan.kept.items():
        assert len(kept) % SMALL.columns == 0, axis


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Accelerator(12, 8, 8), "rows must be a multiple of the columns"),
        (lambda: Accelerator(12, 12, 8), "columns must be a multiple of the bus"),
        (lambda: Accelerator(8, 8, 8, input_depth=1000), "power of two"),
        (lambda: find_board("virtex"), "choose one of zcu102"),
        (lambda: list(tilings(LayerShape(MapShape(8, 4, 100), MapShape(8, 4, 100)), SMALL)), "accumulator_depth 128 or more"),
    ],
)
def test_shapes_that_cannot_be_are_refused_with_what_would_do(make: Callable[[], object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        make()


def test_a_network_too_wide_for_the_board_is_refused_with_what_would_do() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)).eval()
    with pytest.raises(OptionError, match=r"board ulx3s: .*accumulator_depth 4096 or more.*larger board, or smaller feature maps"):
        compile_fpga(net, torch.zeros(1, 3, 8, 4000), FpgaOptions(find_board("ulx3s")), None)


def test_an_array_too_large_for_the_board_is_refused() -> None:
    with pytest.raises(OptionError, match=r"does not fit board pynq-z2: DSP \d+ of 176"):
        compile_fpga(Block().eval(), torch.zeros(1, 3, 12, 12), FpgaOptions(find_board("pynq-z2"), 1.0, Accelerator(16, 16, 8)), None)


def test_a_budget_out_of_reach_is_refused_with_the_fewest_cycles() -> None:
    with pytest.raises(BudgetError, match=r"the fewest are \d+"):
        compile_fpga(Block().eval(), torch.zeros(1, 3, 12, 12), FpgaOptions(find_board("pynq-z2"), 0.001, SMALL), None)


@pytest.mark.parametrize(
    ("net", "size", "error", "said"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2)), (1, 3, 8, 8), CaptureError, "a dilation"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(1)), (1, 3, 8, 8), CaptureError, "softmax.*has no place"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), (2, 3, 8, 8), OptionError, "one sample"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1)), (1, 3, 8, 8), CaptureError, "never negative"),
    ],
)
def test_what_the_target_does_not_have_is_named(net: nn.Module, size: tuple[int, ...], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        compile_fpga(net.eval(), torch.zeros(size), FpgaOptions(find_board("pynq-z2"), 1.0, SMALL), None)


def test_weights_that_are_not_finite_are_refused() -> None:
    net = nn.Conv2d(3, 4, 3).eval()
    with torch.no_grad():
        net.weight[0, 0, 0, 0] = math.nan
    with pytest.raises(DataError, match="NaN or infinite"):
        compile_fpga(net, torch.zeros(1, 3, 8, 8), FpgaOptions(find_board("pynq-z2"), 1.0, SMALL), None)


def test_a_fit_follows_the_designs_and_keeps_what_they_do_not_tell() -> None:
    counted = COUNTED["xcup"][0]
    designs = [Accelerator(4, 4, 4), Accelerator(8, 8, 4), Accelerator(16, 8, 8), Accelerator(16, 16, 8), Accelerator(32, 16, 16)]
    doubled = [round(float(2 * features(d) @ counted)) for d in designs]
    found = fit(designs, doubled, counted)
    # All coefficients have doubled, against which the fit's trust in what was counted pulls: half is what no fit would be off.
    assert max(abs(float(features(d) @ found) / c - 1) for d, c in zip(designs, doubled, strict=True)) < 0.05
    alone = fit(designs[:1], [round(float(features(designs[0]) @ counted))], counted)
    assert np.allclose(alone, counted, rtol=1e-3)


def test_estimates_grow_with_the_array() -> None:
    for family in ("xc7", "xcup", "ecp5"):
        small, large = estimate(Accelerator(8, 8, 8), family), estimate(Accelerator(16, 16, 8), family)
        assert small.dsp < large.dsp
        assert small.lut < large.lut
        assert small.flip_flops < large.flip_flops
