#!/usr/bin/env bash
# Check format, lint and types, and run the tests, as CI does. Arguments are passed to pytest:
#
#   bash run_tests.sh
#   bash run_tests.sh --slow
#   bash run_tests.sh tests/test_utils_qa.py
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
help_if_asked "$@"
cd "$(dirname "$0")"
use_environment dev

ruff format --check .
ruff check .
mypy --no-error-summary .
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1  # two processes of pytest share the cores with those that tests start
exec pytest --numprocesses 2 --dist loadfile "$@"
