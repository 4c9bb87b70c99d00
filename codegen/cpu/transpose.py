"""Layout changes between channel-blocked maps and [N, H, W, C] tensors, whose vectors of channels lie side by side in both."""

from typing import Any

import numpy as np

from billhook.ir.target import Target
from billhook.ir.workload import Call, Ref, Workload

from .candidate import Candidate, candidate
from .reduced import is_float, storages
from .vector import divide, each, flat_kernel, load, load_partial, loop, sharing, store, store_partial
from .window import Feature, feature

NAME = "transpose"
_LAYOUT = Call("billhook.layout", (Ref(0),))
_OUT = (_LAYOUT, Call("aten.permute.default", (Ref(1), (0, 2, 3, 1))))
_IN = (Call("aten.permute.default", (Ref(0), (0, 3, 1, 2))), Call("billhook.layout", (Ref(1),)))


def candidates(workload: Workload, _target: Target) -> tuple[Candidate, ...]:
    """One candidate for a layout change with a permute of the channels to or from the end, () for other workloads."""
    return (candidate(NAME),) if _map_of(workload) is not None else ()


def pack(_workload: Workload, _choice: Candidate, _target: Target, _index: int, _array: np.ndarray) -> np.ndarray:
    """These kernels have no parameters."""
    raise AssertionError("no parameters")


def lower(workload: Workload, _choice: Candidate, target: Target) -> Any:
    """The kernel as a TIR function of flat buffers."""
    blocked = _map_of(workload)
    assert blocked is not None
    inward = workload.calls == _IN
    whole, rest = divmod(blocked.channels, blocked.block)

    def body(source: Any, goal: Any) -> None:
        area = blocked.height * blocked.width
        with each(blocked.batch * area, sharing(target.threads, blocked.elements)) as both:
            n, pixel = divide(both, area)
            if whole:
                with loop(0, whole) as c:
                    _copy(blocked, source, goal, (n, pixel, c), blocked.block, inward)
            if rest:
                _copy(blocked, source, goal, (n, pixel, whole), rest, inward)

    return flat_kernel([workload.inputs[0].elements, workload.output.elements], body, dtypes=storages(workload))


def _map_of(workload: Workload) -> Feature | None:
    """The blocked side of the change, or None for other workloads."""
    if workload.calls not in (_IN, _OUT) or workload.roles != ("activation",):
        return None
    blocked, plain = (workload.output, workload.inputs[0])[:: 1 if workload.calls == _IN else -1]
    return feature(blocked) if blocked.block and not plain.block and is_float(plain) else None


def _copy(blocked: Feature, source: Any, goal: Any, at: tuple[Any, Any, Any], count: int, inward: bool) -> None:
    """One block of channels of one pixel, `count` of them inside the map; the other lanes become zero."""
    n, pixel, c = at
    area, lanes = blocked.height * blocked.width, blocked.block
    inside = ((n * blocked.blocks + c) * area + pixel) * lanes
    last = (n * area + pixel) * blocked.channels + c * lanes
    if inward:
        store(goal, inside, load_partial(source, last, count, lanes), lanes)
    else:
        store_partial(goal, last, load(source, inside, lanes), count, lanes)
