"""From a network of float kernels to int8 operations: layers of the accelerator, and what its host computes between them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from billhook.ir.errors import CaptureError
from billhook.ir.network import Kernel, Network
from billhook.ir.reference import run_calls
from billhook.ir.workload import Call, Ref, Workload

from .calibrate import calibrate, value_name
from .fuse import Fused, fused, is_bias, layer_shape, map_shape, meta_values, references, source_of
from .layer import Int8, Layer
from .operations import EXP_STEPS, MEAN_BITS, NORM_BITS, Attention, Gather, Norm, Operation, Part, run_operation
from .quantise import Scales, fixed_point, quantise, quantise_weights, requantisation
from .shape import MapShape

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class QuantisedMap:
    """shape: without border. value = scale * int8; least: the smallest value that it can hold."""

    shape: MapShape
    scale: float
    least: int = -128


@dataclass(frozen=True, eq=False)
class QuantisedNetwork:
    """int8 operations in order over named maps. constants: maps that hold parameters. One input, one output."""

    operations: tuple[Operation, ...]
    maps: Mapping[str, QuantisedMap]
    constants: Mapping[str, Int8]
    input: str
    output: str
    output_shape: tuple[int, ...]  # in torch

    def run(self, sample: NDArray[np.float32]) -> dict[str, Int8]:
        """All maps for an input [1, ...], int8 [C, H, W] each: the integer reference of the hardware. Pure."""
        given = self.maps[self.input]
        scaled = np.rint(np.asarray(sample, dtype=np.float32).reshape(_dims(given.shape)) * np.float32(1.0 / given.scale))
        values: dict[str, Int8] = {**self.constants, self.input: np.clip(scaled, -128, 127).astype(np.int8)}
        for operation in self.operations:
            values[operation.output] = run_operation(operation, values, _dims(self.maps[operation.output].shape))
        return values

    def outputs(self, sample: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's output in real values, in torch's shape."""
        made = self.run(sample)[self.output].astype(np.float32) * np.float32(self.maps[self.output].scale)
        return made.reshape(self.output_shape)


def quantise_network(network: Network, samples: Iterable[torch.Tensor]) -> QuantisedNetwork:
    """Calibrate on samples of the network's input shape, and lower to int8 operations.

    Raises CaptureError for operators and shapes that the target does not have (by name), DataError for unusable samples.
    """
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        count = f"{len(network.inputs)} inputs and {len(network.outputs)} outputs"
        raise CaptureError(f"the network has {count}; the FPGA target takes networks with one of each")
    name, given = network.inputs[0]
    if len(given.shape) not in {2, 4}:
        raise CaptureError(f"input {name} has shape {list(given.shape)}; the FPGA target takes [1, C, H, W] or [1, C]")
    map_shape(given.shape)
    return _Lowering(network, calibrate(network, samples)).run()


def _dims(shape: MapShape) -> tuple[int, int, int]:
    return shape.channels, shape.height, shape.width


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor: for each of its elements the number of the stored element that it is (a view of stored maps)."""

    elements: torch.Tensor  # int64, in the tensor's shape


@dataclass(slots=True)
class _Lowering:
    network: Network
    scales: Mapping[str, float]
    operations: list[Operation] = field(default_factory=list[Operation])
    maps: dict[str, QuantisedMap] = field(default_factory=dict[str, QuantisedMap])
    constants: dict[str, Int8] = field(default_factory=dict[str, Int8])
    starts: dict[str, int] = field(default_factory=dict[str, int])  # number of the first element of each stored map
    values: dict[str, _Value] = field(default_factory=dict[str, _Value])

    def run(self) -> QuantisedNetwork:
        (name, given), (output,) = self.network.inputs[0], self.network.outputs
        self._store(name, given.shape, self.scales[name])
        for kernel in self.network.kernels:
            self._kernel(kernel)
        shape = tuple(self.values[output].elements.shape)
        flat = map_shape(shape) if len(shape) in {2, 4} else MapShape(1, 1, int(np.prod(shape)))
        made = self._map(output, flat)
        return QuantisedNetwork(tuple(self.operations), self.maps, self.constants, name, made, shape)

    # ---------------------------------------------------------------- values and maps

    def _store(self, name: str, shape: Sequence[int], scale: float, least: int = -128) -> str:
        """Note a stored map for a tensor of this shape, and the value that it is."""
        form = map_shape(shape)
        self._note(name, form, scale, least)
        numbers = torch.arange(self.starts[name], self.starts[name] + form.channels * form.height * form.width)
        if len(shape) == 4:
            elements = numbers.reshape(tuple(shape))
        else:
            elements = numbers.reshape(form.channels, -1).T.reshape(tuple(shape))
        self.values[name] = _Value(elements)
        return name

    def _note(self, name: str, form: MapShape, scale: float, least: int) -> None:
        self.starts[name] = sum(m.shape.channels * m.shape.height * m.shape.width for m in self.maps.values())
        self.maps[name] = QuantisedMap(form, scale, least)

    def _value(self, name: str) -> _Value:
        """A value by name; a constant becomes a map when it is first asked for."""
        if name not in self.values:
            array = self.network.constants[name].detach().double().numpy()
            scale = max(float(np.abs(array).max(initial=0)), 1e-8) / 127
            self._store(name, array.shape, scale)
            ordered = array.reshape(-1)[np.argsort(self.values[name].elements.numpy().reshape(-1))]
            self.constants[name] = quantise(ordered, scale).reshape(_dims(self.maps[name].shape))
        return self.values[name]

    def _sources(self, elements: Index) -> list[str]:
        """The stored maps that elements come from."""
        ends = {n: self.starts[n] + int(np.prod(_dims(m.shape))) for n, m in self.maps.items()}
        return [n for n in self.maps if ((elements >= self.starts[n]) & (elements < ends[n])).any()]

    def _map(self, name: str, form: MapShape | None = None) -> str:
        """The name of a stored map that holds a value as it is: its own, or a gathered one."""
        elements = self._value(name).elements
        if form is None:
            form = map_shape(tuple(elements.shape))
            order = elements if elements.ndim == 4 else elements.reshape(-1, elements.shape[-1]).T
        else:
            order = elements if form.channels == 1 or elements.ndim == 4 else elements.reshape(-1, elements.shape[-1]).T
        wanted: Index = order.reshape(-1).numpy()
        sources = self._sources(wanted)
        first = sources[0]
        if len(sources) == 1 and self.maps[first].shape == form and (np.diff(wanted) == 1).all() and wanted[0] == self.starts[first]:
            return first
        scale = max(self.maps[s].scale for s in sources)
        parts = [Part(s, self._places(wanted, s), _rescaled(self.maps[s].scale, scale)) for s in sources]
        made = f"{name}.map"
        if made not in self.maps:
            self._note(made, form, scale, min(self.maps[s].least for s in sources))
            self.operations.append(Gather(made, made, tuple(parts)))
        return made

    def _places(self, wanted: Index, source: str) -> NDArray[np.int32]:
        count = int(np.prod(_dims(self.maps[source].shape)))
        places = wanted - self.starts[source]
        return np.where((places >= 0) & (places < count), places, -1).astype(np.int32)

    # ---------------------------------------------------------------- kernels

    def _kernel(self, kernel: Kernel) -> None:
        workload = kernel.workload
        shapes = [tuple(v.shape) for v in meta_values(workload)]
        names = [*kernel.inputs, *(value_name(kernel.output, i, len(workload.calls)) for i in range(len(workload.calls)))]
        for operation in fused(workload):
            if operation.kind == "layer":
                self._layer(workload, operation, shapes, names)
            elif operation.kind == "move":
                self._move(workload, operation, names)
            elif operation.kind == "unary":
                self._unary(workload, operation, shapes, names)
            elif operation.kind == "norm":
                self._norm(workload, operation, shapes, names)
            else:
                self._attention(workload, operation, shapes, names)
        made = self.values[kernel.output]
        self.values[kernel.output] = _Value(made.elements.reshape(workload.output.shape))

    def _layer(self, workload: Workload, operation: Fused, shapes: list[tuple[int, ...]], names: list[str]) -> None:
        call, output = workload.calls[operation.first], names[len(workload.inputs) + operation.last]
        shape = layer_shape(workload, operation, shapes)
        source = self._map(names[source_of(workload, call).index])
        residual = self._map(names[operation.residual.index]) if operation.residual is not None else None
        given = self.maps[source]
        if shape.maximum and shape.padding != (0, 0) and given.least < 0:
            raise CaptureError(f"value {output}: max pooling with padding needs an input that is never negative; put the ReLU before it")
        weight, steps, bias = self._weights(call, names, shape.kernel, shape.output.channels)
        if is_bias(workload, operation.first, shapes):
            constant = next(r for r in references(call) if r != source_of(workload, call))
            bias = self.network.constants[names[constant.index]].detach().double().numpy().reshape(-1)
        scale = given.scale if shape.maximum else self.scales[output]
        scales = Scales(given.scale, scale, self.maps[residual].scale if residual else 0.0)
        offset, multiplier, numbers = requantisation(steps, bias, scales, operation.low, operation.high)
        least = max(
            numbers.low, given.least if call.op.removeprefix("aten.").startswith(("max_pool", "avg_pool", "adaptive", "mean")) else -128
        )
        self._store(output, shapes[len(workload.inputs) + operation.last], scale, least)
        self.operations.append(Layer(output, shape, source, output, residual, weight, offset, multiplier, numbers))

    def _weights(
        self, call: Call, names: list[str], kernel: tuple[int, int], channels: int
    ) -> tuple[Int8, NDArray[np.float64], NDArray[np.float64]]:
        """int8 weights [O, I / groups, kh, kw], their steps [O] and the real bias [O]; poolings and sums have weights of one."""
        if call.op not in {"aten.conv2d.default", "aten.linear.default"}:
            average = call.op in {"aten.avg_pool2d.default", "aten.adaptive_avg_pool2d.default", "aten.mean.dim"}
            step = 1.0 / (kernel[0] * kernel[1]) if average else 1.0
            return np.ones((channels, 1, *kernel), dtype=np.int8), np.full(channels, step), np.zeros(channels)
        parameters = [a if isinstance(a, Ref) else None for a in call.args[1:3]]
        weight, bias = (self.network.constants[names[r.index]].detach().double().numpy() if r is not None else None for r in parameters)
        assert weight is not None
        values, steps = quantise_weights(weight.reshape(weight.shape[0], weight.shape[1], *kernel))
        return values, steps, bias if bias is not None else np.zeros(channels)

    def _move(self, workload: Workload, operation: Fused, names: list[str]) -> None:
        call = workload.calls[operation.first]
        for ref in references(call):
            self._value(names[ref.index])
        given = [self.values[n].elements if n in self.values else torch.empty(0) for n in names[: len(workload.inputs) + operation.first]]
        self.values[names[len(workload.inputs) + operation.first]] = _Value(run_calls([call], given)[-1])

    def _unary(self, workload: Workload, operation: Fused, shapes: list[tuple[int, ...]], names: list[str]) -> None:
        """A function of single values is a table."""
        call, output = workload.calls[operation.first], names[len(workload.inputs) + operation.first]
        source = self._map(names[references(call)[0].index])
        given, scale = self.maps[source], self.scales[output]
        grid = torch.arange(-128, 128, dtype=torch.float32) * given.scale
        place = references(call)[0].index
        results = run_calls([call], [grid] * (place + 1))[-1].double().numpy()
        table = quantise(results, scale)
        self._store(output, shapes[len(workload.inputs) + operation.first], scale, int(table.min()))
        index = np.arange(int(np.prod(_dims(given.shape))), dtype=np.int32)
        self.operations.append(Gather(output, output, (Part(source, index, table),)))

    def _norm(self, workload: Workload, operation: Fused, shapes: list[tuple[int, ...]], names: list[str]) -> None:
        call, output = workload.calls[operation.first], names[len(workload.inputs) + operation.first]
        source = self._map(names[references(call)[0].index])
        given, scale = self.maps[source], self.scales[output]
        channels = given.shape.channels
        if not isinstance(call.args[1], tuple) or len(call.args[1]) != 1:
            raise CaptureError(f"value {output}: layer normalisation over more than the last dimension is not supported on the FPGA target")
        gain, offset = (self._parameter(a, names, d, channels) for a, d in zip(call.args[2:4], (1.0, 0.0), strict=True))
        _, shift = fixed_point(max(float(np.abs(gain).max()) / scale / 2**NORM_BITS, 1e-9), 24)
        small = call.args[4] if isinstance(call.args[4], float) else 1e-5
        epsilon = max(1, round(small / given.scale**2 * channels**2))
        self._store(output, shapes[len(workload.inputs) + operation.first], scale)
        gains = np.rint(gain / scale * 2.0 ** (shift - NORM_BITS)).astype(np.int32)
        offsets = np.rint(offset / scale * 2.0**shift).astype(np.int64)
        self.operations.append(Norm(output, source, output, gains, offsets, shift, epsilon))

    def _parameter(self, arg: object, names: list[str], default: float, channels: int) -> NDArray[np.float64]:
        if isinstance(arg, Ref):
            return self.network.constants[names[arg.index]].detach().double().numpy()
        return np.full(channels, default)

    def _attention(self, workload: Workload, operation: Fused, shapes: list[tuple[int, ...]], names: list[str]) -> None:
        call, output = workload.calls[operation.first], names[len(workload.inputs) + operation.first]
        refs, options = references(call), dict(call.kwargs)
        plain = len(refs) == 3 and not call.args[5] and not options.get("enable_gqa") and len({shapes[r.index][:2] for r in refs}) == 1
        if not plain or len(shapes[refs[0].index]) != 4:
            raise CaptureError(f"value {output}: attention with a mask, or with shared keys, is not supported on the FPGA target")
        q, k, v = (self._map(names[r.index]) for r in refs)
        width = shapes[refs[0].index][3]
        factor = options.get("scale")
        factor = float(factor) if isinstance(factor, (int, float)) else width**-0.5
        step, step_shift = fixed_point(self.maps[q].scale * self.maps[k].scale * factor * EXP_STEPS)
        scale = self.scales[output]
        multiplier, shift = fixed_point(self.maps[v].scale / scale / 2**MEAN_BITS)
        self._store(output, shapes[len(workload.inputs) + operation.first], scale)
        self.operations.append(Attention(output, q, k, v, output, step, step_shift, multiplier, shift))


def _rescaled(source: float, output: float) -> Int8:
    """The table from one scale to another."""
    return quantise(np.arange(-128, 128, dtype=np.float64) * source, output)
