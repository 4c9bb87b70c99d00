"""Networks of one or a few kernels for CUDA tests, with row-major tensors."""

import torch
from kernel_workloads import WorkloadBuilder

from billhook.ir.network import Kernel, Network
from billhook.ir.target import Target
from billhook.ir.workload import TensorType, Workload

SM90 = Target(kind="cuda", mcpu="sm_90")


def one_kernel(workload: Workload) -> Network:
    """The network that computes a workload: its activations are the inputs, random parameters the constants."""
    random = torch.Generator().manual_seed(1)
    names = [f"{'x' if role == 'activation' else 'w'}{i}" for i, role in enumerate(workload.roles)]
    named = list(zip(names, workload.inputs, workload.roles, strict=True))
    constants = {n: torch.randn(t.shape, generator=random) for n, t, r in named if r == "parameter"}
    return Network(
        tuple((n, t) for n, t, r in named if r == "activation"), ("y",), (Kernel("kernel", workload, tuple(names), "y"),), constants
    )


def conv(
    batch: int = 1,
    channels: int = 12,
    out: int = 20,
    window: int = 3,
    stride: int = 1,
    groups: int = 1,
    padding: int | None = None,
    map_size: tuple[int, int] = (9, 11),
    *,
    tail: bool = False,
) -> Workload:
    """A convolution with bias; tail: a residual and a relu behind it."""
    b = WorkloadBuilder()
    pad = window // 2 if padding is None else padding
    height, width = ((size + 2 * pad - window) // stride + 1 for size in map_size)
    x, w, bias = b.tensor(batch, channels, *map_size), b.parameter(out, channels // groups, window, window), b.parameter(out)
    other = b.tensor(batch, out, height, width) if tail else None
    y = b.call("aten.conv2d.default", x, w, bias, (stride, stride), (pad, pad), (1, 1), groups)
    if tail:
        b.call("aten.relu.default", b.call("aten.add.Tensor", y, other, alpha=1))
    return b.finish(batch, out, height, width)


def linear(rows: int) -> Workload:
    """A linear map of `rows` vectors with gelu."""
    b = WorkloadBuilder()
    y = b.call("aten.linear.default", b.tensor(rows, 48), b.parameter(40, 48), b.parameter(40))
    b.call("aten.gelu.default", y, approximate="none")
    return b.finish(rows, 40)


def attention() -> Workload:
    """Two heads over ten tokens: several stages with values between them."""
    b = WorkloadBuilder()
    q, k, v = (b.tensor(1, 2, 10, 16) for _ in range(3))
    b.call("aten.scaled_dot_product_attention.default", q, k, v, None, 0.0, False, scale=0.25)
    return b.finish(1, 2, 10, 16)


def layer_norm() -> Workload:
    b = WorkloadBuilder()
    b.call("aten.layer_norm.default", b.tensor(1, 10, 48), (48,), b.parameter(48), b.parameter(48), 1e-5, True)
    return b.finish(1, 10, 48)


def max_pool() -> Workload:
    b = WorkloadBuilder()
    b.call("aten.max_pool2d.default", b.tensor(2, 8, 9, 9), (3, 3), (2, 2), (1, 1), (1, 1), False)
    return b.finish(2, 8, 5, 5)


def residual_network() -> Network:
    """Two residual convolutions that share one kernel, a mean, a view, and a classifier."""
    random = torch.Generator().manual_seed(0)
    block = conv(1, 20, 20, tail=True)
    b = WorkloadBuilder()
    b.call("aten.mean.dim", b.tensor(1, 20, 9, 11), (2, 3), True, dtype=None)
    mean = b.finish(1, 20, 1, 1)
    b = WorkloadBuilder()
    b.call("aten.reshape.default", b.tensor(1, 20, 1, 1), (1, 20))
    flat = b.finish(1, 20)
    b = WorkloadBuilder()
    b.call("aten.linear.default", b.tensor(1, 20), b.parameter(10, 20), b.parameter(10))
    head = b.finish(1, 10)
    kernels = [Kernel(f"conv{i}", block, (source, f"{i}.w", f"{i}.b", source), out) for i, source, out in ((0, "x", "a"), (1, "a", "b"))]
    kernels += [Kernel("mean", mean, ("b",), "c"), Kernel("flat", flat, ("c",), "d"), Kernel("head", head, ("d", "h.w", "h.b"), "y")]
    shapes = {"0.w": (20, 20, 3, 3), "1.w": (20, 20, 3, 3), "0.b": (20,), "1.b": (20,), "h.w": (10, 20), "h.b": (10,)}
    constants = {n: torch.randn(s, generator=random) / 10 for n, s in shapes.items()}
    return Network((("x", TensorType((1, 20, 9, 11))),), ("y", "a", "x"), tuple(kernels), constants)
