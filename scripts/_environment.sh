# shellcheck shell=bash
# Builds, repairs and extends .venv for the scripts beside this file, which source it.
#
#   enter_repository           change to the repository's root
#   find_python                set `python` to a Python >= 3.11, without building
#   ensure_environment EXTRA.. set `python` to .venv's, with these extras installed
#
# VGJAX_PYTHON  the interpreter to build with
# VGJAX_EXTRAS  further extras, comma-separated: VGJAX_EXTRAS=cuda12 scripts/run
# JAX_COMPILATION_CACHE_DIR  where to keep compiled programs, instead of .jax-cache;
#                            empty: nowhere
#
# .venv/vgjax-stamp says what was installed, or that it is unfinished. Keep to bash 3.2,
# which macOS has.

# At the sizes of most networks OpenBLAS' threads and XLA's compete: twice as slow.
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}

say() { printf '%s\n' "vgjax: $*" >&2; }
die() { say "$*" && exit 1; }

enter_repository() {
    local name
    cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit
    root=$PWD
    # Up to 3.12 Python reads the .pth file through which .venv finds this checkout in
    # the locale's encoding, with PYTHONUTF8=1 too, and stops at letters that ASCII lacks.
    LC_ALL=C grep -q '[^ -~]' <<<"$root" && command -v locale >/dev/null || return 0
    for name in "${LC_ALL:-}" C.UTF-8 C.utf8 en_US.UTF-8; do
        [[ $({ LC_ALL=$name locale charmap; } 2>/dev/null) == UTF-8 ]] || continue
        [[ -z $name ]] || export LC_ALL=$name
        return
    done
    die "the path of this checkout has letters outside ASCII, and the system has no" \
        "UTF-8 locale to read them in; move the checkout."
}

find_python() {
    local seen='' place="PATH has" candidates=("${VGJAX_PYTHON:-python3}")
    if [[ -n ${VGJAX_PYTHON:-} ]]; then
        place="VGJAX_PYTHON=$VGJAX_PYTHON is"
    else
        candidates+=(python3.13 python3.12 python3.11 python3.14 python)
    fi
    # A pyenv shim of a version that is not installed exists and fails: ask it to run.
    for python in "${candidates[@]}"; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
        [[ -n $seen ]] || seen=$("$python" --version 2>/dev/null || true)
    done
    die "Python 3.11 or newer is needed, and $place ${seen:-no Python that runs};" \
        "install one, or name it in VGJAX_PYTHON."
}

# What is to be installed: a key, then the extras, with those that are there already. The
# path is in the key because an editable install points at it: a copied or moved clone
# must not import the old one.
_stamp() {
    printf '%s %s\n' "$(cat pyproject.toml constraints.txt | cksum)" "$root"
    { echo "$*" && sed -n 2p .venv/vgjax-stamp 2>/dev/null || true; } |
        tr -s ', ' '\n' | sed '/^$/d' | LC_ALL=C sort -u | paste -s -d , -
}

# Fails if .venv is no environment, or one of another Python than asked for. Prints the
# distributions that lack files they were installed with: pip takes them for installed.
_damaged() {
    local asked='import sys; print(sys.version_info[:2])'
    [[ -z ${VGJAX_PYTHON:-} ]] || asked=$("$VGJAX_PYTHON" -c "$asked" 2>&1) || return
    [[ -x .venv/bin/python ]] && .venv/bin/python - "${VGJAX_PYTHON:+$asked}" <<'PYTHON'
import importlib.metadata, os, sys, sysconfig

asked = sys.argv[1] in ("", str(sys.version_info[:2])) and sys.version_info >= (3, 11)
# Without pyvenv.cfg this is the Python that .venv was made from, and installs there.
if not (asked and os.path.samefile(sys.prefix, ".venv")):
    sys.exit(1)
for found in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")]):
    record = found.read_text("RECORD") or ""
    files = [line.partition(",")[0] for line in record.splitlines()]
    code = [file for file in files if file.endswith((".py", ".so", ".pth"))]
    if not all(os.path.exists(found.locate_file(file)) for file in code):
        print(f"{found.name}=={found.version}")
PYTHON
}

_is_ready() {
    [[ $(cat .venv/vgjax-stamp 2>/dev/null) == "$(_stamp "$@")" ]] &&
        [[ $(_damaged 2>/dev/null && echo whole) == whole ]]
}

# --no-compile: pip compiles every file of JAX and scikit-learn, needed or not; Python
# compiles those that are imported.
_pip() {
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input \
        --no-compile "$@"
}

_install() {
    local stamp damaged start=$SECONDS had=nothing
    stamp=$(_stamp "$@")
    [[ ! -e .venv/vgjax-stamp ]] || had=$(head -n 1 .venv/vgjax-stamp)
    if ! damaged=$(_damaged 2>/dev/null) || [[ $had == unfinished ]] ||
        { [[ $had == nothing ]] && ! .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
        find_python
        if [[ $had == unfinished ]]; then
            say "an earlier installation was interrupted; starting it again."
        elif [[ -e .venv ]]; then
            say ".venv is not a virtual environment that works with this Python; replacing it."
        fi
        say "building .venv with $("$python" --version) and extras ${stamp##*$'\n'}" \
            "(once, about 0.9 GB, under a minute) ..."
        rm -rf .venv
        mkdir .venv
        echo unfinished >.venv/vgjax-stamp
        "$python" -m venv .venv >&2 ||
            die "$python cannot make a virtual environment; install its venv module" \
                "(Debian: python3-venv) or name another Python in VGJAX_PYTHON."
        # Half the time: 44 s with the pip 23.2 of Python 3.11, 22 s with a recent one.
        _pip 'pip>=25.1' || say "keeping the pip that came with Python."
        damaged=
    else
        say "bringing .venv up to date with extras ${stamp##*$'\n'} (under a minute) ..."
        echo unfinished >.venv/vgjax-stamp
    fi
    damaged=$(grep -v '^vgjax==' <<<"$damaged" || true) # it is installed in any case
    if [[ -n $damaged ]]; then
        # shellcheck disable=SC2086  # a word for each
        say "files are missing in .venv; installing anew:" $damaged
        # shellcheck disable=SC2086
        _pip --force-reinstall --no-deps $damaged ||
            die "files are missing in .venv: remove it and run again."
    fi
    _pip -c constraints.txt -e ".[${stamp##*$'\n'}]" ||
        die "the installation failed for the reason above; the next call starts it again."
    echo "$stamp" >.venv/vgjax-stamp
    say ".venv is ready after $((SECONDS - start)) s."
}

# JAX reads programs that an earlier call compiled from .jax-cache, in a folder for each
# kind of processor: machine code of one may not run on another. What cannot be read or
# written there is compiled as without it, and JAX's warnings of that change nothing.
_keep_compiled_programs() {
    local processor doing ignored
    [[ -z ${JAX_COMPILATION_CACHE_DIR+set} ]] || return 0
    processor=$({ uname -sm && grep -m 1 -iE '^(flags|features)' /proc/cpuinfo || true; } \
        2>/dev/null | cksum | tr ' ' '-')
    # Every version of the code adds to it: start again at 1 GB.
    [[ $(du -sk .jax-cache 2>/dev/null | cut -f 1) -lt 1000000 ]] || rm -rf .jax-cache
    mkdir -p ".jax-cache/$processor" 2>/dev/null && [[ -w .jax-cache/$processor ]] || return 0
    export JAX_COMPILATION_CACHE_DIR=$root/.jax-cache/$processor
    : "${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:=0}"
    export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS
    for doing in reading writing; do
        ignored="ignore:Error $doing persistent compilation cache"
        export PYTHONWARNINGS=${PYTHONWARNINGS:+$PYTHONWARNINGS,}$ignored
    done
}

ensure_environment() {
    local extra known extras="$* ${VGJAX_EXTRAS:-}"
    if ! _is_ready "$extras"; then
        known=$(awk '/^\[/ { inside = ($0 == "[project.optional-dependencies]") }
            inside && /^[a-z0-9]+ *=/ { printf " %s", $1 }' pyproject.toml)
        for extra in ${extras//,/ }; do
            [[ "$known " == *" $extra "* ]] ||
                die "VGJAX_EXTRAS must name extras of pyproject.toml (${known# }), and" \
                    "'$extra' is none."
        done
        # Two calls at once must not build in the same place: the second waits, and
        # then usually finds the work done.
        { exec 9>>.venv.lock; } 2>/dev/null ||
            die "nothing can be written in $root, where .venv must be built; copy the" \
                "checkout to where you may write."
        if command -v flock >/dev/null && ! flock -n 9; then
            say "another call is building .venv; waiting for it ..."
            flock 9
        fi
        _is_ready "$extras" || _install "$extras"
        exec 9>&-
    fi
    # shellcheck disable=SC2034  # for the script that sources this file
    python=.venv/bin/python
    _keep_compiled_programs
}
