#!/usr/bin/env bash
# Runs experiments.run as the tasks of a SLURM job, with the same arguments in each. An
# example, to be adapted to a cluster's partitions and time limits:
#
#   sbatch --nodes=4 experiments/slurm.sh --config=... --workdir=/shared/work
#
# One process per node drives all devices of a node with TPUs or processors; of nodes
# with N GPUs, ask for N: --ntasks-per-node=N --gpus-per-node=N.
#SBATCH --job-name=pavjax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --output=pavjax-%j.log
#SBATCH --requeue
#
# PYTHON and MODULE: the interpreter, and what to run. From where sbatch was called.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
# One that fails ends the others at once, rather than after the heartbeat.
exec srun --kill-on-bad-exit=1 --label "${PYTHON:-.venv/bin/python}" \
  -m "${MODULE:-experiments.run}" "$@" --config.processes.launcher=slurm
