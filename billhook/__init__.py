"""Billhook: a compiler that cuts a trained PyTorch network to a measured latency budget.

The names below are the public interface. They are loaded on first use, so that `import billhook` costs milliseconds
and a command that needs neither torch nor TVM loads neither.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import compile, load, mask, prune, trace  # noqa: A004
    from .ir.axis import Axis
    from .ir.latency import Latency
    from .ir.plan import Plan
    from .ir.program import Program
    from .ir.target import Target
    from .passes.constraints import Constraint, at_least, divisible, fixed, uniform
    from .passes.rules import register_rule

__all__ = [
    "Axis",
    "Constraint",
    "Latency",
    "Plan",
    "Program",
    "Target",
    "at_least",
    "compile",
    "divisible",
    "fixed",
    "load",
    "mask",
    "prune",
    "register_rule",
    "trace",
    "uniform",
]

_HOME = {
    "Axis": ".ir.axis",
    "Constraint": ".passes.constraints",
    "Latency": ".ir.latency",
    "Plan": ".ir.plan",
    "Program": ".ir.program",
    "Target": ".ir.target",
    "at_least": ".passes.constraints",
    "compile": ".api",
    "divisible": ".passes.constraints",
    "fixed": ".passes.constraints",
    "load": ".api",
    "mask": ".api",
    "prune": ".api",
    "register_rule": ".passes.rules",
    "trace": ".api",
    "uniform": ".passes.constraints",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'billhook' has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    try:
        return version("billhook")
    except PackageNotFoundError:
        return "0+unknown"
