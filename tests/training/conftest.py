"""The recipe is not installed with the package: it is found in the checkout."""

from __future__ import annotations

import sys
from pathlib import Path

# It reads TOML with the standard library.
if sys.version_info < (3, 11):
    collect_ignore_glob = ["test_*.py"]

# Last, so that the installed package is the one under test, also in processes that tests start.
sys.path.append(str(Path(__file__).parents[2]))
