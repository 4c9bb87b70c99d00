"""Peers: other runtimes that run the same network, which Billhook's latencies are compared with.

A peer is built on demand, with its threads set explicitly, and passes a numeric check against torch eager before anybody
times it. One that is not installed or cannot run the network is reported as absent, with the reason.
"""

import copy
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import torch
from torch.utils import _pytree as pytree

from .ir.errors import OptionError
from .ir.tensors import tensors_in
from .passes.oracle import relative_error

FLOAT32_TOLERANCE = 1e-4
REDUCED_TOLERANCE = 0.15  # bfloat16 keeps 8 bits of every value, and errors add up: OpenVINO has 0.096 on a random mobilenet_v2


@dataclass(frozen=True, slots=True)
class Contender:
    """A built peer, ready to be timed.

    run: one inference on the example inputs, outputs left in the runtime's own memory. precision: what the runtime computes
    in. seconds: what building it took. error: largest difference from torch eager, relative to its largest output.
    """

    name: str
    run: Callable[[], object]
    precision: str
    version: str
    threads: int
    seconds: float
    error: float


@dataclass(frozen=True, slots=True)
class Absent:
    """A peer that cannot take part, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Built:
    """What a builder returns: the call to time, how to read the outputs from its result, and the precision."""

    run: Callable[[], object]
    outputs: Callable[[object], list[torch.Tensor]]
    precision: str = "float32"
    tolerance: float = FLOAT32_TOLERANCE


class _Unsuitable(Exception):
    """A peer has nothing to offer for this network."""


class Subject:
    """A network with example inputs, in the forms that the runtimes want; each is made once, when first asked for."""

    def __init__(self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        self.model = copy.deepcopy(model).eval()
        self.args = args
        self.kwargs = dict(kwargs or {})

    @cached_property
    def expected(self) -> list[torch.Tensor]:
        """Outputs of torch eager."""
        with torch.inference_mode():
            return tensors_in(self.model(*self.args, **self.kwargs))

    @cached_property
    def inputs(self) -> list[torch.Tensor]:
        """The example's tensors, in the order of the arguments."""
        return tensors_in((self.args, self.kwargs))

    @cached_property
    def channels_last(self) -> "Subject":
        """The same network with images and filters stored channels-last; the inputs are converted in advance."""
        if not any(x.dim() == 4 for x in self.inputs):
            raise _Unsuitable("the network takes no image: no input has four dimensions")
        convert: Callable[[Any], Any] = lambda x: _channels_last(x) if isinstance(x, torch.Tensor) else x  # noqa: E731
        args, kwargs = pytree.tree_map(convert, (self.args, self.kwargs))
        subject = Subject(self.model, args, kwargs)
        model: Any = subject.model
        model.to(memory_format=torch.channels_last)
        return subject

    @cached_property
    def onnx(self) -> bytes:
        """The network as ONNX."""
        exporter: Any = torch.onnx
        return exporter.export(self.model, self.args, kwargs=self.kwargs, dynamo=True, verbose=False).model_proto.SerializeToString()


def build_peers(subject: Subject, threads: int, names: Iterable[str] | None = None) -> Iterator[Contender | Absent]:
    """Build peers one after the other, by default all; each is there before the next is begun, so progress can be shown.

    Raises:
        OptionError: an unknown name.
    """
    for name in PEERS if names is None else names:
        yield build_peer(subject, name, threads)


def build_peer(subject: Subject, name: str, threads: int, tolerance: float | None = None) -> Contender | Absent:
    """Build one peer and check its outputs. tolerance: of the check; None takes that of the precision that the peer computes in.

    Raises:
        OptionError: an unknown name.
    """
    if name not in PEERS:
        raise OptionError(f"no peer is called {name!r}; known: {', '.join(PEERS)}")
    package, builder = PEERS[name]
    begun = time.perf_counter()
    try:
        with _quiet(), _threads(threads):
            built = builder(subject, threads)
            error = relative_error(built.outputs(built.run()), subject.expected)
    except ImportError as failure:
        return Absent(name, f"not installed: {failure}")
    except _Unsuitable as reason:
        return Absent(name, str(reason))
    # Each runtime has exceptions of its own, some without a common base; whatever a peer raises, the comparison goes on without it.
    except Exception as failure:  # noqa: BLE001
        return Absent(name, f"cannot run this network: {type(failure).__qualname__}: {_first_line(failure)}")
    seconds = time.perf_counter() - begun
    most = built.tolerance if tolerance is None else tolerance
    if not error <= most:
        return Absent(name, f"its output differs from torch eager's by {error:.1e} of the largest, tolerance {most:g}")
    return Contender(name, built.run, built.precision, metadata.version(package), threads, seconds, error)


def _eager(subject: Subject, threads: int) -> _Built:
    return _torch(subject.model, subject, threads)


def _eager_channels_last(subject: Subject, threads: int) -> _Built:
    return _torch(subject.channels_last.model, subject.channels_last, threads)


def _compiled(subject: Subject, threads: int) -> _Built:
    """torch.compile as it is fastest: images channels-last, and the call sequence in C++ too.

    One generated C++ file instead of one per kernel halves what building costs; asking the processor, instead of a test
    compilation each, which vectors it has saves as much again the first time.
    """
    options: dict[str, Any] = {"cpp_wrapper": True, "cpp.vec_isa_ok": True, "cpp.threads": threads}
    best = subject.channels_last if any(x.dim() == 4 for x in subject.inputs) else subject
    # Compilations of one class share a limit of eight, after which torch silently runs eager, unless they are isolated.
    library: Any = torch
    return _torch(library.compile(best.model, options=options, dynamic=False, isolate_recompiles=True), best, threads)


def _torch(model: Callable[..., Any], subject: Subject, threads: int) -> _Built:
    def run() -> object:
        torch.set_num_threads(threads)  # a setting of the process, which another contender may have changed
        with torch.inference_mode():
            return model(*subject.args, **subject.kwargs)

    return _Built(run, tensors_in)


def _onnxruntime(subject: Subject, threads: int) -> _Built:
    import onnxruntime

    runtime: Any = onnxruntime
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin after a run would slow down the contender that comes next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = runtime.InferenceSession(subject.onnx, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for spec, tensor in zip(session.get_inputs(), subject.inputs, strict=True):
        binding.bind_ortvalue_input(spec.name, runtime.OrtValue.ortvalue_from_numpy(tensor.contiguous().numpy()))
    for spec in session.get_outputs():
        binding.bind_output(spec.name)
    return _Built(
        run=lambda: session.run_with_iobinding(binding),
        outputs=lambda _: [torch.as_tensor(output) for output in binding.copy_outputs_to_cpu()],
    )


def _openvino(subject: Subject, threads: int) -> _Built:
    return _openvino_with(subject, threads, {"INFERENCE_PRECISION_HINT": "f32"})


def _openvino_default(subject: Subject, threads: int) -> _Built:
    built = _openvino_with(subject, threads, {})
    if built.precision == "float32":
        raise _Unsuitable("its default precision on this processor is float32, as that of openvino")
    return built


def _openvino_with(subject: Subject, threads: int, hints: Mapping[str, str]) -> _Built:
    import openvino

    runtime: Any = openvino
    core = runtime.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    compiled = core.compile_model(core.read_model(subject.onnx), "CPU", {**settings, **hints})
    request = compiled.create_infer_request()
    for i, tensor in enumerate(subject.inputs):
        request.set_input_tensor(i, runtime.Tensor(tensor.contiguous().numpy(), shared_memory=True))
    full = compiled.get_property("INFERENCE_PRECISION_HINT") == runtime.Type.f32
    precision, tolerance = ("float32", FLOAT32_TOLERANCE) if full else ("bfloat16", REDUCED_TOLERANCE)

    def outputs(_: object) -> list[torch.Tensor]:
        return [torch.as_tensor(request.get_output_tensor(i).data) for i in range(len(compiled.outputs))]

    return _Built(request.infer, outputs, precision, tolerance)


# Name to package and builder; the order is that of reports.
PEERS: Mapping[str, tuple[str, Callable[[Subject, int], _Built]]] = {
    "torch eager": ("torch", _eager),
    "torch eager channels-last": ("torch", _eager_channels_last),
    "torch.compile": ("torch", _compiled),
    "ONNX Runtime": ("onnxruntime", _onnxruntime),
    "OpenVINO": ("openvino", _openvino),
    "OpenVINO default precision": ("openvino", _openvino_default),
}


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    channels_last: Any = torch.channels_last
    return tensor.contiguous(memory_format=channels_last) if tensor.dim() == 4 else tensor


@contextmanager
def _threads(count: int) -> Generator[None]:
    """Set torch's threads, which a compilation takes over, for as long as this lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first_line(failure: Exception) -> str:
    lines = str(failure).strip().splitlines()
    return lines[0][:300] if lines else "no reason given"
