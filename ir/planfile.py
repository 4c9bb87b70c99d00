"""plan.json and model.safetensors: a pruned network on disk, re-applied to a fresh model without any pickle."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, StringConstraints, ValidationError, model_validator
from torch import fx

from .atomic import atomic_folder
from .errors import PlanError
from .plan import Plan, make_plan
from .program import Program
from .weights import digest, read_weights, write_weights

PLAN = "plan.json"
WEIGHTS = "model.safetensors"
SCHEMA = 1

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Form = Literal["module", "graph"]


class InputPart(BaseModel):
    """Shape and element type of one example input."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    shape: tuple[NonNegativeInt, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "InputPart":
        return cls(shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))

    def example(self) -> torch.Tensor:
        """Seeded normal numbers for floats; zeros, which are valid token ids and masks, for the rest."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        if not dtype.is_floating_point:
            return torch.zeros(self.shape, dtype=dtype)
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(0)).to(dtype)


class Inputs(BaseModel):
    """The example inputs that the network was traced with, so that a fresh model can be traced in the same way."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    args: tuple[InputPart, ...]
    kwargs: Mapping[str, InputPart]


class AxisCut(BaseModel):
    """An axis that was cut: its dense size, and the indices that were kept, sorted."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: PositiveInt
    kept: tuple[NonNegativeInt, ...]

    @model_validator(mode="after")
    def _indices_fit(self) -> Self:
        if list(self.kept) != sorted(set(self.kept)) or (self.kept and self.kept[-1] >= self.size):
            raise ValueError(f"kept indices must be sorted, unique and below {self.size}")
        return self


class PlanFile(BaseModel):
    """The content of plan.json.

    schema_version: raised when older readers would misread the file.
    form: "module" where the pruned network is the user's own class, "graph" where it is an fx GraphModule.
    inputs: what the network was traced with, or null if those were not plain tensors.
    graph_sha256: of the dense graph's text; dense_sha256: of the dense weights; weights_sha256: of the file
    model.safetensors beside, which holds the pruned weights. factored: weights of layers that became two before the cut.
    versions: of what wrote it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1]
    form: Form
    inputs: Inputs | None
    axes: Mapping[str, AxisCut]
    graph_sha256: Sha256
    dense_sha256: Sha256
    weights_sha256: Sha256
    factored: tuple[str, ...] = ()
    versions: Mapping[str, str]

    def kept(self) -> dict[str, tuple[int, ...]]:
        """Kept indices per axis, as `bh.prune` takes them."""
        return {name: cut.kept for name, cut in self.axes.items()}

    def example(self) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        """Positional and keyword inputs to trace a fresh model with.

        Raises:
            PlanError: the network was traced with something else than plain tensors.
        """
        if self.inputs is None:
            raise PlanError(f"{PLAN}: the network was traced with inputs that are not plain tensors; give such inputs when loading")
        return tuple(part.example() for part in self.inputs.args), {name: part.example() for name, part in self.inputs.kwargs.items()}

    def plan(self, program: Program) -> Plan:
        """The plan, for a fresh program of the same network (its weights do not matter).

        Raises:
            PlanError: the program is of another network than the plan.
        """
        known = program.axis_index
        for name, cut in self.axes.items():
            if name not in known:
                raise PlanError(f"{PLAN}: cuts the axis {name}, which the model does not have{self._remedy()}")
            if known[name].size != cut.size:
                raise PlanError(f"{PLAN}: the axis {name} had size {cut.size}, the model's has {known[name].size}{self._remedy()}")
        if graph_digest(program) != self.graph_sha256:
            raise PlanError(f"{PLAN}: the model's graph differs from the one that was pruned{self._remedy()}")
        return make_plan(program, self.kept())

    def _remedy(self) -> str:
        changed = [f"{name} {version}" for name, version in self.versions.items() if versions().get(name) != version]
        other = f", with {' and '.join(changed)}" if changed else ""
        return f"; build it as it was when the plan was saved{other}"


def save_plan(folder: Path, plan: Plan, program: Program, module: torch.nn.Module) -> None:
    """Write plan.json and model.safetensors, whole or not at all.

    program: the dense program that the plan was made for. module: the pruned network, by now fine-tuned or not.

    Raises:
        OutputError: the folder cannot be written.
    """
    with atomic_folder(folder, seal=PLAN) as stage:
        write_plan(stage, plan, program, module)


def write_plan(stage: Path, plan: Plan, program: Program, module: torch.nn.Module) -> PlanFile:
    """Write the two files into a folder that somebody else publishes; see `save_plan`."""
    write_weights(module, stage / WEIGHTS)
    content = PlanFile(
        schema_version=SCHEMA,
        form="graph" if isinstance(module, fx.GraphModule) else "module",
        inputs=_inputs(program),
        axes={name: AxisCut(size=program.axis(name).size, kept=kept) for name, kept in plan.kept.items()},
        graph_sha256=graph_digest(program),
        dense_sha256=digest(program.state()),
        weights_sha256=file_digest(stage / WEIGHTS),
        factored=program.factored,
        versions=versions(),
    )
    (stage / PLAN).write_text(_format(content), encoding="utf-8")
    return content


def load_plan(folder: Path) -> PlanFile:
    """Read and check plan.json and the digest of the weights beside it.

    Raises:
        PlanError: a file is missing or damaged, or the schema is newer than this Billhook.
    """
    path = folder / PLAN
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        actual = file_digest(folder / WEIGHTS)
    except OSError as error:
        raise PlanError(f"{error.filename}: {error.strerror}; {folder} is not a folder that Billhook saved, or not all of it") from error
    except ValueError as error:
        raise PlanError(f"{path}: not JSON ({error}); the file is damaged, copy or save it again") from error
    plan = parse_plan(data, path)
    if actual != plan.weights_sha256:
        raise PlanError(f"{folder / WEIGHTS}: differs from what {PLAN} says was saved; the file is damaged or from another run")
    return plan


def parse_plan(data: Any, source: Path) -> PlanFile:
    """A PlanFile from parsed JSON.

    Raises:
        PlanError: another schema version, or the first key that is missing or wrong, by name.
    """
    version: Any = data.get("schema_version") if isinstance(data, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(version, int) and version > SCHEMA:
        raise PlanError(f"{source}: schema version {version}, this Billhook reads up to {SCHEMA}; upgrade Billhook")
    try:
        return PlanFile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PlanError(f"{source}: {where}: {first['msg']}; the file is damaged or not a plan of Billhook") from error


def load_weights(folder: Path, module: torch.nn.Module) -> None:
    """Load the pruned weights into a module that was cut by the plan, in place.

    Raises:
        PlanError: the file is damaged or does not fit the module.
    """
    read_weights(folder / WEIGHTS, module)


def graph_digest(program: Program) -> str:
    """SHA-256 (hex) of the graph's text, without what passes have found out about it: rules may improve, the graph stays."""
    bare = replace(program, types={}, axes=(), edits={}, reads=())
    return hashlib.sha256(str(bare).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(*more: str) -> dict[str, str]:
    """Versions of Billhook, of torch and of more packages, "unknown" for what is not installed as a package."""
    return {name: _version(name) for name in ("billhook", "torch", *more)}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def _inputs(program: Program) -> Inputs | None:
    args, kwargs = program.example
    if not all(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values())):
        return None
    return Inputs(args=tuple(map(InputPart.of, args)), kwargs={name: InputPart.of(value) for name, value in kwargs.items()})


def _format(content: PlanFile) -> str:
    """JSON with one line per axis: a plan is read by people and compared by diff."""
    data = content.model_dump(mode="json")
    axes: Mapping[str, Any] = data.pop("axes")
    if not content.factored:  # as it was written before there were any
        data.pop("factored")
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(cut)}" for name, cut in axes.items())
    head = json.dumps(data, indent=2)[:-2]
    return head + ',\n  "axes": {\n' + lines + "\n  }\n}\n"
