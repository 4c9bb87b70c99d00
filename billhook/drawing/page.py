"""The drawing as one file: SVG, or HTML around it in which an axis can be pointed at. Nothing is fetched."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import fx

from billhook.ir.axis import Axis
from billhook.ir.dims import BATCH, Dim, Leaf, leaves
from billhook.ir.program import Program
from billhook.ir.source import source_line
from billhook.ir.text import coverage, format_dim
from billhook.options import drawing_file
from billhook.report.record import write_whole

from .diagram import Diagram, Row, Value, diagram_of
from .geometry import Layout, layout_of, line
from .lanes import lanes_of
from .palette import BARE, colours_of

LABEL, OPERATORS, DIM = 44, 46, 30  # characters before a text is cut
LETTER, SMALL = 8.0, 6.9  # pixels: of a bold letter of the labels, of any other


@dataclass(frozen=True, slots=True)
class _Line:
    path: str
    colour: str
    marks: str  # class names: the axes that it has
    frozen: bool
    title: str


@dataclass(frozen=True, slots=True)
class _Box:
    x: int
    y: int
    colour: str
    marks: str
    label: str
    operators: str
    dims: tuple[tuple[str, str], ...]  # text and colour
    title: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row of the legend."""

    mark: str
    name: str
    size: int
    colour: str
    frozen: str
    members: int


def draw(program: Program, path: Path) -> None:
    """Write the drawing, whole or not at all; the suffix says which form (.svg or .html).

    Raises OptionError for another suffix.
    """
    drawing_file(path, "drawing")
    write_whole(path, to_svg(program) if path.suffix == ".svg" else to_html(program))


def to_svg(program: Program) -> str:
    """The drawing as an SVG text."""
    return _environment().get_template("graph.svg.j2").render(_Page(program).facts())


def to_html(program: Program) -> str:
    """The drawing as an HTML text with a list of the axes; pointing at one shows where it runs."""
    return _environment().get_template("graph.html.j2").render(_Page(program).facts())


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("billhook.drawing", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


class _Page:
    """Everything that the templates are given."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.diagram: Diagram = diagram_of(program)
        self.layout: Layout = layout_of(self.diagram, lanes_of(self.diagram))
        self.colours = colours_of(program)
        self.marks = {axis.name: f"a{i}" for i, axis in enumerate(program.axes)}
        self.index: dict[str, Axis] = program.axis_index

    def facts(self) -> dict[str, Any]:
        boxes = [self._box(i, row) for i, row in enumerate(self.diagram.rows)]
        operators_at = self.layout.left + 20 + int(LETTER * max((len(b.label) for b in boxes), default=0))
        dims_at = operators_at + 24 + int(SMALL * max((len(b.operators) for b in boxes), default=0))
        widest = max((sum(len(text) + 3 for text, _ in b.dims) for b in boxes), default=0)
        return {
            "title": type(self.program.model).__qualname__ if self.program.model is not None else "program",
            "summary": coverage(self.program),
            "lines": [self._line(i, value) for i, value in enumerate(self.diagram.values) if value.uses],
            "boxes": boxes,
            "heads": self.layout.heads,
            "left": self.layout.left,
            "operators_at": operators_at,
            "dims_at": dims_at,
            "width": dims_at + int(SMALL * widest) + 24,
            "height": self.layout.height,
            "axes": [self._entry(axis) for axis in self.program.axes],
        }

    def _line(self, index: int, value: Value) -> _Line:
        frozen = value.main is not None and not self.index[value.main].prunable
        title = [f"{value.node.name}: {' × '.join(format_dim(d) for d in value.dims)}"]
        title += [f"{name} is frozen: {self.index[name].frozen_because[0]}" for name in value.axes if not self.index[name].prunable]
        return _Line(line(self.layout, index, value), self._colour(value.main), self._marks(value.axes), frozen, "\n".join(title))

    def _box(self, index: int, row: Row) -> _Box:
        x, y = self.layout.dot(index)
        made = self.diagram.values[row.outputs[0]] if row.outputs else None
        seen = dict.fromkeys(name for v in (*row.inputs, *row.outputs) for name in self.diagram.values[v].axes)
        operators = " · ".join(_operator(node) for node in row.nodes)
        return _Box(
            x=x,
            y=y,
            colour=self._colour(made.main if made else None),
            marks=self._marks(tuple(seen)),
            label=_shortened(_label(row), LABEL, end=False),
            operators=_shortened(operators, OPERATORS),
            dims=tuple(self._dim(dim) for dim in made.dims) if made else (),
            title="\n".join(" ".join(filter(None, (node.name, str(node.target), source_line(node)))) for node in row.nodes),
        )

    def _dim(self, dim: Dim) -> tuple[str, str]:
        """A dimension in few letters, and its colour."""
        text = format_dim(dim)
        names = list(dict.fromkeys(leaf.name for leaf in leaves(dim) if leaf.name in self.marks))
        main = next((name for name in names if self.index[name].prunable), names[0] if names else None)
        if isinstance(dim, Leaf) and dim.name == BATCH:
            return "batch", BARE
        if len(names) > 1 and len(text) > DIM:
            text = f"{dim.size} of {len(names)} axes"
        return _shortened(text, DIM, end=False), self._colour(main) if main else ""

    def _marks(self, names: tuple[str, ...]) -> str:
        return " ".join(self.marks[name] for name in names)

    def _colour(self, name: str | None) -> str:
        return BARE if name is None else self.colours[name]

    def _entry(self, axis: Axis) -> _Entry:
        frozen = str(axis.frozen_because[0]) if axis.frozen_because else ""
        return _Entry(self.marks[axis.name], axis.name, axis.size, self.colours[axis.name], frozen, len(axis.members))


def _label(row: Row) -> str:
    """The module as its section knows it; a node's own name where it has no module."""
    if not row.path or row.nodes[0].op != "call_function":
        return str(row.nodes[0].name)
    inside = row.path.removeprefix(row.section).removeprefix(".")
    return inside or row.path.rpartition(".")[2]


def _operator(node: fx.Node) -> str:
    if node.op != "call_function":
        return {"placeholder": "input"}.get(node.op, node.op)
    return str(node.target).removeprefix("aten.").rsplit(".", 1)[0].replace("<built-in function getitem>", "part")


def _shortened(text: str, most: int, *, end: bool = True) -> str:
    """The text with its end, or its beginning, left out where it is too long."""
    if len(text) <= most:
        return text
    return text[: most - 1] + "…" if end else "…" + text[1 - most :]
