"""What the suite shares with the tests: models that load without torchvision's compiled operators, redrawn weights, structures."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from redrawn import cheap_construction, redraw
from structures import STRUCTURES
from torchvision_shim import models

__all__ = ["STRUCTURES", "cheap_construction", "models", "redraw"]
