"""The process that talks to a device: builds, uploads, checks and times. Run as `python -m billhook.codegen.remote_worker OPTIONS`.

Requests and replies are JSON lines. Every request gets a session of its own with a server that the tracker chooses, so that a server
that dies is simply not met again, and the server itself ends a session that lasts too long. Replies besides results: {"rejected":
reason} where the kernel is at fault, {"lost": reason} where the connection broke, {"absent": reason} where no server is to be had.
"""

import gc
import math
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from billhook.ir.errors import DeviceError, MeasureError, ToolchainError
from billhook.ir.target import Target
from billhook.ir.workload import Workload, workload_from_json

from . import lower
from .arm.targets import LINUX
from .arm.toolchain import cross_compiler
from .child import serve
from .cpu.candidate import Candidate, candidate_from_json
from .device import Address, Facts
from .remote_kernel import CPUINFO, CPUINFO_BYTES, ROTATE, SPREAD, Buffer, cpuinfo_library, remote_library
from .samples import expected_output, flat_inputs, mismatch, sample_inputs
from .toolchain import find_compiler
from .tracker import request as request_server
from .tvm_any import relax, tvm

_rpc: Any = import_module("tvm.rpc")
_TRACKER_SECONDS = 5.0  # a tracker only passes names on: it answers at once or not at all
_LEAST_COPIES, _MAX_COPIES = 4, 64  # even parameters larger than the cache leave part of themselves there between two calls
_SAMPLE_SECONDS = 1e-3  # one timing lasts at least this long
_SAMPLES = (5, 40)  # at least and at most so many timings of a kernel
_BIG_CORES = 1  # TVM's name for them in its thread pool


class _LostError(Exception):
    """The session ended from the other side."""


class RemoteWorker:
    """Answers requests by sessions with servers of one key."""

    def __init__(self, options: dict[str, Any]) -> None:
        host, port = options["tracker"]
        self._tracker, self._key = Address(host, port), str(options["key"])
        self._timeout, self._patience, self._grace = (float(options[k]) for k in ("timeout", "patience", "grace"))
        self._cold_bytes = int(options["cold_bytes"])
        self._known = ""
        self._arrays: tuple[np.ndarray, ...] = ()
        self._expected = np.zeros(0)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Reply to one request; `do` says what is asked."""
        do = {"facts": self._facts, "kernel": self._kernel, "network": self._network}[request["do"]]
        try:
            return do(request)
        except _LostError as error:
            return {"lost": _last_line(error)}
        except (DeviceError, ToolchainError) as error:
            return {"absent": str(error)}
        finally:
            gc.collect()  # a session that lingers in a cycle (tracebacks, TVM's virtual machine) keeps its server from everybody

    @contextmanager
    def _session(self, seconds: float) -> Generator[Any]:
        """A session with some server; what breaks inside becomes _LostError, or MeasureError where the called code is at fault."""
        grant = request_server(self._tracker, self._key, _TRACKER_SECONDS, self._patience, self._grace)
        began = monotonic()
        try:
            session = _rpc.connect(grant.host, grant.port, grant.key, session_timeout=seconds)
            yield session
        except tvm.error.RPCSessionTimeoutError as error:
            raise MeasureError(_slow(seconds)) from error
        except tvm.error.RPCError as error:  # raised there and handed back: the connection is fine
            raise MeasureError(f"fails on the device: {_last_line(error)}") from error
        except (tvm.error.InternalError, OSError) as error:
            if monotonic() - began >= seconds:  # the server ended the session while we were sending: no answer says so
                raise MeasureError(_slow(seconds)) from error
            raise _LostError(f"the server at {grant.host}:{grant.port} is gone: {_last_line(error)}") from error

    def _load(self, session: Any, module: Any, triple: str = "") -> Any:
        """A built module on the device. triple: what it was made for, where that is not this machine."""
        compiler = cross_compiler() if triple else find_compiler()
        with tempfile.TemporaryDirectory(prefix="billhook-") as folder:
            library = Path(folder, "kernel.so")
            module.export_library(str(library), cc=compiler)
            session.upload(str(library))
        return session.load_module(library.name)

    def _facts(self, _request: dict[str, Any]) -> dict[str, Any]:
        with self._session(self._timeout) as session:
            mcpu, triple = (_asked(session, f"target.llvm_get_system_{what}") for what in ("cpu", "triple"))
            there, here = (t.partition("-")[0] for t in (triple, _asked(None, "target.llvm_get_system_triple")))
            foreign = LINUX if there == "aarch64" != here else ""
            known = foreign or there == here
            cpuinfo = _read_cpuinfo(session, self._load(session, cpuinfo_library("llvm", foreign), foreign)) if known else ""
        facts = Facts(cpuinfo, mcpu, triple)
        return {"cpuinfo": facts.cpuinfo, "mcpu": facts.mcpu, "triple": facts.triple}

    def _kernel(self, request: dict[str, Any]) -> dict[str, Any]:
        """Seconds of one candidate: {"low", "seconds", "high", "cpuinfo"}."""
        workload, candidate = workload_from_json(request["workload"]), candidate_from_json(request["candidate"])
        target = Target(**request["target"])
        if request["workload"] != self._known:
            self._arrays = sample_inputs(workload)
            self._expected = expected_output(workload, self._arrays)
            self._known = request["workload"]
        try:
            arrays = self._packed(workload, candidate, target)
            buffers = _buffers(workload, arrays)
            copies = self._copies(buffers)
            module = remote_library(workload, candidate, target, buffers, copies)
            with self._session(self._timeout) as session:
                loaded = self._load(session, module, target.triple)
                _use_threads(session, target.threads)
                seconds = self._time(session, loaded, arrays, buffers, copies, request)
                return {**_quartiles(seconds), "cpuinfo": _read_cpuinfo(session, loaded)}
        except (MeasureError, ValueError, TypeError, RuntimeError) as error:  # TVM's errors are subclasses of these
            return {"rejected": _last_line(error)}

    def _packed(self, workload: Workload, candidate: Candidate, target: Target) -> list[np.ndarray]:
        """The inputs and a zeroed output, as the kernel takes them."""

        def pack(index: int, array: np.ndarray) -> np.ndarray:
            return lower.pack(workload, candidate, target, index, array)

        arrays: list[np.ndarray] = []
        for given, array in zip(workload.inputs, flat_inputs(workload, self._arrays, pack), strict=True):
            shape = lower.buffer_shape(given, candidate)
            arrays.append(np.ascontiguousarray(array if shape is None else array.reshape(shape)))
        out = workload.output
        return [*arrays, np.zeros(lower.buffer_shape(out, candidate) or (out.elements,), out.dtype)]

    def _copies(self, buffers: list[Buffer]) -> int:
        size = sum(4 * b.pitch for b in buffers if b.role == "parameter")
        return min(max(-(-self._cold_bytes // size), _LEAST_COPIES), _MAX_COPIES) if size else 1

    def _time(
        self, session: Any, loaded: Any, arrays: list[np.ndarray], buffers: list[Buffer], copies: int, request: dict[str, Any]
    ) -> list[float]:
        """Check the kernel, then time it: seconds per call. MeasureError if the result is wrong."""
        device = session.cpu()
        tensors = [tvm.runtime.tensor(array, device) for array in arrays]
        loaded[lower.KERNEL](*tensors)
        workload, candidate = workload_from_json(request["workload"]), candidate_from_json(request["candidate"])
        reason = mismatch(workload, tensors[-1].numpy().reshape(-1), self._expected, lower.tolerance(candidate))
        if reason:
            raise MeasureError(reason)
        flat = [tvm.runtime.empty((b.pitch * copies if b.role == "parameter" else b.elements,), b.dtype, device) for b in buffers]
        pairs = [(tvm.runtime.tensor(a.reshape(-1), device), f) for a, f in zip(arrays, flat, strict=True)]
        loaded[SPREAD](*[t for b, pair in zip(buffers, pairs, strict=True) if b.role == "parameter" for t in pair])
        rotated = [f if b.role == "parameter" else t for b, (t, f) in zip(buffers, pairs, strict=True)]

        def timed(number: int, repeat: int) -> list[float]:
            found = loaded.time_evaluator(ROTATE, device, number=number, repeat=repeat)(*rotated)
            return [max(s / copies, 1e-9) for s in found.results]

        once = min(timed(1, 2))
        if once > request["give_up_above"]:
            return timed(1, 3)
        number = max(1, math.ceil(_SAMPLE_SECONDS / (once * copies)))
        least, most = _SAMPLES
        return timed(number, min(max(round(request["budget"] / (once * copies * number)), least), most))

    def _network(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a network's library: writes its outputs to `outputs` (npz) and gives {"seconds": [per inference, ...]}."""
        with np.load(request["inputs"]) as file:
            arrays = [file[name] for name in file.files]
        library = Path(request["library"])
        try:
            with self._session(self._timeout) as session:
                session.upload(str(library))
                _use_threads(session, request["threads"])
                device = session.cpu()
                machine = relax.VirtualMachine(session.load_module(library.name), device)
                machine.set_input("main", *[tvm.runtime.tensor(a, device) for a in arrays])
                machine.invoke_stateful("main")
                outputs = machine.get_outputs("main")
                np.savez(request["outputs"], *[o.numpy() for o in (outputs if isinstance(outputs, tuple) else (outputs,))])
                once = min(machine.time_evaluator("invoke_stateful", device, number=1, repeat=2)("main").results)
                number = max(1, math.ceil(request["slice"] / max(once, 1e-9)))
                timer = machine.time_evaluator("invoke_stateful", device, number=number, repeat=request["repeats"])
                return {"seconds": list(timer("main").results)}
        except (MeasureError, ValueError, TypeError, RuntimeError) as error:
            return {"rejected": _last_line(error)}


def _buffers(workload: Workload, arrays: list[np.ndarray]) -> list[Buffer]:
    roles = (*workload.roles, "activation")
    return [Buffer(tuple(map(int, a.shape)), str(a.dtype), role) for a, role in zip(arrays, roles, strict=True)]


def _slow(seconds: float) -> str:
    return f"took more than {seconds:g} s on the device"


def _quartiles(seconds: list[float]) -> dict[str, float]:
    """The summary that the local stopwatch gives: fastest, lower quartile, upper quartile."""
    ordered = sorted(seconds)
    return {"low": ordered[0], "seconds": ordered[len(ordered) // 4], "high": ordered[3 * len(ordered) // 4]}


def _asked(session: Any, name: str) -> str:
    """What a function without arguments says, here or on the device; "" where it does not exist (a runtime without compiler)."""
    try:
        function = session.get_function(name) if session is not None else tvm.get_global_func(name)
        return str(function())
    except (AttributeError, ValueError, tvm.error.RPCError):
        return ""


def _use_threads(session: Any, threads: int) -> None:
    """Let kernels on the device use this many threads; a server without a thread pool has one anyway."""
    try:
        session.get_function("runtime.config_threadpool")(_BIG_CORES, threads)
    except (AttributeError, ValueError):
        return


def _read_cpuinfo(session: Any, loaded: Any) -> str:
    text = tvm.runtime.tensor(np.zeros(CPUINFO_BYTES, np.uint8), session.cpu())
    loaded[CPUINFO](text)
    return bytes(text.numpy()).rstrip(b"\0").decode(errors="replace").partition("\n\n")[0]


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def main() -> None:
    """Serve until standard input closes."""
    torch.set_num_threads(1)
    gc.freeze()  # what is loaded stays: the collection after each request need not look at it
    serve(lambda options: RemoteWorker(options).answer)


if __name__ == "__main__":
    main()
