"""Run programs in processes of their own."""

import os
import subprocess
import sys


def run_as_a_user(program: str) -> subprocess.CompletedProcess:
    """Run Python code compiled with the optimisations that the tests do without.

    Without them, last bits may depend on the size of a batch.
    """
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    run = [sys.executable, "-c", program]
    return subprocess.run(run, env=env, capture_output=True, text=True, check=False)
