#!/usr/bin/env bash
# Train every combination of setup, learning rate, reduction factor and seed, one after the other. Every setting below
# that looks like NAME=${NAME:-value} can be given in the environment:
#
#   SETUPS="qa lang" LRS="1e-4 3e-4" SEEDS="1 2 3" bash sweeps/sweep_qa.sh --dry_run    # print the commands
#   SETUPS="qa lang" LRS="1e-4 3e-4" SEEDS="1 2 3" bash sweeps/sweep_qa.sh
#
# The trainer names a trial's folder (under outputs/) by its options. The same command again skips finished trials,
# resumes interrupted ones and repeats failed ones. A failed trial does not stop the others; Ctrl-C does. For several
# GPUs use sweep_qa.py or slurm_qa.sh. Exit code: 0; 1 if a trial failed; 2 for bad input; 129, 130 or 143 if
# interrupted.
set -uo pipefail
# shellcheck source-path=SCRIPTDIR source=../environment.sh
source "$(dirname "$0")/../environment.sh"
dry_run=
if [ "${1:-}" = --dry_run ]; then dry_run=1; shift; fi
help_or_no_arguments "$@"
cd "$(dirname "$0")/.." || exit

MODEL=${MODEL:-neuralmind/bert-base-portuguese-cased}
TRAIN=${TRAIN:-data/pt_squad-train-v1.1.json}
DEV=${DEV:-data/pt_squad-dev-v1.1.json}
LANG_ADAPTER=${LANG_ADAPTER:-outputs/mlm}      # of the setups lang and lang_fusion
QA_ADAPTER=${QA_ADAPTER:-outputs/qa}           # of the fusions
NER_ADAPTER=${NER_ADAPTER:-outputs/ner}        # of the fusions
SETUPS=${SETUPS:-qa lang}                      # of: full qa lang fusion lang_fusion
LRS=${LRS:-1e-4 3e-4 1e-3}
SEEDS=${SEEDS:-1 2 3}
REDUCTIONS=${REDUCTIONS:-16}                   # of new adapters; full fine-tuning and fusions have none
EPOCHS=${EPOCHS:-15}
PATIENCE=${PATIENCE:-5}
EXTRA=${EXTRA:-}   # options for every trial, which override the others, e.g. "--fp16 True --max_train_samples 1000"
PYTHON=${PYTHON:-python}

read -r -a extra <<<"$EXTRA"
commands=() failed=0
for setup in $SETUPS; do
    reductions=$REDUCTIONS
    fusion=(--fuse_adapters "qa=$QA_ADAPTER" "ner=$NER_ADAPTER")
    case $setup in
    full) options=(--train_adapter False) reductions=none ;;
    qa) options=() ;;
    lang) options=(--load_lang_adapter "$LANG_ADAPTER") ;;
    fusion) options=("${fusion[@]}") reductions=none ;;
    lang_fusion) options=("${fusion[@]}" --load_lang_adapter "$LANG_ADAPTER") reductions=none ;;
    *) echo "error: SETUPS: $setup is unknown; choose from full, qa, lang, fusion, lang_fusion" >&2; exit 2 ;;
    esac
    for lr in $LRS; do for reduction in $reductions; do for seed in $SEEDS; do
        trial=(--model_name_or_path "$MODEL" --do_train --do_eval --train_file "$TRAIN" --validation_file "$DEV"
            --num_train_epochs "$EPOCHS" --early_stopping_patience "$PATIENCE" ${options[@]+"${options[@]}"}
            --learning_rate "$lr" --seed "$seed")
        if [ "$reduction" != none ]; then trial+=(--adapter_reduction_factor "$reduction"); fi
        override "${trial[@]}"
        commands+=("$(printf '%q ' "$PYTHON" run_qa_adapter.py "${words[@]}")")
    done; done; done
done
if [ "${#commands[@]}" -eq 0 ]; then
    echo "error: no trials: SETUPS, LRS, SEEDS and REDUCTIONS need a value each" >&2
    exit 2
fi

for command in "${commands[@]}"; do
    if [ "$dry_run" ]; then echo "$command"; continue; fi
    printf '\n=== %s\n' "$command"
    code=0
    eval "$command" || code=$?
    case $code in
    0) ;;
    129 | 130 | 143) exit "$code" ;; # SIGHUP, Ctrl-C or SIGTERM
    *) echo "failed with exit code $code: $command" >&2; failed=$((failed + 1)) ;;
    esac
done
if [ ! "$dry_run" ]; then printf '\n%s trials, %s failed\n' "${#commands[@]}" "$failed"; fi
[ "$failed" -eq 0 ]
