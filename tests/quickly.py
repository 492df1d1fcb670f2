"""XLA's flags for programs that run once: nearly all the time goes into compiling them.

    XLA_FLAGS=$(python tests/quickly.py) python experiments/... --toy

Level 0 takes less than half of the time, 1 two thirds; at 0 XLA's float32 tanh never
reaches 1.
"""

import sys
from importlib.metadata import version


def flags(level: int) -> str:
    """Return the flags for a level of optimisation, as JAX's version knows them."""
    found = f"--xla_backend_optimization_level={level}"
    if version("jaxlib").startswith("0.10."):  # later ones end at a flag they lack
        found += " --xla_cpu_use_fusion_emitters=false"
    return found


if __name__ == "__main__":
    sys.stdout.write(flags(1) + "\n")
