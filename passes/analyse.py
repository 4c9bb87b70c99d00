"""The analysis of a captured program: the passes, in order, that end in axes."""

from billhook.ir.passes import Transform

from .fold import fold_positions
from .infer import infer_axes

ANALYSIS: tuple[tuple[str, Transform], ...] = (("fold_positions", fold_positions), ("infer_axes", infer_axes))
