"""The benchmark is not installed with the package: it is found in the checkout."""

from __future__ import annotations

import sys
from pathlib import Path

# Last, so that the installed package is the one under test.
sys.path.append(str(Path(__file__).parents[2]))
