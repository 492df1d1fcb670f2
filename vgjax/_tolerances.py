"""Every tolerance and heuristic number of the package, and where it comes from.

In bits, nats, powers of eps or pure numbers, as each says. Numbers that follow from the
range of a dtype stand where they are used.
"""

# Linear algebra ---------------------------------------------------------------------

# A number that N others cancelled to is round-off below so many sqrt(N) eps of them.
# The bound for one product is N eps, but errors grow as sqrt(N) and come from several
# products: with N eps, one in fifty of random integer chains of rank 3 and 7 kept a
# direction that a step had annihilated.
ROUNDOFF = 8

# Products of matrices ---------------------------------------------------------------

# As a power of eps: columns of a factor that are smaller than the largest by this (7e-4
# in float64, 4e-2 in float32) take care. Above, they cost at most one fifth of the
# digits, in a single factor.
UNEVEN_COLUMNS = 0.2
# As a power of eps: a pivot that is round-off takes care where it is below this share
# of its row.
WEAK_PIVOT = 0.5
# An entry this many times above the pivot, scales counted, was passed over as round-off
# when the pivot was chosen, and is taken for zero.
OVERTAKES = 4
# Errors are so many times the effect of a typical rounding; `scripts/bench --errors`
# finds none too small.
ERROR_SAFETY = 3.0
# Undecided from here on, where an error would exceed 0.7 nats. With 0.1, one right
# value in a thousand more is undecided; with either no error is too small.
UNDECIDED_FROM = 0.5
# Directions within so many bits of each other share their errors.
SHARED_ERROR_BITS = 3
# By how much chance may make a leak of the sample too small.
HIDDEN_BY_CHANCE = 100.0
# Directions within so many bits of each other turn into one another.
MIXING_BITS = 8
# New leaks are so many times the root of the summed squares of their terms.
TYPICAL_ROUNDING = 4.0
# What a triangle's entries and a column order may be off by, in bits, before the
# plain factorisation is done again with more care.
CARE_BITS = 8
# What directions may be out of order, in bits, before they are sorted: what is rounded
# behind them is magnified by as much.
DISORDER_BITS = 2
# Pushes between two balancings, which keep `right` near a diagonal. Without them the
# error after 1,000 steps of degenerate pairs is 5e-12 nats instead of 2e-13.
PUSHES_PER_BALANCE = 8
# Three sweeps make the coupling of directions g bits apart 2^-6g or so: below eps for
# all but near neighbours, which is what vectors ask for.
DECOUPLING_SWEEPS = 3
# Nats: what differences of values are taken in, far below float64's own rounding.
DIFFERENCE_RADIUS = 1e-20

# Frames along a trajectory -----------------------------------------------------------

# A leak that has grown to this power of eps may move exponents, by bits of the dtype:
# 6e-6 and 4e-2. In float32 those of eps^(1/3) come and go in resolved networks.
LEAK_DECIDES = {64: 1 / 3, 32: 1 / 5}

# Exponents --------------------------------------------------------------------------

# As a power of eps: 3e-7 nats per step in float64, 1e-3 in float32.
EXPONENT_TOL = 0.42
# The most steps of one record, and so of one group.
LONGEST_RECORD = 32
# Records shorten so that there are at least so many, for the error.
FEWEST_RECORDS = 10
# Batches whose means the standard error is taken from, at most.
MOST_BATCHES = 32

# Leading values ----------------------------------------------------------------------

# As a power of eps: 1e-11 in float64, 1e-5 in float32.
SWEEP_ROUNDOFF = 0.7
# What round-off makes of a value, of its size, on each way.
VALUE_ULPS = 16
# A sweep that leaves more than this part of an error has stagnated: blocks are
# collected from then on.
STAGNATION = 0.3
# Vectors that go along beside the k asked for: value i converges by the square of
# sigma_(k+8+1) / sigma_i in each half of a sweep, and faster once blocks are collected.
OVERSAMPLING = 8
# Times the square root of eps: 1e-9 nats in float64, 2e-5 in float32.
LEADING_TOL = 0.07

# Theory -----------------------------------------------------------------------------

# Relative: maxima are found to this, at most a tenth of what is promised.
MAXIMUM_TOL = 1e-11
# Eigenvalues this close to the unit circle count as on it. One too many costs one
# evaluation; one too few may cost a maximum.
ON_CIRCLE = 1e-3
# An eigenvalue of modulus within this of 1 neither decays nor grows.
UNIT_MODULUS = 1e-9
# Beyond this condition, a unit eigenvalue is taken for defective.
DEFECTIVE_CONDITION = 1e7
# Nats; what the norm of a power that is 1 on paper may be off.
POWER_ROUNDING = 1e-12
# Below this variance an activation is linear to the last bit.
LINEAR_VARIANCE = 1e-20
# Above this standard deviation a bounded activation is a sign to the last bit.
SIGN_DEVIATION = 1e17
