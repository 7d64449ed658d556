#!/usr/bin/env bash
# From a clean clone to a report: makes .venv and runs every stage of the tiny config.
#
#   bash experiments/quickstart.sh [WORKDIR]        (default: work/tiny)
#
# Running it again continues what was interrupted, and does nothing once all is done.
set -euo pipefail
cd "$(dirname "$0")/.."
source experiments/environment.sh
install ""
exec .venv/bin/python -m experiments.run \
  --config=configs/arithmetic.py:tiny --workdir="${1:-work/tiny}"
