#!/usr/bin/env bash
#SBATCH --job-name=sweep_qa
#SBATCH --gres=gpu:1
#SBATCH --signal=B:TERM@300
# The trials of sweep_qa.sh as a SLURM job array: task n runs trial n. From the project's folder:
#
#   bash sweeps/slurm_qa.sh                      # how many trials there are, and the command that submits them
#   SEEDS="1 2 3" sbatch --array=0-17 sweeps/slurm_qa.sh
#
# sbatch passes the environment on. Five minutes before a job's time is over SLURM sends it SIGTERM, a checkpoint is saved,
# and the same command goes on from there; finished trials do nothing.
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}" || exit # SLURM runs a copy that lies elsewhere
# shellcheck source-path=SCRIPTDIR source=trials.sh
source sweeps/trials.sh

list_trials || exit 2
if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    echo "${#names[@]} trials: sbatch --array=0-$((${#names[@]} - 1)) sweeps/slurm_qa.sh"
    exit 0
fi
if ((SLURM_ARRAY_TASK_ID >= ${#names[@]})); then
    echo "error: task $SLURM_ARRAY_TASK_ID: there are ${#names[@]} trials; --array=0-$((${#names[@]} - 1))" >&2
    exit 2
fi
mkdir -p "$LOGS" || exit 2
trap 'stop 2' INT
trap 'stop 15' TERM
run_trial "$SLURM_ARRAY_TASK_ID"
