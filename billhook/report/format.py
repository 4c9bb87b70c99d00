"""Numbers as a reader wants them: three significant digits and a unit."""

import math


def significant(value: float, digits: int = 3) -> str:
    """A number with that many significant digits, without an exponent where people write none."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    value = float(f"{value:.{digits - 1}e}")
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{places}f}"


def seconds(value: float) -> str:
    """A duration from microseconds to minutes."""
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if value < 999.5 * size:
            return f"{significant(value / size)} {unit}"
    if value < 99.95:
        return f"{significant(value)} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{share * 100:.{digits}f}%"


def signed_percent(share: float, digits: int = 1) -> str:
    """A deviation as a percentage with its sign."""
    return f"{share * 100:+.{digits}f}%".replace("-", "−")


def size(count: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{significant(count)} {unit}"
        count /= 1024
    return f"{significant(count)} GiB"


def amount(count: float) -> str:
    """A count with K, M or G."""
    for unit in ("", "K", "M"):
        if count < 1000:
            return f"{significant(count)}{unit}" if unit else f"{count:g}"
        count /= 1000
    return f"{significant(count)}G"


def plain_seconds(value: float) -> str:
    """A round duration, as tick labels have it: no trailing zeros."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size * (1 - 1e-9):
            return f"{value / size:.6g} {unit}"
    return f"{value * 1e6:.3g} µs" if value else "0"
