# Sourced by demo.sh and run_tests.sh: a virtual environment in .venv with what a requirements file names.
#   use_environment requirements.txt
# An environment that was made from the same file before is used again.

use_environment() {
    local wanted=.venv/$(basename "$1").installed
    if [ ! -x .venv/bin/python ]; then
        "${PYTHON:-python3}" -m venv .venv
    fi
    if ! cmp --silent <(cat requirements*.txt) "$wanted"; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$1"
        cat requirements*.txt >"$wanted"
    fi
    PATH=$PWD/.venv/bin:$PATH
}
