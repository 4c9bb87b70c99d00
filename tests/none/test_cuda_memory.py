"""The memory plan never lets two values overlap that live together, and shares space between those that do not."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from billhook.codegen.gpu.hardware import Gpu
from billhook.codegen.gpu.tile import TILES, ranked, tile_from_text
from billhook.ir.memory import ALIGNMENT, plan_memory

GPU = Gpu("H100", "cuda", 132, group=1024, local_bytes=48 << 10, warp=32)

STEPS = st.lists(st.sets(st.sampled_from("abcdefgh"), min_size=1, max_size=3), min_size=1, max_size=12)
SIZES = st.fixed_dictionaries({n: st.integers(1, 5000) for n in "abcdefgh"})


@given(STEPS, SIZES, st.sets(st.sampled_from("abcdefgh"), max_size=2))
def test_values_that_live_together_do_not_overlap(uses: list[set[str]], sizes: dict[str, int], kept: set[str]) -> None:
    offsets, arena = plan_memory(uses, sizes, kept)
    assert set(offsets) == set().union(*uses)
    living: dict[str, tuple[int, int]] = {}
    for name in offsets:
        steps = [i for i, used in enumerate(uses) if name in used]
        living[name] = (steps[0], len(uses) if name in kept else steps[-1])
    for a, (start, end) in living.items():
        assert offsets[a] % ALIGNMENT == 0
        assert offsets[a] + sizes[a] <= arena
        for b, (begin, stop) in living.items():
            if a < b and start <= stop and begin <= end:
                assert offsets[a] + sizes[a] <= offsets[b] or offsets[b] + sizes[b] <= offsets[a]


def test_a_chain_needs_two_buffers() -> None:
    names = [f"v{i}" for i in range(10)]
    _, arena = plan_memory([{a, b} for a, b in pairwise(names)], dict.fromkeys(names, 4096), [names[-1]])
    assert arena == 2 * 4096


def test_tiles_fit_a_block_and_round_trip() -> None:
    for tile in TILES:
        assert 32 <= tile.down * tile.across <= 1024
        assert tile.shared_bytes <= 48 << 10
        assert tile.depth * tile.rows % (tile.down * tile.across) == 0 or tile.depth * tile.rows < tile.down * tile.across
        assert tile_from_text(str(tile)) == tile


def test_small_products_take_small_tiles() -> None:
    assert ranked(512, 49, GPU)[0].rows < ranked(512, 64 * 3136, GPU)[0].rows
