"""Peers in int8: the network quantised by ONNX Runtime's own tool, run by ONNX Runtime and by OpenVINO."""

import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from billhook.compiler.precision import PRECISIONS
from billhook.peers import Absent, Contender, Subject, build_peer

# Name here to name among the peers: OpenVINO computes what is not in int8 in its default precision, which is its fastest.
INT8_PEERS = {"OpenVINO int8": "OpenVINO default precision", "ONNX Runtime int8": "ONNX Runtime"}


class QuantisedSubject(Subject):
    """A network whose ONNX form is quantised after training: unsigned activations by their ranges on the example, weights per channel."""

    @cached_property
    def onnx(self) -> bytes:
        """The network with its operators between quantised values, as both runtimes expect it (QDQ)."""
        from onnxruntime import quantization

        tool: Any = quantization
        real = Subject(self.model, self.args, self.kwargs).onnx
        with tempfile.TemporaryDirectory(prefix="billhook-") as folder:
            source, goal = Path(folder, "real.onnx"), Path(folder, "int8.onnx")
            source.write_bytes(real)
            names = [spec.name for spec in _session(source).get_inputs()]
            once = [dict(zip(names, (t.contiguous().numpy() for t in self.inputs), strict=True))]
            reader: Any = type("Reader", (tool.CalibrationDataReader,), {"get_next": _take(once)})()
            types = {"activation_type": tool.QuantType.QUInt8, "weight_type": tool.QuantType.QInt8}
            tool.quantize_static(str(source), str(goal), reader, quant_format=tool.QuantFormat.QDQ, per_channel=True, **types)
            return goal.read_bytes()


def build_quantised(subject: QuantisedSubject, name: str, threads: int) -> Contender | Absent:
    """An int8 peer by its name in `INT8_PEERS`, under our tolerance for int8."""
    return build_peer(subject, INT8_PEERS[name], threads, PRECISIONS["int8"].tolerance)


def _session(path: Path) -> Any:
    import onnxruntime

    runtime: Any = onnxruntime
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _take(batches: list[dict[str, Any]]) -> Callable[[object], dict[str, Any] | None]:
    """A method that hands out the batches one by one, then None."""
    return lambda _self: batches.pop() if batches else None
