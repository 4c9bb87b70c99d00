"""`python -m billhook` is the command `billhook`."""

import sys

from .cli import main

sys.exit(main())
