"""Tilings: how a layer is cut into pieces that fit the buffers."""

from collections.abc import Iterator
from dataclasses import dataclass

from billhook.ir.errors import OptionError

from .accelerator import Accelerator
from .shape import LayerShape

_HEIGHTS = 3  # of strips that are tried


@dataclass(frozen=True, slots=True)
class Tiling:
    """rows: output rows of a tile; blocks: input blocks whose words and weights are on chip at once.

    inputs_stay: the order of the tiles. True: all output blocks of a strip of rows before the next strip; False: all strips of an
    output block, so that its weights stay.
    """

    rows: int
    blocks: int
    inputs_stay: bool


def tilings(shape: LayerShape, accelerator: Accelerator) -> Iterator[Tiling]:
    """The tilings worth trying: strips of even height from the largest that fits down, as many input blocks at once as fit, both orders.

    Raises OptionError where not even one row fits, and says what would.
    """
    height = shape.output.height
    counts = sorted({-(-height // strips) for strips in range(1, height + 1)}, reverse=True)
    fitting = [rows for rows in counts if most_blocks(shape, rows, accelerator)]
    if not fitting:
        raise OptionError(why_not(shape, accelerator))
    for rows in fitting[:_HEIGHTS]:
        for inputs_stay in (True, False):
            yield Tiling(rows, most_blocks(shape, rows, accelerator), inputs_stay)


def rows_read(shape: LayerShape, rows: int) -> int:
    """Source rows behind this many output rows."""
    return (rows - 1) * shape.stride[0] + shape.kernel[0]


def most_blocks(shape: LayerShape, rows: int, accelerator: Accelerator) -> int:
    """Input blocks that fit at once for strips of this many rows, split evenly; 0 if not even one fits."""
    if rows * shape.output.width > accelerator.accumulator_depth or rows > shape.output.height:
        return 0
    if shape.residual is not None:
        words = rows * (shape.output.width + 2 * shape.residual) * accelerator.parts
        if words > accelerator.half(accelerator.residual_depth):
            return 0
    words = rows_read(shape, rows) * shape.source.padded[1]
    weights = shape.kernel[0] * shape.kernel[1] * accelerator.columns
    fit = min(accelerator.half(accelerator.input_depth) // words, accelerator.half(accelerator.weight_depth) // weights)
    needed = max(len(shape.input_blocks(b, accelerator)) for b in range(shape.output.blocks(accelerator.columns)))
    if fit == 0:
        return 0
    return -(-needed // -(-needed // fit))


def why_not(shape: LayerShape, accelerator: Accelerator) -> str:
    """Which buffer is too small for one output row of a layer, and how deep it would have to be."""
    needs = {
        "accumulator_depth": shape.output.width,
        "input_depth": shape.kernel[0] * shape.source.padded[1] * accelerator.buffers,
        "weight_depth": shape.kernel[0] * shape.kernel[1] * accelerator.columns * accelerator.buffers,
    }
    if shape.residual is not None:
        needs["residual_depth"] = (shape.output.width + 2 * shape.residual) * accelerator.parts * accelerator.buffers
    short = {name: words for name, words in needs.items() if words > getattr(accelerator, name)}
    wanted = " and ".join(
        f"{name} {1 << (words - 1).bit_length()} or more (it has {getattr(accelerator, name)})" for name, words in short.items()
    )
    return f"one row of {shape.output.width} outputs does not fit accelerator {accelerator.rows}x{accelerator.columns}: needs {wanted}"
