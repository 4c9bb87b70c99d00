"""An axis that no weight has is nothing to prune: parts of integer tables, masks and computed positions that nothing else meets."""

from collections.abc import Mapping

from billhook.ir.axis import Reason
from billhook.ir.program import Program, state_of
from billhook.passes.fold import FOLDED
from billhook.passes.unify import Term, atoms, freeze


def freeze_weightless(program: Program, state: Mapping[str, tuple[Term, ...]]) -> None:
    """Freeze the axes of state none of whose members is a floating-point tensor of the model's own. state: terms by name."""
    folded = {str(n.target) for n in program.nodes() if n.op == "get_attr" and n.meta.get(FOLDED)}
    weights = {name for name in state if name not in folded and state_of(program.graph, name).is_floating_point()}
    weighted = {id(atom) for name in weights for term in state[name] for atom in atoms(term)}
    for name, terms in state.items():
        for atom in (a for term in terms for a in atoms(term)):
            if id(atom) not in weighted and not atom.frozen:
                freeze(atom, Reason(name, "get_attr", "no weight has this dimension"))
