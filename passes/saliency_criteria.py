"""The criteria by name, and the one call that scores with any of them. To add one: a file, its test, and a line here."""

from types import MappingProxyType

import torch

from billhook.ir.errors import DataError, OptionError
from billhook.ir.nearest import suggest
from billhook.ir.program import Program

from .saliency import Criterion, Data, DataCriterion, Scores
from .saliency_activation import Activation
from .saliency_distance import Distance
from .saliency_distortion import Distortion
from .saliency_fisher import Fisher
from .saliency_gradients import collect_gradients
from .saliency_hessian import Curvature
from .saliency_lamp import Lamp
from .saliency_lasso import Lasso
from .saliency_magnitude import Magnitude, l1, l2
from .saliency_mix import Mix
from .saliency_norm_scale import NormScale
from .saliency_random import Random
from .saliency_readers import Readers
from .saliency_taylor import Taylor, taylor

WEIGHT_CRITERIA: MappingProxyType[str, Criterion] = MappingProxyType(
    {
        "l1": l1,
        "l2": l2,
        "l2-mean": Magnitude(mean=True),  # plain magnitude, whatever the size: the ranking of global magnitude pruning
        "bn-scale": NormScale(),
        "fpgm": Distance(),
        "lamp": Lamp(),
        "dimap": Distortion(),
        "random": Random(),
    }
)
GRADIENT_CRITERIA: MappingProxyType[str, Criterion] = MappingProxyType(
    {
        "taylor": taylor,
        "taylor-weight": Taylor(form="weight"),
        "fisher": Fisher(),
        "smcp": Readers(),
        "hesso": Mix(),
    }
)
DATA_CRITERIA: MappingProxyType[str, DataCriterion] = MappingProxyType(
    {
        "hap": Curvature(),
        "activation": Activation(),
        "lasso": Lasso(),
    }
)
CRITERIA = (*WEIGHT_CRITERIA, *GRADIENT_CRITERIA, *DATA_CRITERIA)


def check_criterion(name: str) -> str:
    """The name, if a criterion has it. Raises OptionError with the nearest, and the known names."""
    if name not in CRITERIA:
        raise OptionError(f"no criterion is called {name!r}{suggest(name, CRITERIA)} (known: {', '.join(CRITERIA)})")
    return name


def chosen_criterion(name: str | None, *, data: bool) -> str:
    """The name, checked like `check_criterion`; None is the default: taylor where there are data, else l2 (decision 0012)."""
    return check_criterion(name or ("taylor" if data else "l2"))


def score_axes(name: str, program: Program, module: torch.nn.Module, data: Data | None) -> Scores:
    """Scores of every axis by the criterion with this name.

    module: the network whose weights count, by the program's names. Raises OptionError for an unknown name, DataError where the
    criterion needs data and there is none, and what the criterion raises.
    """
    check_criterion(name)
    if name in WEIGHT_CRITERIA:
        return WEIGHT_CRITERIA[name](program, module)
    if data is None:
        raise DataError(f"criterion {name} needs data; pass a loader, or use one that looks at weights only ({', '.join(WEIGHT_CRITERIA)})")
    if name in DATA_CRITERIA:
        return DATA_CRITERIA[name].score(program, module, data)
    gradients = collect_gradients(module, data.loader, data.loss, data.batches, data.progress)
    return GRADIENT_CRITERIA[name](program, module, gradients)
