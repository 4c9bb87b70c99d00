"""The allocation problem: which size every axis gets, what each choice retains and what it costs.

    maximise    sum of the values          (retained saliency, any unit)
    subject to  sum of the seconds <= budget, every resource within its limit, the side constraints

A kernel's cost depends on the axes that it touches, so it is a factor over one to four variables, or over a sum of variables
where it reads or makes a concatenation (METHODS.md 1, problem P). Everything here is plain data and free of torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from billhook.ir.errors import AxisError, DataError, OptionError

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.intp]
Bools: TypeAlias = npt.NDArray[np.bool_]


def _frozen(array: Any) -> Floats:
    copy = np.array(array, dtype=np.float64)
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """An axis: its candidate sizes, ascending (0 = the branch is removed), and the value retained at each of them."""

    sizes: tuple[int, ...]
    values: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _frozen(self.values))
        if not self.sizes or self.sizes[0] < 0 or any(a >= b for a, b in zip(self.sizes, self.sizes[1:], strict=False)):
            raise DataError(f"candidate sizes must ascend from 0 or more, got {self.sizes}")
        if self.values.shape != (len(self.sizes),) or not np.isfinite(self.values).all():
            raise DataError(f"need one finite value for each of the sizes {self.sizes}, got {self.values.tolist()}")


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """A table over the candidates of one to four variables: axis i runs over the sizes of `variables[i]`.

    An entry that is infinite (+inf as a cost, -inf as a value) forbids that combination.
    """

    name: str
    variables: tuple[str, ...]
    table: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", _frozen(self.table))
        if not 1 <= len(self.variables) <= 4 or self.table.ndim != len(self.variables):
            got = f"{self.variables} and {self.table.shape}"
            raise DataError(f"factor {self.name}: needs 1 to 4 variables and one table axis for each, got {got}")


@dataclass(frozen=True, slots=True, eq=False)
class SumFactor:
    """A table over (sum of the sizes of `inputs`, sizes of up to two `others`): a kernel that reads or makes a concatenation.

    Row i is for a sum of `widths[i]`; a sum between two widths takes the row of the larger one, as a padded kernel does.
    An input that is listed twice counts twice. Where one of `needs`, which are inputs, has size 0, the factor is 0: the kernel vanishes.
    """

    name: str
    inputs: tuple[str, ...]
    others: tuple[str, ...]
    widths: tuple[int, ...]
    table: Floats
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", _frozen(self.table))
        if not self.inputs or any(a >= b for a, b in zip(self.widths, self.widths[1:], strict=False)):
            raise DataError(f"factor {self.name}: needs inputs and ascending widths, got {self.inputs} and {self.widths}")
        if len(self.others) > 2 or self.table.ndim != 1 + len(self.others) or self.table.shape[0] != len(self.widths):
            wanted = f"{len(self.widths)} widths and others {self.others}"
            raise DataError(f"factor {self.name}: the table {self.table.shape} does not fit {wanted}")
        if not set(self.needs) <= set(self.inputs):
            raise DataError(f"factor {self.name}: needs {self.needs}, which must be among its inputs {self.inputs}")


AnyFactor: TypeAlias = Factor | SumFactor


@dataclass(frozen=True, slots=True)
class Resource:
    """A further budget in its own unit: "sum" adds the factors and the constant up, "peak" limits every entry by itself."""

    name: str
    limit: float
    factors: tuple[AnyFactor, ...]
    constant: float = 0.0
    combine: Literal["sum", "peak"] = "sum"


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """An allocation problem. `factors` and `constant` are in seconds; `value_factors` add to the values of the variables.

    floors: smallest size allowed, per axis. uniform: groups of axes that must get the same size. keep_one: sets of which not
    all may get size 0, such as the branches of one cut of the graph, which has to keep a path.
    """

    variables: Mapping[str, Variable]
    factors: tuple[AnyFactor, ...]
    constant: float = 0.0
    value_factors: tuple[AnyFactor, ...] = ()
    resources: tuple[Resource, ...] = ()
    floors: Mapping[str, int] = field(default_factory=dict[str, int])
    uniform: tuple[tuple[str, ...], ...] = ()
    keep_one: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.variables:
            raise DataError("nothing to allocate: no axis has a choice of sizes; see which axes are frozen and why")
        for where, names in self._references():
            unknown = [n for n in names if n not in self.variables]
            if unknown:
                raise AxisError(f"{where} names the axis {unknown[0]}, which is not a variable of the problem")
        for factor in (*self.factors, *(f for r in self.resources for f in r.factors)):
            _check_table(self, factor, np.inf)
        for factor in self.value_factors:
            _check_table(self, factor, -np.inf)
        for name, floor in self.floors.items():
            largest = self.variables[name].sizes[-1]
            if floor > largest:
                raise OptionError(f"axis {name}: the floor {floor} exceeds its largest size {largest}; lower the floor")
        if len({r.name for r in self.resources} | {"seconds"}) != len(self.resources) + 1:
            raise OptionError(f"resources need distinct names other than 'seconds', got {[r.name for r in self.resources]}")

    def _references(self) -> Iterable[tuple[str, tuple[str, ...]]]:
        for factor in (*self.factors, *self.value_factors, *(f for r in self.resources for f in r.factors)):
            yield f"factor {factor.name}", factor_scope(factor)
        yield "floors", tuple(self.floors)
        for group in self.uniform:
            yield "uniform", group
        for group in self.keep_one:
            yield "keep_one", group


def factor_scope(factor: AnyFactor) -> tuple[str, ...]:
    """Names of the variables that the factor touches, repetitions included."""
    if isinstance(factor, Factor):
        return factor.variables
    return factor.inputs + factor.others


def restrict(problem: Problem, keep: Mapping[str, Ints]) -> Problem:
    """The same problem with only the candidates `keep[name]` (ascending indices) of the named variables."""

    def rows(name: str) -> Ints:
        return keep[name] if name in keep else np.arange(len(problem.variables[name].sizes))

    def cut(factor: AnyFactor) -> AnyFactor:
        if isinstance(factor, Factor):
            return replace(factor, table=factor.table[np.ix_(*map(rows, factor.variables))])
        return replace(factor, table=factor.table[np.ix_(np.arange(len(factor.widths)), *map(rows, factor.others))])

    def shrink(name: str, variable: Variable) -> Variable:
        return Variable(tuple(variable.sizes[int(i)] for i in rows(name)), variable.values[rows(name)])

    return replace(
        problem,
        variables={n: shrink(n, v) for n, v in problem.variables.items()},
        factors=tuple(map(cut, problem.factors)),
        value_factors=tuple(map(cut, problem.value_factors)),
        resources=tuple(replace(r, factors=tuple(map(cut, r.factors))) for r in problem.resources),
    )


def _check_table(problem: Problem, factor: AnyFactor, forbidding: float) -> None:
    sizes = [len(problem.variables[n].sizes) for n in factor_scope(factor)]
    if isinstance(factor, SumFactor):
        largest = sum(problem.variables[n].sizes[-1] for n in factor.inputs)
        if largest > factor.widths[-1]:
            raise DataError(f"factor {factor.name}: its inputs sum up to {largest}, but its table ends at width {factor.widths[-1]}")
        sizes = [len(factor.widths), *sizes[len(factor.inputs) :]]
    if factor.table.shape != tuple(sizes):
        raise DataError(f"factor {factor.name}: its table has shape {factor.table.shape}, its variables need {tuple(sizes)}")
    if np.isnan(factor.table).any() or (factor.table == -forbidding).any():
        raise DataError(f"factor {factor.name}: its table holds NaN or {-forbidding}; only {forbidding} may occur, to forbid")
