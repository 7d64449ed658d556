#!/usr/bin/env bash
# Runs experiments.run on all workers of a Cloud TPU slice, with the same arguments.
#
#   TPU=NAME ZONE=ZONE bash experiments/tpu_pod.sh \
#     --config=configs/arithmetic.py:pod --workdir=/mnt/shared/pod
#
# TPU, ZONE    the slice, as `gcloud compute tpus tpu-vm list` names it
# DIRECTORY    of this repository on every worker, with .venv installed: "pavjax"
# PYTHON       the interpreter, from there: ".venv/bin/python"
# MODULE       what to run: "experiments.run", or a stage, such as "experiments.rl"
#
# The work directory must be one that all workers see. The project is gcloud's own.
set -euo pipefail
: "${TPU:?the name of the TPU slice: TPU=NAME ZONE=ZONE bash $0 ARGUMENTS}"
: "${ZONE:?the zone of the TPU slice: TPU=NAME ZONE=ZONE bash $0 ARGUMENTS}"
command -v gcloud >/dev/null || {
  echo "error: gcloud is not installed; see https://cloud.google.com/sdk" >&2
  exit 1
}
# Quoted, for the shells of the workers take it apart once more.
printf -v remote '%q ' "${PYTHON:-.venv/bin/python}" -m "${MODULE:-experiments.run}" \
  "$@" --config.processes.launcher=tpu
printf -v remote 'cd %q && %s' "${DIRECTORY:-pavjax}" "$remote"
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="$remote"
