"""Running a program in the simulator, and comparing every map in its memory with the integer reference."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .instructions import Step
from .layer import Layer
from .layout import unpack_map
from .lowering import QuantisedNetwork
from .memory import Memory
from .program import Program
from .simulator import Simulated, Simulator
from .timeline import step_cycles


@dataclass(frozen=True, slots=True)
class Checked:
    """What a simulation showed. wrong: elements of all maps that differ from the integer reference, of `compared`.

    cycles: simulated, of the accelerator's steps, beside the cycle model's `predicted`. layers: (name, simulated, predicted).
    """

    wrong: int
    compared: int
    outputs: NDArray[np.float32]
    cycles: int
    predicted: int
    layers: tuple[tuple[str, int, int], ...]


def check(network: QuantisedNetwork, program: Program, simulator: Simulator, sample: NDArray[np.float32], memory: Memory) -> Checked:
    """Simulate one sample [1, ...] and compare all maps. Pure but for the simulator's temporary files."""
    simulated = simulator.run(program.words(), program.memory, np.asarray(sample, dtype=np.float32).reshape(1, -1), memory)
    expected = network.run(sample)
    wrong, compared = 0, 0
    for name in written(network):
        placed = program.maps[name]
        size = placed.shape.bytes(program.accelerator.columns)
        got = unpack_map(simulated.memory[placed.address : placed.address + size], placed.shape, program.accelerator.columns)
        wrong += int((got != expected[name]).sum())
        compared += got.size
    layers = _layers(program, simulated, memory)
    return Checked(wrong, compared, simulated.outputs[0], sum(c for _, c, _ in layers), sum(p for *_, p in layers), layers)


def written(network: QuantisedNetwork) -> tuple[str, ...]:
    """The maps that the operations write, and the input."""
    return (network.input, *(o.output for o in network.operations))


def _layers(program: Program, simulated: Simulated, memory: Memory) -> tuple[tuple[str, int, int], ...]:
    found: dict[str, tuple[int, int]] = {}
    by_index = {s.index: s.cycles for s in simulated.steps}
    for i, (name, step) in enumerate(program.steps):
        if isinstance(step, Step):
            before = found.get(name, (0, 0))
            predicted = step_cycles(step, program.accelerator, memory)
            found[name] = before[0] + by_index[i], before[1] + predicted
    return tuple((n, c, p) for n, (c, p) in found.items())


def predicted_cycles(program: Program, memory: Memory) -> int:
    """Of all steps of the accelerator for one sample, by the cycle model."""
    return sum(step_cycles(step, program.accelerator, memory) for _, step in program.steps if isinstance(step, Step))


def accelerated_macs(network: QuantisedNetwork) -> int:
    """Multiply-adds of the layers that the accelerator runs."""
    return sum(o.shape.macs for o in network.operations if isinstance(o, Layer))
