"""Option texts as frozen values: shapes, budgets, references to the user's objects. One place parses, one error speaks."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from .ir.errors import OptionError
from .ir.nearest import suggest

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
RESULT_MARKS = ("plan.json", "manifest.json", "record.json")
DRAWINGS = (".svg", ".html")
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_SHAPE = re.compile(r"[1-9]\d*(x[1-9]\d*)*")
_BUDGET = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>%|[a-zµ]*)")
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Shape and element type of one example input, e.g. `1x3x224x224` or `int64:1x128`."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.dtype}:{'x'.join(map(str, self.shape))}"


@dataclass(frozen=True, slots=True)
class Budget:
    """A latency budget: a number of seconds, or a share of the dense network's measured latency."""

    amount: float
    unit: str  # "s" or "share"

    def __str__(self) -> str:
        return f"{self.amount * 100:g}%" if self.unit == "share" else f"{self.amount * 1e3:g}ms"

    def seconds(self, dense: float) -> float:
        """The budget in seconds, given the dense latency in seconds."""
        return self.amount * dense if self.unit == "share" else self.amount


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """A limit on activation memory: a number of bytes, or a share of what the dense network takes."""

    amount: float
    unit: str  # "B" or "share"

    def __str__(self) -> str:
        return f"{self.amount * 100:g}%" if self.unit == "share" else f"{self.amount / 1e6:g}MB"

    def bytes(self, dense: float) -> float:
        """The limit in bytes, given the dense network's bytes."""
        return self.amount * dense if self.unit == "share" else self.amount


@dataclass(frozen=True, slots=True)
class Reference:
    """An object of the user's, as `package.module:attribute`."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"


def parse_input(text: str, option: str = "--example") -> InputSpec:
    """Parse `[dtype:]AxBxC`.

    Raises:
        OptionError: the element type is unknown or the shape is not positive sizes joined by x.
    """
    dtype, colon, shape = text.strip().rpartition(":")
    if colon and dtype not in DTYPES:
        raise OptionError(f"{option} {text}: unknown element type {dtype!r}{suggest(dtype, DTYPES)} (known: {', '.join(DTYPES)})")
    if not _SHAPE.fullmatch(shape.lower()):
        sizes = re.findall(r"[1-9]\d*", shape)
        hint = f"; did you mean {'x'.join(sizes)}?" if len(sizes) > 1 else ""
        raise OptionError(f"{option} {text}: a shape is positive sizes joined by x, like 1x3x224x224{hint}")
    return InputSpec(tuple(int(size) for size in shape.lower().split("x")), dtype or "float32")


def parse_budget(value: str | float, option: str = "--latency") -> Budget:
    """Parse `50%`, `0.5` (a share of the dense latency), `12ms`, `800us` or `0.02s`.

    Raises:
        OptionError: not a number with a known unit, a share outside (0, 1], or not positive.
    """
    text = str(value).strip().lower()
    match = _BUDGET.fullmatch(text)
    if match is None:
        raise OptionError(f"{option} {value}: write a share of the dense latency (50% or 0.5) or a time (12ms, 800us, 0.02s)")
    number, unit = float(match["number"]), match["unit"]
    if unit in _UNITS:
        return Budget(_positive(number * _UNITS[unit], option, value), "s")
    if unit not in ("", "%"):
        raise OptionError(f"{option} {value}: unknown unit {unit!r}{suggest(unit, _UNITS)} (known: %, s, ms, us)")
    share = _positive(number / 100 if unit else number, option, value)
    if share > 1:
        hint = f"; did you mean {number:g}ms or {number:g}%?" if not unit else ""
        raise OptionError(f"{option} {value}: a share of the dense latency lies between 0 and 100%{hint}")
    return Budget(share, "share")


def parse_share(value: str | float, option: str) -> float:
    """Parse `90%` or `0.9`.

    Raises:
        OptionError: not a share in (0, 1].
    """
    match = _BUDGET.fullmatch(str(value).strip())
    if match is None or match["unit"] not in ("", "%"):
        raise OptionError(f"{option} {value}: write a share, 90% or 0.9")
    share = _positive(float(match["number"]) / (100 if match["unit"] else 1), option, value)
    if share > 1:
        raise OptionError(f"{option} {value}: a share lies between 0 and 100%; write 90% or 0.9")
    return share


def parse_memory(value: str | float, option: str = "--memory") -> MemoryBudget:
    """Parse `2MB`, `512KiB`, `50%` or `0.5` (a share of the dense network's activation memory).

    Raises:
        OptionError: not a number with a known unit, a share outside (0, 1], or not positive.
    """
    match = _BUDGET.fullmatch(str(value).strip().lower())
    if match is None:
        raise OptionError(f"{option} {value}: write a share of the dense network's memory (50% or 0.5) or a size (2MB, 512KiB)")
    number, unit = float(match["number"]), match["unit"]
    if unit in _BYTES:
        return MemoryBudget(_positive(number * _BYTES[unit], option, value), "B")
    if unit not in ("", "%"):
        raise OptionError(f"{option} {value}: unknown unit {unit!r}{suggest(unit, _BYTES)} (known: %, B, KB, MB, GB, KiB, MiB, GiB)")
    share = _positive(number / 100 if unit else number, option, value)
    if share > 1:
        hint = f"; did you mean {number:g}MB or {number:g}%?" if not unit else ""
        raise OptionError(f"{option} {value}: a share of the dense network's memory lies between 0 and 100%{hint}")
    return MemoryBudget(share, "share")


def _positive(number: float, option: str, value: str | float) -> float:
    if number <= 0:
        raise OptionError(f"{option} {value}: a budget must be greater than zero")
    return number


def parse_reference(text: str, option: str) -> Reference:
    """Parse `package.module:attribute`.

    Raises:
        OptionError: the text has another form; a path to a file gets the dotted form as a suggestion.
    """
    text = text.strip()
    if _REFERENCE.fullmatch(text):
        module, _, attribute = text.partition(":")
        return Reference(module, attribute)
    path, _, attribute = text.partition(":")
    dotted = path.removeprefix("./").removesuffix(".py").replace("/", ".")
    proposal = f"{dotted}:{attribute or 'NAME'}"
    hint = f"; did you mean {proposal}?" if _REFERENCE.fullmatch(proposal) else ""
    raise OptionError(f"{option} {text}: write package.module:attribute{hint}")


def resolve(reference: Reference, option: str) -> Any:
    """Import the module and return the attribute.

    Raises:
        OptionError: the module is not found or fails to import, or has no such attribute.
    """
    try:
        value = import_module(reference.module)
    except ModuleNotFoundError as error:
        if error.name is not None and (reference.module + ".").startswith(error.name + "."):
            raise OptionError(f"{option} {reference}: no module {error.name!r}; run the command where it can be imported from") from error
        raise OptionError(f"{option} {reference}: importing it needs the module {error.name!r}, which is not installed") from error
    except Exception as error:
        raise OptionError(f"{option} {reference}: importing it raised {describe(error)}") from error
    for part in reference.attribute.split("."):
        if not hasattr(value, part):
            names = (name for name in dir(value) if not name.startswith("_"))
            raise OptionError(f"{option} {reference}: {reference.module} has no {part!r}{suggest(part, names)}")
        value = getattr(value, part)
    return value


def call(reference: Reference, option: str, *args: Any) -> Any:
    """Resolve a reference and call it: the way in which a command gets the user's model or data.

    Raises:
        OptionError: as `resolve`, or the object cannot be called, or the call raises.
    """
    function = resolve(reference, option)
    if not callable(function):
        raise OptionError(f"{option} {reference}: {type(function).__qualname__} object is not a function; name one that returns it")
    try:
        return function(*args)
    except Exception as error:
        raise OptionError(f"{option} {reference}: calling it raised {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An exception of somebody else's as one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__qualname__}: {lines[0]}" if lines else type(error).__qualname__


def parse_inputs(texts: Iterable[str], option: str = "--example") -> tuple[InputSpec, ...]:
    """Parse one text per model input, in order; see `parse_input`."""
    return tuple(parse_input(text, option) for text in texts)


def existing(path: Path, option: str) -> Path:
    """The path, if it is there.

    Raises:
        OptionError: nothing is there; names the nearest neighbour.
    """
    if path.exists():
        return path
    folder = path.parent
    near = suggest(path.name, (entry.name for entry in folder.iterdir())) if folder.is_dir() else f"; there is no folder {folder}"
    raise OptionError(f"{option} {path}: no such file or folder{near}")


def result_folder(path: Path, option: str = "--out") -> Path:
    """A folder to write a result to: absent, empty, or an earlier result that may be replaced.

    Found out before the work starts, not after minutes of tuning.

    Raises:
        OptionError: the path is a file, holds something else, or cannot be written to.
    """
    if path.exists() and not path.is_dir():
        raise OptionError(f"{option} {path}: is a file; name a folder")
    if path.is_dir() and any(path.iterdir()) and not any((path / mark).exists() for mark in RESULT_MARKS):
        raise OptionError(f"{option} {path}: holds something that Billhook did not write; name a new folder")
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise OptionError(f"{option} {path}: {nearest} cannot be written to; name another folder or change its permissions")
    return path


def drawing_file(path: Path, option: str = "--graph") -> Path:
    """A file to draw into, whose suffix says in which form.

    Raises:
        OptionError: another suffix, or a folder is in the way.
    """
    if path.suffix not in DRAWINGS:
        raise OptionError(f"{option} {path}: name a file that ends in {' or '.join(DRAWINGS)}")
    if path.is_dir():
        raise OptionError(f"{option} {path}: is a folder; name a file")
    return path


def default_database(environment: Mapping[str, str]) -> Path:
    """Where measurements are kept: $BILLHOOK_DB, else billhook/measurements.sqlite in the user's cache folder."""
    if chosen := environment.get("BILLHOOK_DB"):
        return Path(chosen)
    cache = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".cache")
    return Path(cache) / "billhook" / "measurements.sqlite"
