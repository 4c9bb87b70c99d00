"""One colour for each axis that can be cut; neighbours in the network differ. Frozen axes share a grey."""

from billhook.ir.program import Program

FROZEN, BARE = "#8d9590", "#c3c8c4"
COLOURS = (
    "#2f7fd1",
    "#e0762a",
    "#2e9e62",
    "#c2477f",
    "#7b5cd6",
    "#b3860f",
    "#d0453b",
    "#0f97a5",
    "#7a991a",
    "#9a5530",
    "#4763c9",
    "#d65fb5",
)


def colours_of(program: Program) -> dict[str, str]:
    """The colour of every axis by name, in the order in which the parameters have them."""
    free = [axis.name for axis in program.axes if axis.prunable]
    return {axis.name: FROZEN for axis in program.axes} | {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(free)}
