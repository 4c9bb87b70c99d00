"""Inference normal form: the graph that kernels are made from.

What only training needs is gone, what is constant is computed, writes in place are values, batch norms are folded, recurrent
layers are unrolled, complex numbers are pairs of real ones, every call returns one tensor and every operator has one spelling.
"""

from torch import fx

from .normalise_affine import fold_affine, fold_batchnorm
from .normalise_attention import recognise_attention, recognise_causal
from .normalise_complex import use_real_numbers
from .normalise_constants import fold_constants
from .normalise_draft import Example, draft_of
from .normalise_inplace import functionalise
from .normalise_moves import settle_moves
from .normalise_operators import drop_identities, spell_literals
from .normalise_recurrent import unroll_recurrent
from .normalise_tuples import split_tuples
from .normalise_views import write_through_views


def normalise_for_inference(graph: fx.GraphModule, example: Example | None = None) -> fx.GraphModule:
    """A new graph with the same outputs in evaluation mode, in normal form. Pure.

    example: arguments and keyword arguments whose shapes become the graph's (None: the shapes that it was captured with).
    The result takes the tensor inputs in order and returns a flat tuple. Node names are those of `graph`; each node's
    meta holds `val`, and where its extents and literals come from (costmodel.origin).
    Raises CaptureError for shapes that do not fit, writes that other views would see, and operators that return several tensors.
    """
    draft = draft_of(graph, example)
    functionalise(draft, partly=True)
    fold_constants(draft)
    unroll_recurrent(draft)
    split_tuples(draft)
    write_through_views(draft)
    functionalise(draft)
    drop_identities(draft)
    spell_literals(draft)
    use_real_numbers(draft)
    drop_identities(draft)
    fold_batchnorm(draft)
    settle_moves(draft)
    recognise_attention(draft)
    fold_constants(draft)
    recognise_causal(draft)
    fold_affine(draft)
    return draft.module()
