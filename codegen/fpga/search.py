"""Design-space search: the accelerator with the fewest cycles for a network among those that a board can hold."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from billhook.ir.errors import OptionError
from billhook.ir.progress import Progress, no_progress

from .accelerator import Accelerator
from .boards import Board
from .pricing import Pricer
from .resources import estimate
from .shape import LayerShape
from .synthesis import Resources

_ROWS = (4, 8, 12, 16, 20, 24, 32, 40, 48, 64)
_DEPTHS = ((1024, 1024, 256, 512), (2048, 2048, 512, 1024), (4096, 4096, 1024, 2048), (16384, 8192, 2048, 4096))  # in, w, acc, res
_FINALISTS = 4  # array shapes whose depths are searched


@dataclass(frozen=True, slots=True)
class Design:
    """An accelerator on a board: its estimated resources, and the cycles of the network by the cycle model (not time)."""

    accelerator: Accelerator
    resources: Resources
    cycles: int

    def __str__(self) -> str:
        r = self.resources
        return f"{self.accelerator}: {self.cycles} cycles (modelled), DSP {r.dsp}, BRAM18 {r.bram}, LUT {r.lut}"


def arrays(board: Board) -> Iterator[tuple[int, int, int]]:
    """(rows, columns, bus) that the generator can make, and whose multipliers the board has."""
    for bus in board.buses:
        for rows in _ROWS:
            for columns in _ROWS:
                if (
                    rows % columns == 0
                    and columns % bus == 0
                    and estimate(Accelerator(rows, columns, bus), board.family).dsp <= board.ceilings.dsp
                ):
                    yield rows, columns, bus


def fits(accelerator: Accelerator, board: Board) -> tuple[str, ...]:
    """What the accelerator needs more of than the board allows, in words; empty where it fits."""
    need, have = estimate(accelerator, board.family), board.ceilings
    pairs = (
        ("DSP", need.dsp, have.dsp),
        ("BRAM18", need.bram, have.bram),
        ("LUT", need.lut, have.lut),
        ("FF", need.flip_flops, have.flip_flops),
    )
    return tuple(f"{name} {n} of {h}" for name, n, h in pairs if n > h)


def search(layers: Sequence[LayerShape], board: Board, progress: Progress = no_progress) -> tuple[Design, ...]:
    """Designs for these layers, best first: all arrays at the largest depths that fit, then the depths of the best ones.

    Fewer resources break ties in cycles. Raises OptionError that says what would be needed where no design can run the network.
    """
    failures: list[str] = []
    bounded: list[tuple[int, Accelerator]] = []
    largest = [a for shape in arrays(board) if (a := _deepest(*shape, board)) is not None]
    for i, accelerator in enumerate(largest):
        progress("search arrays", i, len(largest))
        pricer = Pricer(accelerator, board.memory)
        try:
            bounded.append((sum(pricer.bound(s) for s in layers), accelerator))
        except OptionError as error:
            failures.append(str(error))
    bounded.sort(key=lambda pair: pair[0])
    first = _priced([a for _, a in bounded[: 2 * _FINALISTS]], layers, board, failures)
    if not first:
        raise OptionError(_nothing(board, failures))
    best = sorted(first, key=_order)[:_FINALISTS]
    found = list(best)
    for i, design in enumerate(best):
        progress("search depths", i, len(best))
        a = design.accelerator
        smaller = [with_depths(a.rows, a.columns, a.bus, d) for d in _DEPTHS if d[0] < a.input_depth]
        found += _priced(smaller, layers, board, failures)
    return tuple(sorted(found, key=_order))


def _deepest(rows: int, columns: int, bus: int, board: Board) -> Accelerator | None:
    """The array with the largest depths that the board can hold."""
    deepest = (with_depths(rows, columns, bus, depths) for depths in reversed(_DEPTHS))
    return next((a for a in deepest if not fits(a, board)), None)


def with_depths(rows: int, columns: int, bus: int, depths: tuple[int, int, int, int]) -> Accelerator:
    """An accelerator with (input, weight, accumulator, residual) depths."""
    inputs, weights, accumulators, residual = depths
    return Accelerator(rows, columns, bus, inputs, weights, accumulators, residual)


def network_cycles(layers: Iterable[LayerShape], pricer: Pricer) -> int:
    """Cycles of a network's layers by the cycle model. Raises OptionError where one does not fit."""
    return sum(pricer.price(shape).cycles for shape in layers)


def design_of(accelerator: Accelerator, layers: Sequence[LayerShape], board: Board, pricer: Pricer) -> Design:
    """A given accelerator on a board. Raises OptionError where it exceeds the board, or a layer its buffers."""
    if over := fits(accelerator, board):
        raise OptionError(f"accelerator {accelerator} does not fit board {board.name}: {', '.join(over)}; choose a smaller array or depths")
    return Design(accelerator, estimate(accelerator, board.family), network_cycles(layers, pricer))


def _priced(accelerators: Iterable[Accelerator], layers: Sequence[LayerShape], board: Board, failures: list[str]) -> list[Design]:
    found: list[Design] = []
    for a in accelerators:
        try:
            cycles = network_cycles(layers, Pricer(a, board.memory))
        except OptionError as error:
            failures.append(str(error))
        else:
            found.append(Design(a, estimate(a, board.family), cycles))
    return found


def _order(design: Design) -> tuple[int, int, int]:
    return design.cycles, design.resources.dsp, design.resources.bram


def _nothing(board: Board, failures: Sequence[str]) -> str:
    if not failures:
        return f"board {board.name}: not even the smallest array fits; choose a larger board"
    last = failures[-1]
    return f"board {board.name}: the network fits none of its designs; the last: {last}; choose a larger board, or smaller feature maps"


def summary(design: Design) -> Mapping[str, object]:
    """A design as plain data."""
    a, r = design.accelerator, design.resources
    return {"array": f"{a.rows}x{a.columns}", "bus": a.bus, "dsp": r.dsp, "bram": r.bram, "lut": r.lut, "cycles": design.cycles}
