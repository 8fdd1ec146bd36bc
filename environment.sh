# Sourced by demo.sh and run_tests.sh: a virtual environment in .venv with what requirements files name.
#   use_environment requirements.txt requirements-report.txt
# An environment that was made from the same files before is used again.

use_environment() {
    local wanted file files=()
    wanted=.venv/$(basename "${!#}").installed
    for file in "$@"; do files+=(--requirement "$file"); done
    if [ ! -x .venv/bin/python ]; then
        "${PYTHON:-python3}" -m venv .venv
    fi
    if ! cmp --silent <(cat requirements*.txt) "$wanted"; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "${files[@]}"
        cat requirements*.txt >"$wanted"
    fi
    PATH=$PWD/.venv/bin:$PATH
}
