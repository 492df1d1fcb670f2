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
from functools import partial

from . import (
    accuracy,
    against,
    certified,
    errors,
    exponents,
    first_answers,
    gradients,
    leading,
    memory,
    speed,
)
from ._measure import alone, machine

COSTS = {
    "speed": speed.report,
    "first_answers": first_answers.report,
    "memory": memory.report,
    "exponents": exponents.report,
    "leading": leading.report,
    "gradients": gradients.report,
    "certified": certified.report,
}
QUESTIONS = COSTS | {"accuracy": accuracy.report, "errors": errors.report}


def main():
    """Answer what is asked; exit with 1 if accuracy or errors miss a bound."""
    # Or, in a pipe, headings would come after the lines of the processes under them.
    sys.stdout.reconfigure(line_buffering=True)
    options = parsed()
    if options.against:
        against.report(options.against, options.toy)
        return
    asked = options.questions + options.flagged
    if not asked:
        asked = [*COSTS, "accuracy"] if options.toy else [*COSTS]
    if set(asked) & set(COSTS):
        print(alone(machine) + "\n")
    reports = QUESTIONS | {"errors": partial(errors.report, truth=options.truth)}
    missed = [name for name in asked if reports[name](options.toy)]
    sys.exit(1 if missed else 0)


def parsed():
    parser = argparse.ArgumentParser(
        "scripts/bench", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "questions", nargs="*", metavar="NAME", help=f"of {', '.join(QUESTIONS)}"
    )
    for name, said in (("accuracy", "errors, not times"), ("errors", "Spectrum.error")):
        parser.add_argument(
            f"--{name}",
            dest="flagged",
            action="append_const",
            const=name,
            default=[],
            help=said,
        )
    parser.add_argument("--against", metavar="COMMIT", help="calls of two commits")
    parser.add_argument(
        "--truth", metavar="FOLDER", help="where `errors` keeps what the oracle found"
    )
    parser.add_argument("--toy", action="store_true", help="small sizes")
    options = parser.parse_args()
    for name in set(options.questions) - set(QUESTIONS):
        parser.error(
            f"no question is called '{name}'; there are {', '.join(QUESTIONS)}"
        )
    return options


if __name__ == "__main__":
    main()
