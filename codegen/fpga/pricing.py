"""What a layer costs on an accelerator: its best tiling by the cycle model."""

from dataclasses import dataclass, field, replace

from .accelerator import Accelerator
from .instructions import Step
from .memory import Memory
from .schedule import Places, Requantisation, schedule
from .shape import LayerShape
from .tiling import Tiling, tilings
from .timeline import engine_cycles, step_cycles

_TRIED = 2  # tilings whose cycles are computed exactly


@dataclass(frozen=True, slots=True)
class Priced:
    """The tiling with the fewest cycles, and these."""

    tiling: Tiling
    cycles: int


@dataclass(slots=True)
class Pricer:
    """Prices layers for one accelerator and one memory; equal layers are priced once."""

    accelerator: Accelerator
    memory: Memory
    known: dict[LayerShape, Priced] = field(default_factory=dict[LayerShape, Priced])

    def price(self, shape: LayerShape) -> Priced:
        """The best tiling of a layer: of those whose busiest engine has the least to do. Raises OptionError where none fits the buffers."""
        if shape not in self.known:
            bounds = self._bounds(shape)
            found: list[Priced] = []
            for bound, tiling in bounds[:_TRIED]:
                if not found or bound < min(p.cycles for p in found):
                    found.append(Priced(tiling, self.cycles(shape, tiling)))
            self.known[shape] = min(found, key=lambda p: p.cycles)
        return self.known[shape]

    def bound(self, shape: LayerShape) -> int:
        """Cycles below which no tiling of a layer gets. Raises OptionError where none fits the buffers."""
        return self._bounds(shape)[0][0]

    def _bounds(self, shape: LayerShape) -> list[tuple[int, Tiling]]:
        found = [
            (sum(engine_cycles(s, self.accelerator, self.memory) for s in self.steps(shape, t)), t)
            for t in tilings(shape, self.accelerator)
        ]
        return sorted(found, key=lambda pair: pair[0])

    def cycles(self, shape: LayerShape, tiling: Tiling) -> int:
        """Cycles of a layer with this tiling."""
        return sum(step_cycles(s, self.accelerator, self.memory) for s in self.steps(shape, tiling))

    def steps(self, shape: LayerShape, tiling: Tiling) -> tuple[Step, ...]:
        """A layer's steps with its maps, weights and parameters one behind the other in memory, as pricing sees them."""
        numbers = Requantisation(residual_multiplier=1 if shape.residual is not None else 0)
        return schedule(shape, tiling, self.accelerator, _places(shape, self.accelerator), numbers)


def _places(shape: LayerShape, accelerator: Accelerator) -> Places:
    columns = accelerator.columns
    output = shape.source.bytes(columns)
    residual = output + shape.output.bytes(columns)
    kept = shape.residual if shape.residual is not None else 0
    weights = residual + replace(shape.output, border=kept).bytes(columns)
    parameters = weights + shape.kernel[0] * shape.kernel[1] * shape.source.channels * shape.output.channels
    return Places(0, weights, parameters, residual, output)
