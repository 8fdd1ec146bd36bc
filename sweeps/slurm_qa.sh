#!/usr/bin/env bash
#SBATCH --job-name=sweep_qa
#SBATCH --gres=gpu:1
#SBATCH --signal=B:TERM@300
# The trials of sweep_qa.sh as a SLURM job array: task n runs trial n, with the settings of sweep_qa.sh from the
# environment, which sbatch passes on. From the project's folder:
#
#   SEEDS="1 2 3" bash sweeps/slurm_qa.sh        # print the number of trials and the command that submits them
#   SEEDS="1 2 3" sbatch --array=0-17 sweeps/slurm_qa.sh
#
# Five minutes before a job's time is over, SLURM sends SIGTERM and the trainer saves a checkpoint. The same command
# again resumes interrupted trials and skips finished ones.
set -uo pipefail
project=${SLURM_SUBMIT_DIR:-$(dirname "$0")/..} # SLURM runs a copy of this file from another folder
# shellcheck source-path=SCRIPTDIR source=../environment.sh
source "$project/environment.sh"
help_or_no_arguments "$@"
cd "$project" || exit

trials=$(bash sweeps/sweep_qa.sh --dry_run) || exit
count=$(($(wc -l <<<"$trials")))
last=$((count - 1))
if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    echo "$count trials: sbatch --array=0-$last sweeps/slurm_qa.sh"
elif ((SLURM_ARRAY_TASK_ID > last)); then
    echo "error: task $SLURM_ARRAY_TASK_ID: there are $count trials; give --array=0-$last" >&2
    exit 2
else
    eval "exec $(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" <<<"$trials")" # exec: SLURM's signal reaches the trainer itself
fi
