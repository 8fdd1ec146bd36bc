#!/usr/bin/env bash
# Everything that must hold, in one command: format, lint, types, tests. What CI runs. Arguments go to pytest:
#   bash run_tests.sh            bash run_tests.sh --slow            bash run_tests.sh tests/test_utils_qa.py
set -euo pipefail
cd "$(dirname "$0")"
source environment.sh
use_environment requirements-dev.txt

ruff format --check .
ruff check .
mypy --no-error-summary .
export HF_HUB_OFFLINE=1
exec pytest --numprocesses 2 --dist loadfile "$@"
