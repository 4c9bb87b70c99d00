"""The peers: PyTorch's forms of a network on the GPU, each as a call that runs one inference on fixed inputs."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Peer:
    """A form of a network: precision ("float32", "tf32", "float16", "bfloat16"), memory format, and how it is run."""

    precision: str
    channels_last: bool
    how: str  # "eager", "graph", "compile" or "max-autotune"

    def __str__(self) -> str:
        return f"torch {self.how} {self.precision}{' channels-last' if self.channels_last else ''}"


PRECISIONS = "float32", "tf32", "float16", "bfloat16"
PEERS = tuple(Peer(p, last, how) for how in ("eager", "graph") for p in PRECISIONS for last in (False, True)) + tuple(
    Peer(p, last, how) for how in ("compile", "max-autotune") for p, last in (("float32", False), ("tf32", True), ("float16", True))
)


def prepare(peer: Peer, model: torch.nn.Module, x: torch.Tensor) -> tuple[Run, torch.Tensor]:
    """A call that runs the peer, and its output (float32, on the host) for checking.

    TF32 is a global switch of PyTorch: `Precision` sets it around every call.
    """
    dtype = torch.float32 if peer.precision in {"float32", "tf32"} else getattr(torch, peer.precision)
    layout = torch.channels_last if peer.channels_last else torch.contiguous_format
    net: Any = deepcopy(model).cuda().to(dtype)
    net = net.to(memory_format=layout)
    given = x.cuda().to(dtype).contiguous(memory_format=layout)
    if peer.how in {"compile", "max-autotune"}:
        compiler: Any = torch
        net = compiler.compile(net, mode="max-autotune" if peer.how == "max-autotune" else None, fullgraph=True)

    def forward() -> torch.Tensor:
        return net(given)

    run = _switched(peer.precision == "tf32", forward)
    for _ in range(4):
        run()
    output = run()
    torch.cuda.synchronize()
    result = output.float().cpu()
    return (_captured(run) if peer.how == "graph" else run), result


def _switched(tf32: bool, run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    def call() -> torch.Tensor:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        with torch.inference_mode():
            return run()

    return call


def _captured(run: Run) -> Run:
    """The same work as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
