"""The criteria by name. To add one: a file with a callable of `Criterion`'s shape, its test, and a line here."""

from types import MappingProxyType

from billhook.ir.errors import OptionError

from .saliency import Criterion
from .saliency_magnitude import Magnitude, l2
from .saliency_taylor import Taylor, taylor

CRITERIA: MappingProxyType[str, Criterion] = MappingProxyType(
    {
        "l2": l2,
        "l2-mean": Magnitude(mean=True),
        "taylor": taylor,
        "taylor-weight": Taylor(form="weight"),
    }
)


def find_criterion(name: str) -> Criterion:
    """The criterion with this name. Raises OptionError with the known names."""
    if name not in CRITERIA:
        raise OptionError(f"no criterion is called {name!r} (known: {', '.join(CRITERIA)})")
    return CRITERIA[name]
