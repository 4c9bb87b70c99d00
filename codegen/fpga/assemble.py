"""From int8 operations to a program: borders, addresses, steps."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from .layer import Layer
from .layout import pack_map, pack_parameters, pack_weights
from .lowering import QuantisedNetwork
from .operations import EXPONENTIALS, Attention, Gather, HostOperation, Norm, sources
from .pricing import Pricer
from .program import HostStep, Image, PlacedMap, Program
from .schedule import Places, schedule
from .shape import LayerShape

GATHER, NORM, ATTENTION = 1, 2, 3  # as driver/host_steps.c numbers them


def assemble(network: QuantisedNetwork, pricer: Pricer) -> Program:
    """The program of a network for an accelerator, every layer with the tiling that is the fastest by the cycle model. Pure.

    Raises OptionError for a layer that does not fit the accelerator's buffers.
    """
    accelerator, columns = pricer.accelerator, pricer.accelerator.columns
    image = Image()
    maps: dict[str, PlacedMap] = {}
    for name, border in borders(network).items():
        kept = network.maps[name]
        shape = replace(kept.shape, border=border)
        constant = network.constants.get(name)
        size = shape.bytes(columns)
        address = image.reserve(size) if constant is None else image.add(pack_map(constant, shape, columns))
        maps[name] = PlacedMap(shape, address, kept.scale)
    program = Program(accelerator, (), maps, network.input, network.output, image.bytes())
    for operation in network.operations:
        if isinstance(operation, Layer):
            shape = bordered(operation.shape, operation, maps)
            weights, parameters = image.add(pack_weights(operation, accelerator)), image.add(pack_parameters(operation, accelerator))
            residual = maps[operation.residual].address if operation.residual is not None else 0
            places = Places(maps[operation.source].address, weights, parameters, residual, maps[operation.output].address)
            steps = schedule(shape, pricer.price(shape).tiling, accelerator, places, operation.numbers)
        else:
            steps = host_steps(operation, maps, columns)
        program = replace(program, steps=(*program.steps, *((operation.name, step) for step in steps)))
    return replace(program, memory=image.bytes())


def borders(network: QuantisedNetwork) -> dict[str, int]:
    """The border of each map: what the layers that read it pad."""
    found = dict.fromkeys(network.maps, 0)
    for operation in network.operations:
        if isinstance(operation, Layer):
            found[operation.source] = max(found[operation.source], *operation.shape.padding)
    return found


def bordered(shape: LayerShape, layer: Layer, maps: Mapping[str, PlacedMap]) -> LayerShape:
    """A layer's shape with the borders that its maps have in memory."""
    residual = maps[layer.residual].shape.border if layer.residual is not None else None
    return replace(shape, source=maps[layer.source].shape, output=maps[layer.output].shape, residual=residual)


def layer_shapes(network: QuantisedNetwork) -> tuple[tuple[str, LayerShape], ...]:
    """The accelerator's layers by name, with borders."""
    around = borders(network)
    maps = {n: PlacedMap(replace(m.shape, border=around[n]), 0, m.scale) for n, m in network.maps.items()}
    return tuple((o.name, bordered(o.shape, o, maps)) for o in network.operations if isinstance(o, Layer))


def host_steps(operation: HostOperation, maps: Mapping[str, PlacedMap], columns: int) -> tuple[HostStep, ...]:
    """An operation of the host as words of the program."""
    output = maps[operation.output].words(columns)
    given = [maps[name].words(columns) for name in sources(operation)]
    if isinstance(operation, Gather):
        return tuple(
            HostStep(GATHER, _words([*output, *source, *_table(part.table), *part.index.tolist()]))
            for source, part in zip(given, operation.parts, strict=True)
        )
    if isinstance(operation, Norm):
        pairs = zip(operation.gain.tolist(), operation.offset.tolist(), strict=True)
        numbers = [operation.shift, *_long(operation.epsilon), *(w for g, o in pairs for w in (g, *_long(o)))]
        return (HostStep(NORM, _words([*output, *given[0], *numbers])),)
    assert isinstance(operation, Attention)
    numbers = [operation.step, operation.step_shift, operation.multiplier, operation.shift, *EXPONENTIALS.tolist()]
    return (HostStep(ATTENTION, _words([*output, *given[0], *given[1], *given[2], *numbers])),)


def _words(values: list[int]) -> tuple[int, ...]:
    return tuple(v & 0xFFFFFFFF for v in values)


def _long(value: int) -> tuple[int, int]:
    return value & 0xFFFFFFFF, value >> 32


def _table(table: np.ndarray) -> list[int]:
    return cast("list[int]", table.view("<u4").tolist())
