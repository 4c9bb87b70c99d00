"""What a compilation seeks: options that are read, completed and refused together."""

from typing import Any

import pytest

from billhook.goals import Goals, Objective, make_goals
from billhook.ir.errors import OptionError
from billhook.options import Budget, MemoryBudget


def test_half_the_latency_is_the_default() -> None:
    assert make_goals(None) == Goals(Budget(0.5, "share"), Objective(), None, None)
    assert make_goals("12ms", memory="2MB", weights=0.5) == Goals(
        Budget(0.012, "s"), Objective(), MemoryBudget(2e6, "B"), MemoryBudget(0.5, "share")
    )


def test_the_least_latency_is_bounded_by_the_dense_one() -> None:
    found = make_goals(None, objective="latency", retain="90%", memory="60%", weights="1MiB")
    assert found.latency == Budget(1.0, "share")
    assert found.objective == Objective("latency", 0.9)
    assert found.memory == MemoryBudget(0.6, "share")
    assert str(found.objective) == "least latency that retains 90.00%"
    assert make_goals(None, objective="memory", retain=0.9).latency == Budget(0.5, "share")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "latncy", "retain": 0.9}, "objective latncy: no such objective; did you mean latency"),
        ({"objective": "latency"}, "objective latency: the least of what. add retain"),
        ({"retain": 0.9}, "retain 0.9: with objective importance the most is retained; leave it out"),
        ({"objective": "memory", "retain": "130%"}, "retain 130%: a share lies between 0 and 100%"),
        ({"objective": "latency", "retain": 0.9, "preset": "halp"}, "objective latency: preset halp takes a latency, not a floor"),
        ({"memory": "50%", "preset": "halp"}, "memory 50%: preset halp keeps no limit but the latency"),
        ({"weights": "50%", "preset": "halp"}, "weights 50%: preset halp keeps no limit but the latency"),
        ({"weights": "3"}, "weights 3: .*did you mean 3MB or 3%"),
        ({"objective": "latency", "retain": 0.9, "sparsity": "blocks"}, "objective latency: sparse layers are chosen for a latency"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_goals(None, **options)
