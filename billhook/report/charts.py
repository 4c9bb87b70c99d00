"""Geometry of the two charts with axes: the Pareto front, and predicted against measured kernels. Markup is in templates."""

from collections.abc import Sequence
from dataclasses import dataclass

from . import format as fmt
from .record import FrontPoint, KernelRow, Record
from .scale import Scale, spanning

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 18, 46


@dataclass(frozen=True, slots=True)
class Tick:
    """A grid line and its text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A data point in pixels, its radius, and what a pointer resting on it reads."""

    x: float
    y: float
    radius: float
    text: str
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot area with grid, a line (SVG path), dots, and vertical or diagonal marks; all in pixels."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    path: str = ""
    area: str = ""
    budget_x: float | None = None
    diagonal: tuple[float, float, float, float] | None = None
    band: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM

    @property
    def chosen(self) -> Dot | None:
        return next((dot for dot in self.dots if dot.chosen), None)


def front_chart(record: Record) -> Chart | None:
    """Retained importance over latency, with the budget and the chosen point; None if there are fewer than two points."""
    points = sorted(record.front, key=lambda p: p.latency_s)
    if len(points) < 2:
        return None
    across = spanning([*(p.latency_s for p in points), record.budget_s], LEFT, WIDTH - RIGHT)
    up = spanning([p.retained for p in points], HEIGHT - BOTTOM, TOP)
    path = _steps(points, across, up)
    area = f"{path} L{across(points[-1].latency_s)} {HEIGHT - BOTTOM} L{across(points[0].latency_s)} {HEIGHT - BOTTOM} Z"
    dots = tuple(
        Dot(
            across(p.latency_s),
            up(p.retained),
            7.0 if p.chosen else 2.6,
            f"{fmt.seconds(p.latency_s)}: {fmt.percent(p.retained)}",
            p.chosen,
        )
        for p in points
    )
    return Chart(_time_ticks(across, 7), _share_ticks(up), dots, path, area, across(record.budget_s))


def _steps(points: Sequence[FrontPoint], across: Scale, up: Scale) -> str:
    """A staircase: between two points of the front the cheaper one is the best that fits."""
    path = f"M{across(points[0].latency_s)} {up(points[0].retained)}"
    for point in points[1:]:
        path += f" H{across(point.latency_s)} V{up(point.retained)}"
    return path


def kernel_chart(kernels: Sequence[KernelRow]) -> Chart | None:
    """Measured over predicted seconds on logarithmic axes, with the diagonal and a band of 10%; None without kernels."""
    timed = [k for k in kernels if k.predicted_s > 0 and k.measured_s > 0]
    if not timed:
        return None
    both = [k.predicted_s for k in timed] + [k.measured_s for k in timed]
    across = spanning(both, LEFT, WIDTH - RIGHT, log=True)
    up = Scale(across.low, across.high, HEIGHT - BOTTOM, TOP, log=True)
    heaviest = max(k.measured_s for k in timed)
    dots = tuple(
        Dot(across(k.predicted_s), up(k.measured_s), round(3 + 6 * (k.measured_s / heaviest) ** 0.5, 1), _kernel_text(k)) for k in timed
    )
    low, high = across.low, across.high
    corners = ((low, low * 1.1), (high / 1.1, high), (high, high), (high, high / 1.1), (low * 1.1, low), (low, low))
    band = " ".join(f"{across(x)},{up(y)}" for x, y in corners)
    diagonal = (across(low), up(low), across(high), up(high))
    return Chart(_time_ticks(across, 5), _time_ticks(up, 5), dots, diagonal=diagonal, band=band)


def _kernel_text(kernel: KernelRow) -> str:
    speed = f", {fmt.significant(kernel.gflops)} GFLOP/s" if kernel.gflops else ""
    return f"{kernel.name}: predicted {fmt.seconds(kernel.predicted_s)}, measured {fmt.seconds(kernel.measured_s)}{speed}"


def _time_ticks(scale: Scale, count: int) -> tuple[Tick, ...]:
    return tuple(Tick(scale(value), fmt.plain_seconds(value)) for value in scale.ticks(count) if scale.low <= value <= scale.high)


def _share_ticks(scale: Scale) -> tuple[Tick, ...]:
    ticks = scale.ticks(5)
    digits = 0 if len(ticks) < 2 or ticks[1] - ticks[0] >= 0.0099 else 1
    return tuple(Tick(scale(value), fmt.percent(value, digits)) for value in ticks)
