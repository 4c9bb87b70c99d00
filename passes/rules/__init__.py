"""Operator rules: what each ATen operator says about the dimensions that it connects."""

from . import attention, complex_numbers, contraction, elementwise, index, norm, numbers, pool, recurrent, reduce, shape
from .context import Context, Terms
from .registry import find_rule, register_rule, rule

__all__ = [
    "Context",
    "Terms",
    "attention",
    "complex_numbers",
    "contraction",
    "elementwise",
    "find_rule",
    "index",
    "norm",
    "numbers",
    "pool",
    "recurrent",
    "reduce",
    "register_rule",
    "rule",
    "shape",
]
