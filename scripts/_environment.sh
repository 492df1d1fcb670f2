# shellcheck shell=bash
# Builds, repairs and extends .venv for the scripts beside this file, which source it.
#
#   enter_repository           change to the repository's root
#   find_python                set `python` to a Python >= 3.11, without building
#   ensure_environment EXTRA.. set `python` to .venv's, with these extras installed
#
# VGJAX_PYTHON  the interpreter to build with
# VGJAX_EXTRAS  further extras, comma-separated: VGJAX_EXTRAS=cuda12 scripts/run
#
# .venv/vgjax-stamp says what was installed and is written last, so an
# environment without it is half-made. Keep to bash 3.2, which macOS has.

say() { printf '%s\n' "vgjax: $*" >&2; }

die() {
    say "$*"
    exit 1
}

# At the sizes of most networks OpenBLAS' threads and XLA's compete: twice as slow.
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}

enter_repository() {
    cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit
    root=$PWD
}

# True if "$1" runs and is new enough. A pyenv shim of a version that is not
# installed exists and fails, so the question is put to the interpreter itself.
_is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate seen=
    if [[ -n ${VGJAX_PYTHON:-} ]]; then
        _is_new_enough "$VGJAX_PYTHON" ||
            die "VGJAX_PYTHON=$VGJAX_PYTHON is not a Python 3.11 or newer that runs."
        python=$VGJAX_PYTHON
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if _is_new_enough "$candidate"; then
            python=$candidate
            return
        fi
        [[ -n $seen ]] || seen=$("$candidate" --version 2>/dev/null || true)
    done
    die "Python 3.11 or newer is needed, and PATH has ${seen:-no Python};" \
        "install one, or name it in VGJAX_PYTHON."
}

# The extras that pyproject.toml offers, one a line.
_known_extras() {
    awk '/^\[/ { inside = ($0 == "[project.optional-dependencies]") }
         inside && /^[a-z0-9]+ *=/ { print $1 }' pyproject.toml
}

# One extra a line, sorted, each once, from arguments separated by commas or blanks.
_extras() { tr -s ', \n' '\n' <<<"$*" | sed '/^$/d' | LC_ALL=C sort -u; }

# What the environment depends on. The path is part of it because an editable
# install points at it: a copied or moved clone must not import the old one.
_wanted_key() { printf '%s %s' "$(cat pyproject.toml constraints.txt | cksum)" "$root"; }

_stamped_key() { sed -n 1p .venv/vgjax-stamp 2>/dev/null || true; }
_stamped_extras() { sed -n 2p .venv/vgjax-stamp 2>/dev/null || true; }

_venv_works() { [[ -x .venv/bin/python ]] && _is_new_enough .venv/bin/python; }

_venv_is_of_another_python() {
    local version='import sys; print(sys.version_info[:2])'
    [[ -n ${VGJAX_PYTHON:-} ]] &&
        [[ $("$VGJAX_PYTHON" -c "$version" 2>&1) != $(.venv/bin/python -c "$version") ]]
}

# True if .venv holds all of "$1" (as printed by _extras) for this pyproject.toml.
_is_ready() {
    [[ $(_stamped_key) == "$(_wanted_key)" ]] || return 1
    [[ $(_extras "$(_stamped_extras)" "$1") == "$(_extras "$(_stamped_extras)")" ]] ||
        return 1
    _venv_works && ! _venv_is_of_another_python
}

_install() {
    local extras=$1 list start=$SECONDS
    list=$(paste -s -d , - <<<"$extras")
    if [[ -e .venv/vgjax-stamp ]] && _venv_works && ! _venv_is_of_another_python; then
        extras=$(_extras "$(_stamped_extras)" "$extras")
        list=$(paste -s -d , - <<<"$extras")
        say "bringing .venv up to date with extras $list (seconds, unless they are large) ..."
    elif [[ -e .venv && ! -e .venv/vgjax-stamp && ! -e .venv/vgjax-unfinished ]] &&
        _venv_works && .venv/bin/python -m pip --version >/dev/null 2>&1; then
        say "installing into the .venv that is here, with extras $list (once, under a minute) ..."
    else
        find_python
        [[ ! -e .venv/vgjax-unfinished ]] ||
            say "an earlier installation was interrupted; starting it again."
        say "building .venv with $("$python" --version) and extras $list" \
            "(once, about 0.9 GB, under a minute) ..."
        rm -rf .venv
        mkdir .venv
        : >.venv/vgjax-unfinished
        "$python" -m venv .venv >&2 ||
            die "$python cannot make a virtual environment; install its venv module" \
                "(Debian: python3-venv) or name another Python in VGJAX_PYTHON."
        # Half the time: 44 s with the pip 23.2 of Python 3.11, 22 s with a recent one.
        .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input \
            --no-compile 'pip>=25.1' || say "keeping the pip that came with Python."
    fi
    : >.venv/vgjax-unfinished
    rm -f .venv/vgjax-stamp
    # Without --no-compile pip compiles every file of JAX and scikit-learn, needed or
    # not; Python compiles the few that are imported when they are.
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input \
        --no-compile -c constraints.txt -e ".[$list]" ||
        die "the installation failed for the reason above; the next call starts it again."
    printf '%s\n%s\n' "$(_wanted_key)" "$list" >.venv/vgjax-stamp.new
    mv .venv/vgjax-stamp.new .venv/vgjax-stamp
    rm -f .venv/vgjax-unfinished
    say ".venv is ready after $((SECONDS - start)) s."
}

ensure_environment() {
    local extras extra
    extras=$(_extras "$* ${VGJAX_EXTRAS:-}")
    if ! _is_ready "$extras"; then
        for extra in $extras; do
            grep -qx -- "$extra" <<<"$(_known_extras)" ||
                die "VGJAX_EXTRAS must name extras of pyproject.toml" \
                    "($(_known_extras | paste -s -d ' ' -)), and '$extra' is none."
        done
        # Two calls at once must not build in the same place: the second waits, and
        # then usually finds the work done.
        exec 9>>.venv.lock
        if command -v flock >/dev/null && ! flock -n 9; then
            say "another call is building .venv; waiting for it ..."
            flock 9
        fi
        _is_ready "$extras" || _install "$extras"
        exec 9>&-
    fi
    # shellcheck disable=SC2034  # for the script that sources this file
    python=.venv/bin/python
    # jaxlib 0.10 compiles in half the time without its newest code generator; 0.12
    # does not know the flag any more, and stops at what it does not know.
    if compgen -G '.venv/lib/python*/site-packages/jaxlib-0.10.*' >/dev/null; then
        export XLA_FLAGS=${XLA_FLAGS---xla_cpu_use_fusion_emitters=false}
    fi
}
