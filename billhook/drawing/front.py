"""The front as one SVG: retained scores over latency, a staircase with its points."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from billhook.report.record import write_whole
from billhook.report.scale import Scale, spanning

WIDTH, HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 34, 52


def draw_front(points: Sequence[tuple[float, float]], dense: float, path: Path, *, title: str, across: str, up: str) -> None:
    """Write the drawing to an .svg, or in a page of its own to an .html file.

    points: (cost, share retained), ascending. dense: cost of the dense network. title, across, up: texts of the drawing and its axes.
    """
    svg = front_svg(points, dense, title=title, across=across, up=up)
    write_whole(path, svg if path.suffix == ".svg" else f'<!doctype html><meta charset="utf-8"><title>{escape(title)}</title>{svg}\n')


def front_svg(points: Sequence[tuple[float, float]], dense: float, *, title: str, across: str, up: str) -> str:
    """The drawing as text; costs are shown as shares of the dense network's."""
    shares = [(cost / dense, value) for cost, value in points]
    x = spanning([0.0, 1.0, *(s for s, _ in shares)], _LEFT, WIDTH - _RIGHT, margin=0.02)
    y = spanning([v for _, v in shares] + [1.0], HEIGHT - _BOTTOM, _TOP)
    path = f"M{x(shares[0][0])} {y(shares[0][1])}" + "".join(f" H{x(s)} V{y(v)}" for s, v in shares[1:])
    dots = "".join(
        f'<circle cx="{x(s)}" cy="{y(v)}" r="2.5"><title>{s:.1%} of the dense cost: {v:.2%} retained</title></circle>' for s, v in shares
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">'
        f"<style>text{{fill:#445}}.grid{{stroke:#ccd}}path{{fill:none;stroke:#2563a8;stroke-width:1.5}}circle{{fill:#2563a8}}</style>"
        f'<text x="{_LEFT}" y="18" font-size="14">{escape(title)}</text>{_grid(x, y)}'
        f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(across)}</text>'
        f'<text x="{_LEFT + 6}" y="{_TOP + 12}">{escape(up)}</text>'
        f'<path d="{path}"/>{dots}</svg>\n'
    )


def _grid(x: Scale, y: Scale) -> str:
    lines = [
        f'<line class="grid" x1="{x(t)}" x2="{x(t)}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        f'<text x="{x(t)}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{t:.0%}</text>'
        for t in x.ticks(6)
    ]
    lines += [
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(t)}" y2="{y(t)}"/>'
        f'<text x="{_LEFT - 8}" y="{y(t) + 4}" text-anchor="end">{t:.0%}</text>'
        for t in y.ticks(5)
    ]
    return "".join(lines)
