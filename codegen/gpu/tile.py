"""Tiles of a matrix product on a GPU, and which of them suits a product: a static rank, which timing replaces where there is a device."""

from dataclasses import dataclass

from .hardware import Gpu


@dataclass(frozen=True, slots=True)
class Tile:
    """rows x columns of the product per thread block, depth per stage in shared memory, and rows x columns per thread."""

    rows: int
    columns: int
    depth: int
    thread_rows: int
    thread_columns: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth}/{self.thread_rows}x{self.thread_columns}"

    @property
    def down(self) -> int:
        """Threads of a block along its rows."""
        return self.rows // self.thread_rows

    @property
    def across(self) -> int:
        """Threads of a block along its columns."""
        return self.columns // self.thread_columns

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: one stage of both float32 operands."""
        return 4 * self.depth * (self.rows + self.columns)


TILES = (
    Tile(128, 128, 8, 8, 8),
    Tile(64, 128, 8, 8, 4),
    Tile(128, 64, 8, 8, 4),
    Tile(64, 64, 8, 4, 4),
    Tile(32, 64, 16, 4, 2),
    Tile(64, 32, 16, 4, 2),
    Tile(32, 32, 16, 2, 2),
    Tile(16, 32, 16, 2, 1),
)
MOBILE_TILES = (  # of 32 or 64 threads
    Tile(64, 64, 8, 8, 8),
    Tile(32, 64, 8, 8, 4),
    Tile(32, 32, 8, 4, 4),
    Tile(16, 64, 8, 4, 4),
    Tile(8, 32, 8, 2, 4),
)
_TRAFFIC = 24  # multiply-adds of a thread that cost what bringing it one operand from shared memory costs, roughly


def ranked(rows: int, columns: int, gpu: Gpu) -> tuple[Tile, ...]:
    """Tiles for a rows x columns product that the GPU can hold, the statically most promising first."""
    tiles = TILES if gpu.kind == "cuda" else (*TILES, *MOBILE_TILES)
    fitting = (tile for tile in tiles if tile.down * tile.across <= gpu.group and tile.shared_bytes <= gpu.local_bytes)
    return tuple(sorted(fitting, key=lambda tile: _cost(tile, rows, columns, gpu.units)))


def tile_from_text(text: str) -> Tile:
    """Inverse of `str(tile)`."""
    block, thread = text.split("/")
    rows, columns, depth = map(int, block.split("x"))
    thread_rows, thread_columns = map(int, thread.split("x"))
    return Tile(rows, columns, depth, thread_rows, thread_columns)


def round_up(size: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `size`."""
    return -(-size // multiple) * multiple


def _cost(tile: Tile, rows: int, columns: int, multiprocessors: int) -> float:
    """Waves of blocks, times the work of one: its multiply-adds and the shared-memory traffic that they cause."""
    blocks = -(-rows // tile.rows) * -(-columns // tile.columns)
    work = tile.rows * tile.columns * (1 + _TRAFFIC * (1 / tile.rows + 1 / tile.columns))
    return -(-blocks // multiprocessors) * work
