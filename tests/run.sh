#!/usr/bin/env bash
# Makes .venv, then checks the style and runs the tests, quick ones first.
#
#   bash tests/run.sh [PYTEST ARGUMENTS]     e.g. -m "not slow", tests/test_pav.py
set -euo pipefail
cd "$(dirname "$0")/.."
source experiments/environment.sh
install "[test,aot]"
status=0
.venv/bin/ruff check . || status=$?
.venv/bin/python -m pytest "$@" || status=$?
exit "$status"
