"""Every structural fixture: exactly the expected axes are prunable, and on each of them the cut equals the mask."""

import pytest
from axis_oracle import bench
from structures import STRUCTURES


@pytest.mark.parametrize("name", sorted(STRUCTURES))
def test_structure(name: str) -> None:
    structure = STRUCTURES[name]
    model, (args, kwargs) = structure.build()
    found = bench(model, *args, **kwargs)
    assert {f"{axis.name}:{axis.size}" for axis in found.program.axes if axis.prunable} == structure.prunable
    found.check_every_axis()
