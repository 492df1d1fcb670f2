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
    _read_own_path
}

# Up to 3.12 Python reads the .pth file through which .venv finds this checkout in the
# locale's encoding, with PYTHONUTF8=1 too, and stops at letters that ASCII lacks.
_read_own_path() {
    local name
    LC_ALL=C grep -q '[^ -~]' <<<"$root" || return 0
    command -v locale >/dev/null || return 0
    for name in "${LC_ALL:-}" C.UTF-8 C.utf8 en_US.UTF-8; do
        if [[ $({ LC_ALL=$name locale charmap; } 2>/dev/null) == UTF-8 ]]; then
            [[ -z $name ]] || export LC_ALL=$name
            return
        fi
    done
    die "the path of this checkout has letters outside ASCII, and the system has no" \
        "UTF-8 locale to read them in; move the checkout."
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

# Without pyvenv.cfg .venv/bin/python is the Python it was made from, and installs there.
_venv_works() {
    [[ -x .venv/bin/python ]] && _is_new_enough .venv/bin/python &&
        .venv/bin/python -c 'import os, sys
sys.exit(not os.path.samefile(sys.prefix, ".venv"))' 2>/dev/null
}

# The distributions in .venv that lack files they were installed with, one a line: pip
# takes them for installed. 0.1 s for all of them.
_damaged() {
    .venv/bin/python - <<'PYTHON'
import importlib.metadata, os, sysconfig

for found in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")]):
    record = found.read_text("RECORD") or ""
    files = [line.partition(",")[0] for line in record.splitlines()]
    code = [file for file in files if file.endswith((".py", ".so", ".pth"))]
    if not all(os.path.exists(found.locate_file(file)) for file in code):
        print(f"{found.name}=={found.version}")
PYTHON
}

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
    _venv_works && ! _venv_is_of_another_python && [[ -z $(_damaged) ]]
}

_install() {
    local extras=$1 list damaged start=$SECONDS
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
        if [[ -e .venv/vgjax-unfinished ]]; then
            say "an earlier installation was interrupted; starting it again."
        elif [[ -e .venv ]] && ! _venv_works; then
            say ".venv is not a virtual environment that works; replacing it."
        fi
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
    damaged=$(_damaged | grep -v '^vgjax==' || true) # it is installed in any case
    if [[ -n $damaged ]]; then
        # shellcheck disable=SC2086  # a word for each
        say "files are missing in .venv; installing anew:" $damaged
        # shellcheck disable=SC2086
        .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input \
            --no-compile --force-reinstall --no-deps $damaged ||
            die "files are missing in .venv: remove it and run again."
    fi
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

# JAX reads programs that an earlier call compiled from .jax-cache, in a folder for each
# kind of processor: machine code of one may not run on another. What cannot be read or
# written there is compiled as without it, and JAX's warnings of that change nothing.
_keep_compiled_programs() {
    local folder processor ignored='ignore:Error %s persistent compilation cache'
    [[ -z ${JAX_COMPILATION_CACHE_DIR+set} ]] || return 0
    processor=$({
        uname -sm
        grep -m 1 -iE '^(flags|features)' /proc/cpuinfo || true
    } 2>/dev/null | cksum | tr ' ' '-')
    folder=$root/.jax-cache/$processor
    # Every version of the code adds to it: start again at 1 GB.
    [[ $(du -sk .jax-cache 2>/dev/null | cut -f 1) -lt 1000000 ]] || rm -rf .jax-cache
    mkdir -p "$folder" 2>/dev/null && [[ -w $folder ]] || return 0
    export JAX_COMPILATION_CACHE_DIR=$folder
    : "${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:=0}"
    export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS
    # shellcheck disable=SC2059  # the format is above
    ignored=$(printf "$ignored," reading writing)
    export PYTHONWARNINGS=${PYTHONWARNINGS:+$PYTHONWARNINGS,}${ignored%,}
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
        { : >>.venv.lock; } 2>/dev/null ||
            die "nothing can be written in $root, where .venv must be built; copy the" \
                "checkout to where you may write."
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
    _keep_compiled_programs
}
