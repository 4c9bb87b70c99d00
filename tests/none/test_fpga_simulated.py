"""The FPGA accelerator in the simulator: every value equals the integer reference, and the cycle model equals the simulation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fpga_cases import SINGLE, SMALL, Block, Encoder, assembled, built, expected, layer_case, layer_program, quantised, samples, traced

from billhook.codegen.fpga.accelerator import Accelerator
from billhook.codegen.fpga.memory import DRAM, IDEAL
from billhook.codegen.fpga.shape import LayerShape, MapShape
from billhook.codegen.fpga.simulator import Simulator
from billhook.codegen.fpga.tiling import tilings
from billhook.codegen.fpga.timeline import step_cycles
from billhook.codegen.fpga.verify import check
from billhook.ir.errors import MeasureError
from billhook.ir.plan import make_plan
from billhook.passes.prune import carry_out

LAYERS = {
    "3x3": LayerShape(MapShape(20, 7, 7, 1), MapShape(10, 7, 7, 1), (3, 3), (1, 1), (1, 1)),
    "strided, residual": LayerShape(MapShape(9, 8, 6, 1), MapShape(6, 4, 3, 0), (3, 3), (2, 2), (1, 1), 1, 0),
    "wider border, residual": LayerShape(MapShape(8, 5, 5, 2), MapShape(8, 5, 5, 1), (3, 3), (1, 1), (1, 1), 1, 1),
    "1x1 of one pixel": LayerShape(MapShape(50, 1, 1), MapShape(10, 1, 1)),
    "depthwise": LayerShape(MapShape(11, 6, 6, 1), MapShape(11, 6, 6), (3, 3), (1, 1), (1, 1), 11),
    "grouped": LayerShape(MapShape(24, 5, 5, 1), MapShape(12, 5, 5), (3, 3), (1, 1), (1, 1), 2),
    "max pooling": LayerShape(MapShape(10, 8, 8, 1), MapShape(10, 4, 4), (3, 3), (2, 2), (1, 1), 10, None, True),
}


@pytest.fixture(scope="module")
def cache(request: pytest.FixtureRequest) -> Path:
    """Simulators outlive the test run: a build takes seconds to minutes."""
    return Path(request.config.cache.mkdir("fpga"))  # pyright: ignore[reportOptionalMemberAccess]


@pytest.fixture(scope="module")
def small(cache: Path) -> Simulator:
    return built(SMALL, cache)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_equals_the_reference_and_the_cycle_model(small: Simulator, name: str) -> None:
    layer, source, residual = layer_case(LAYERS[name])
    for tiling in tilings(layer.shape, SMALL):
        program = layer_program(layer, residual, tiling, SMALL)
        given = source.astype(np.float32).reshape(1, -1)
        steps = [s for _, s in program.accelerated()]
        for memory in (IDEAL, DRAM):
            simulated = small.run(program.words(), program.memory, given, memory)
            assert np.array_equal(simulated.outputs[0], expected(layer, source, residual))
            predicted = sum(step_cycles(s, SMALL, memory) for s in steps)
            if memory is IDEAL:
                assert simulated.cycles == predicted
            else:
                assert abs(predicted / simulated.cycles - 1) < 0.06


def test_without_double_buffering_it_is_slower_and_still_exact(cache: Path) -> None:
    simulator = built(SINGLE, cache)
    double = Accelerator(4, 4, 4, 256, 256, 64, 128)
    layer, source, residual = layer_case(LAYERS["3x3"])
    tiling = list(tilings(layer.shape, SINGLE))[-1]
    program = layer_program(layer, residual, tiling, SINGLE)
    simulated = simulator.run(program.words(), program.memory, source.astype(np.float32).reshape(1, -1), IDEAL)
    assert np.array_equal(simulated.outputs[0], expected(layer, source, residual))
    steps = [s for _, s in program.accelerated()]
    assert simulated.cycles == sum(step_cycles(s, SINGLE, IDEAL) for s in steps)
    overlapped = [s for _, s in layer_program(layer, residual, tiling, double).accelerated()]
    assert sum(step_cycles(s, double, IDEAL) for s in overlapped) < simulated.cycles


@pytest.mark.parametrize("model", [Block, Encoder])
@pytest.mark.parametrize("pruned", [False, True])
def test_a_network_equals_the_integer_reference_in_every_map(small: Simulator, model: type[torch.nn.Module], pruned: bool) -> None:
    torch.manual_seed(0)
    program = traced(model())
    if pruned:
        axes = [a for a in program.axes if a.prunable and a.size >= 8]
        program = carry_out(program, make_plan(program, {a.name: range(a.size // 2) for a in axes})).program
    network = quantised(program)
    for memory in (IDEAL, DRAM):
        found = check(network, assembled(network, memory), small, samples()[0].numpy(), memory)
        assert found.wrong == 0
        assert found.compared > 1000
        assert abs(found.predicted / found.cycles - 1) <= (0 if memory is IDEAL else 0.05)
        assert np.array_equal(found.outputs, network.outputs(samples()[0].numpy()).reshape(-1))


def test_a_program_for_another_shape_is_refused(small: Simulator) -> None:
    layer, source, residual = layer_case(LAYERS["3x3"])
    other = Accelerator(8, 4, 4, 512, 256, 64, 128)
    program = layer_program(layer, residual, next(tilings(layer.shape, other)), other)
    with pytest.raises(MeasureError, match="driver: code 2"):
        small.run(program.words(), program.memory, source.astype(np.float32).reshape(1, -1), IDEAL)


def test_the_check_sees_a_wrong_weight(small: Simulator) -> None:
    torch.manual_seed(0)
    network = quantised(traced(Block()))
    program = assembled(network, IDEAL)
    damaged = program.memory.copy()
    damaged[-2000:] ^= 64
    from dataclasses import replace

    assert check(network, replace(program, memory=damaged), small, samples()[0].numpy(), IDEAL).wrong > 0
