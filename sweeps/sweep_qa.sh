#!/usr/bin/env bash
# Every combination of setup, learning rate, reduction factor and seed, one after the other or on several GPUs at a time.
# The settings stand in trials.sh; each can be set from the environment:
#
#   SETUPS="qa lang" LRS="1e-4 3e-4" SEEDS="1 2 3" bash sweeps/sweep_qa.sh --dry_run     # prints the commands
#   GPUS="0 1 2 3" SETUPS=lang_fusion bash sweeps/sweep_qa.sh                            # a trial at a time on each GPU
#
# The same command again does what is missing: finished trials are skipped, those that were stopped go on, failed ones
# are tried again. A failed trial leaves a TRIAL.failed.json in $LOGS, and the next one begins. Ctrl-C stops all, and a
# second one does so without waiting for checkpoints. Exit code: 0, 1 if a trial failed, 2 for bad input, 130 or 143 if stopped.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
# shellcheck source-path=SCRIPTDIR source=trials.sh
source sweeps/trials.sh

GPUS=${GPUS:-}   # e.g. "0 1 2 3"; without it one trial at a time, on what it finds

# Runs the trials that nobody has taken yet, on GPU $1; "-": on what it finds. Which are taken and which have failed
# stands in the folder $2.
work() {
    local number code
    trap 'stop 2' INT
    trap 'stop 15' TERM
    if [ "$1" != - ]; then
        export CUDA_VISIBLE_DEVICES=$1
    fi
    for number in "${!names[@]}"; do
        mkdir "$2/taken$number" 2>/dev/null || continue
        run_trial "$number"
        code=$?
        if ((stopped)); then
            return $((128 + stopped))
        fi
        if ((code)); then
            touch "$2/failed$number"
        fi
    done
}

case ${1:-} in
    '' | --dry_run) ;;
    *)
        echo "error: $1: the only option is --dry_run; settings come from the environment, see sweeps/trials.sh" >&2
        exit 2
        ;;
esac
list_trials || exit 2
if [ "${1:-}" = --dry_run ]; then
    for number in "${!names[@]}"; do print_trial "$number"; done
    exit 0
fi

mkdir -p "$LOGS" || exit 2
notes=$(mktemp -d) || exit 1
trap 'rm -rf "$notes"' EXIT
workers=()
pass_on() { # to every worker, which passes it on to its trial
    stopped=$1
    kill -TERM "${workers[@]}" 2>/dev/null
}
trap 'pass_on 2' INT
trap 'pass_on 15' TERM
read -r -a gpus <<<"${GPUS:--}"
for gpu in "${gpus[@]}"; do
    work "$gpu" "$notes" &
    workers+=($!)
done
for worker in "${workers[@]}"; do
    while wait "$worker"; kill -0 "$worker" 2>/dev/null; do :; done
done
if ((stopped)); then
    echo "stopped; the same command goes on" >&2
    exit $((128 + stopped))
fi
failed=$(find "$notes" -name 'failed*' | wc -l)
echo "${#names[@]} trials: $((${#names[@]} - failed)) done, $failed failed"
if ((failed)); then
    echo "why: $LOGS/*.failed.json" >&2
    exit 1
fi
