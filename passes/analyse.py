"""The analysis of a captured program: the passes, in order, that end in axes."""

from billhook.ir.passes import Transform

from .fold import fold_positions
from .infer import infer_axes
from .normalise_rms import recognise_rms_norm
from .normalise_split import split_fused

ANALYSIS: tuple[tuple[str, Transform], ...] = (
    ("fold_positions", fold_positions),
    ("split_fused", split_fused),
    ("recognise_rms_norm", recognise_rms_norm),
    ("infer_axes", infer_axes),
)
