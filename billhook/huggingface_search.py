"""Which values of a configuration's integers make a model with wanted shapes. Nothing is looked up: every one is tried, without memory."""

import copy
import sys
from collections.abc import Iterator, Mapping
from itertools import chain, combinations, product
from typing import Any, TypeAlias

import torch

Place: TypeAlias = tuple[str | int, ...]  # of a value in a configuration: names of nested configurations, positions in lists
Setting: TypeAlias = tuple[Place, int]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

MOST_MODELS = 2000  # configurations tried at most
REFUSALS = (ValueError, TypeError, RuntimeError, AssertionError, AttributeError, KeyError, IndexError, ZeroDivisionError)


class Search:
    """Configurations whose models have the wanted shapes, fewest changes first."""

    def __init__(self, host: Any, wanted: Shapes, extents: Mapping[int, set[int]]) -> None:
        self.host, self.wanted = host, wanted
        self.dense = {name: tuple(t.shape) for name, t in host.state_dict().items()}
        self.tried = 0
        self.nearest: tuple[int, str, tuple[Setting, ...]] = (len(wanted) + 1, "", ())
        self._remember(self.dense, ())
        self.shaping: dict[Place, list[int]] = {}  # values that change a shape, or are refused unless others change too
        self.silent: dict[Place, list[int]] = {}  # values that no shape shows, such as a number of heads
        places = dict(_integers(host.config))
        unset = {place: answers for place, value in places.items() if value is None and (answers := self._answers(place))}
        for place, value in places.items():
            for option in sorted(extents.get(value, set()) - {value}) if value is not None else ():
                self._sort_in((place, option), [(), *_choices(unset)])
        self.shaping.update(unset)

    def _sort_in(self, setting: Setting, besides: list[tuple[Setting, ...]]) -> None:
        """Widths only shrink and shapes grow with the integers: a value that makes them too small is out."""
        shapes = self._shapes((setting,))
        if shapes == self.dense:
            self.silent.setdefault(setting[0], []).append(setting[1])
        elif shapes is None or any(self._not_below(self._shapes((setting, *others))) for others in besides):
            self.shaping.setdefault(setting[0], []).append(setting[1])
        else:
            self._remember(shapes, (setting,))

    def _shapes(self, settings: tuple[Setting, ...]) -> Shapes | None:
        self.tried += 1
        return _shapes(self.host, settings)

    def _not_below(self, shapes: Shapes | None) -> bool:
        if shapes is None or shapes.keys() != self.dense.keys():
            return False
        return all(s >= w for name, shape in self.wanted.items() for s, w in zip(shapes[name], shape, strict=True))

    def _answers(self, place: Place) -> list[int]:
        """What an integer that is not set (None) could be: the sizes that dimensions shall have which change when it is 1."""
        shapes = self._shapes(((place, 1),))
        if shapes is None or shapes.keys() != self.dense.keys():
            return []
        pairs = ((s, d, w) for n in self.dense for s, d, w in zip(shapes[n], self.dense[n], self.wanted[n], strict=True))
        return sorted({w // s for s, d, w in pairs if s != d and s and w % s == 0})

    def fitting(self) -> Iterator[tuple[Setting, ...]]:
        """Every choice of settings with the wanted shapes: those that show in shapes first, then with more silent ones."""
        for shaping in _choices(self.shaping) if self.dense != self.wanted else [()]:
            for silent in chain([()], _choices(self.silent)):
                if {p for p, _ in shaping} & {p for p, _ in silent}:
                    continue
                if self.tried >= MOST_MODELS:
                    return
                shapes = self._shapes((*shaping, *silent))
                if shapes == self.wanted:
                    yield (*shaping, *silent)
                elif shapes is not None:
                    self._remember(shapes, shaping)
                    break  # the shapes are wrong, and silent settings do not change them

    def _remember(self, shapes: Shapes, settings: tuple[Setting, ...]) -> None:
        wrong = [n for n, shape in self.wanted.items() if shapes.get(n) != shape]
        if wrong and len(wrong) < self.nearest[0]:
            said = f"{wrong[0]} is {_x(self.wanted[wrong[0]])}, not {_x(shapes.get(wrong[0], ()))}"
            self.nearest = len(wrong), said, settings

    def refusal(self) -> str:
        """Why no configuration fits, by the one that comes nearest."""
        name = type(self.host.config).__qualname__
        values = ", ".join(f"{'.'.join(map(str, p))}={v}" for p, v in self.nearest[2]) or "its present values"
        return (
            f"no {name} of {self.tried} has the shapes of the cut network: with {values}, {self.nearest[0]} tensors differ, such as "
            f"{self.nearest[1]}; give all layers one width, as constraints=['uniform(...)'] does, or use result.save"
        )


def _choices(options: Mapping[Place, list[int]]) -> Iterator[tuple[Setting, ...]]:
    """Every choice of values for one or more of the paths, fewest first."""
    for count in range(1, len(options) + 1):
        for paths in combinations(options, count):
            for values in product(*(options[p] for p in paths)):
                yield tuple(zip(paths, values, strict=True))


def _integers(config: Any) -> Iterator[tuple[Place, int | None]]:
    """Every integer of a configuration, in lists and nested configurations too; None where one may be set and is not."""
    hints = {k: v for base in reversed(type(config).__mro__) for k, v in getattr(base, "__annotations__", {}).items()}
    values: dict[str, Any] = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    for name, value in values.items():
        if type(value) is int:
            yield (name,), value
        elif value is None and "int" in str(hints.get(name, "")).replace("|", " ").split():
            yield (name,), None
        elif isinstance(value, (list, tuple)):
            entries: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
            yield from (((name, i), v) for i, v in enumerate(entries) if type(v) is int)
        elif hasattr(value, "to_dict"):
            yield from (((name, *place), v) for place, v in _integers(value))


def configured(config: Any, settings: tuple[Setting, ...]) -> Any:
    """A copy of the configuration with changed settings."""
    changed = copy.deepcopy(config)
    for place, value in settings:
        changed = _replaced(changed, place, value)
    return changed


def _replaced(home: Any, place: Place, value: int) -> Any:
    """What is at a place set to a value: in a list of its own, or in the (nested) configuration itself."""
    if not place:
        return value
    step, rest = place[0], place[1:]
    if isinstance(step, int):
        entries = list(home)
        entries[step] = _replaced(entries[step], rest, value)
        return type(home)(entries)
    setattr(home, step, _replaced(getattr(home, step), rest, value))
    return home


def _shapes(host: Any, settings: tuple[Setting, ...]) -> dict[str, tuple[int, ...]] | None:
    """Shapes of the state of a model with changed settings; None where its class refuses them."""
    try:
        with torch.device("meta"):
            model = type(host)(configured(host.config, settings))
    except _errors():
        return None
    return {name: tuple(t.shape) for name, t in model.state_dict().items()}


def _errors() -> tuple[type[Exception], ...]:
    """What a model's or configuration's constructor raises for values that it does not take."""
    hub = sys.modules.get("huggingface_hub.errors")  # loaded if the configuration is one of transformers'
    return (*REFUSALS, hub.StrictDataclassError) if hub is not None else REFUSALS


def _x(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
