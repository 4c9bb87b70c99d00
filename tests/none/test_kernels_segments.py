"""Tiles of an axis cover every output once, with exactly the taps that are inside the input."""

from hypothesis import assume, given
from hypothesis import strategies as st

from billhook.codegen.cpu.segments import Axis, segments


@given(
    size=st.integers(1, 40), window=st.integers(1, 7), stride=st.integers(1, 3), padding=st.integers(0, 3), dilation=st.integers(1, 2),
    tile=st.integers(1, 16),
)  # fmt: skip
def test_segments_cover_the_axis(size: int, window: int, stride: int, padding: int, dilation: int, tile: int) -> None:
    span = size + 2 * padding - dilation * (window - 1) - 1
    assume(span >= 0)
    axis = Axis(size, span // stride + 1, window, stride, padding, dilation)
    covered: list[int] = []
    for part in segments(axis, tile):
        for number in range(part.count):
            for i, taps in enumerate(part.taps):
                position = part.start + number * part.tile + i
                covered.append(position)
                assert list(taps) == [t for t in range(window) if 0 <= position * stride + t * dilation - padding < size]
    assert covered == list(range(axis.out))
