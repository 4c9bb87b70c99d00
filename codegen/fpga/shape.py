"""What one accelerator layer computes, without its numbers: enough to schedule it and to count its cycles."""

from dataclasses import dataclass

from .accelerator import Accelerator


@dataclass(frozen=True, slots=True)
class MapShape:
    """An int8 feature map in memory: blocks of `columns` channels, each with its rows of pixels, around them a border of zeros."""

    channels: int
    height: int
    width: int
    border: int = 0

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width with the border."""
        return self.height + 2 * self.border, self.width + 2 * self.border

    def blocks(self, columns: int) -> int:
        return -(-self.channels // columns)

    def bytes(self, columns: int) -> int:
        """Size in memory, whole blocks."""
        height, width = self.padded
        return self.blocks(columns) * height * width * columns


@dataclass(frozen=True, slots=True)
class LayerShape:
    """A convolution (or what is written as one: linear map, pooling, sum) with requantisation behind it.

    source, output: maps in memory. residual: the border of a map of the output's shape that is added, or None. groups: of channels;
    as many as channels for depthwise filters and pooling. maximum: of the products, instead of their sum (every channel by itself).
    """

    source: MapShape
    output: MapShape
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    residual: int | None = None
    maximum: bool = False

    def input_blocks(self, block: int, accelerator: Accelerator) -> range:
        """Blocks of `rows` input channels that output block `block` reads."""
        first = block * accelerator.columns
        last = min(first + accelerator.columns, self.output.channels) - 1
        read, made = self.source.channels // self.groups, self.output.channels // self.groups
        return range(first // made * read // accelerator.rows, ((last // made + 1) * read - 1) // accelerator.rows + 1)

    @property
    def macs(self) -> int:
        """Multiply-adds of the mathematical operation."""
        pixels = self.output.height * self.output.width
        return pixels * self.output.channels * self.source.channels // self.groups * self.kernel[0] * self.kernel[1]
