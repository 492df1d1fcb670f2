"""The questions of `scripts/bench`, one a file: `report(toy)` prints the answer."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Chains, oracles and networks are those of the tests.
sys.path.append(str(ROOT / "tests"))
