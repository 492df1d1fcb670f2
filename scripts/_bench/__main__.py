"""What vgjax costs, as ratios to what a user would do instead, and how exact it is.

    scripts/bench               the tables of speed and memory, about fifteen minutes
    scripts/bench accuracy      worst errors beside their bounds, about ten minutes
    scripts/bench errors        what `Spectrum.error` promises, on 556 networks and
                                chains, and its cost; exits with 1 where it fails
    scripts/bench NAME ...      these questions alone; --help lists them
    scripts/bench --against C   this tree's calls as ratios to those of commit C
    scripts/bench --toy         speed, memory and accuracy at toy size, to see that they
                                run; with a question that one, smaller

`--accuracy` and `--errors` are the questions of that name. Times are medians of several
warm calls, after `block_until_ready`, in one process per setting of
OPENBLAS_NUM_THREADS; those of leading spectra are first calls. Only ratios are meant to
be compared.
"""

import argparse
import sys
from importlib import import_module

from ._measure import alone, machine

COSTS = [
    "speed",
    "first_answers",
    "memory",
    "exponents",
    "leading",
    "gradients",
    "certified",
]
QUESTIONS = (*COSTS, "accuracy", "errors")


def main():
    """Answer what is asked; exit with 1 if accuracy or errors miss a bound."""
    # Or, in a pipe, headings would come after the lines of the processes under them.
    sys.stdout.reconfigure(line_buffering=True)
    options = parsed()
    if options.against:
        report("against", options.against, options.toy)
        return
    asked = options.questions + options.flags
    if not asked:
        asked = [*COSTS, "accuracy"] if options.toy else COSTS
    if set(asked) & set(COSTS):
        print(alone(machine) + "\n")
    own = {"errors": [options.truth]}
    missed = [report(name, options.toy, *own.get(name, [])) for name in asked]
    sys.exit(any(missed))


def parsed():
    made = argparse.ArgumentParser("scripts/bench", description=__doc__.split("\n")[0])
    listed = ", ".join(QUESTIONS)
    made.add_argument("questions", nargs="*", metavar="NAME", help=f"one of {listed}")
    for name in ("accuracy", "errors"):
        flag = {"dest": "flags", "action": "append_const", "const": name}
        made.add_argument(f"--{name}", help=f"the question {name}", **flag)
    made.set_defaults(flags=[])
    made.add_argument("--against", metavar="COMMIT", help="calls of two commits")
    made.add_argument("--truth", metavar="FOLDER", help="keeps what the oracle found")
    made.add_argument("--toy", action="store_true", help="small sizes")
    options = made.parse_args()
    # `choices` would refuse a call without a question.
    for name in options.questions:
        if name not in QUESTIONS:
            made.error(f"no question is called '{name}'; there are {listed}")
    return options


def report(name, *arguments):
    """Print the answer; return how many bounds were missed, where that counts."""
    return import_module(f".{name}", __package__).report(*arguments)


if __name__ == "__main__":
    main()
