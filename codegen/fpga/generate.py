"""The accelerator as Verilog: fixed modules with parameters, and two files that are printed for the shape."""

from collections.abc import Mapping
from pathlib import Path

import jinja2

from .accelerator import Accelerator, to_json

TOP = "accelerator"
_FIXED = ("ram.v", "sequencer.v", "semaphores.v", "loader.v", "executor.v", "storer.v")
_PRINTED = ("column.v", "accelerator.v")
_FOLDER = Path(__file__).parent / "rtl"


def generate(accelerator: Accelerator) -> Mapping[str, str]:
    """Verilog files by name. The top module is `accelerator`; equal shapes give equal text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    values = {
        **to_json(accelerator),
        "parameter_depth": accelerator.parameter_depth,
        "identification": accelerator.identification,
        "name": TOP,
        "bits": _bits,
        "width": 16 + _bits(accelerator.rows),
    }
    files = {name: (_FOLDER / name).read_text() for name in _FIXED}
    files.update({name: environment.get_template(f"{name}.j2").render(values) for name in _PRINTED})
    return files


def _bits(depth: int) -> int:
    """Address bits of a memory."""
    return (depth - 1).bit_length()
