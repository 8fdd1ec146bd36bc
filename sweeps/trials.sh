# shellcheck shell=bash
# Sourced by sweep_qa.sh and slurm_qa.sh: the trials of a shell sweep, and how one is run. Every NAME=${NAME:-value} below
# can be set from the environment. A trial has no --output_dir: the trainer derives the folder from model, data, setup and
# hyperparameters (under outputs/), does nothing for a run that is finished there, goes on with one that was stopped, and
# refuses one with other options.

MODEL=${MODEL:-neuralmind/bert-base-portuguese-cased}
TRAIN=${TRAIN:-data/pt_squad-train-v1.1.json}
DEV=${DEV:-data/pt_squad-dev-v1.1.json}
LANG_ADAPTER=${LANG_ADAPTER:-outputs/mlm}      # for setups with a language adapter
QA_ADAPTER=${QA_ADAPTER:-outputs/qa}           # for the fusions
NER_ADAPTER=${NER_ADAPTER:-outputs/ner}
SETUPS=${SETUPS:-qa lang}                      # of: full qa lang fusion lang_fusion
LRS=${LRS:-1e-4 3e-4 1e-3}
SEEDS=${SEEDS:-1 2 3}
REDUCTIONS=${REDUCTIONS:-16}                   # of fresh adapters; full fine-tuning and fusions have none
EPOCHS=${EPOCHS:-15}
PATIENCE=${PATIENCE:-5}
EXTRA=${EXTRA:-}                               # more options for every trial, e.g. "--fp16 True --max_train_samples 1000"
LOGS=${LOGS:-outputs/sweep_logs}               # of each trial its log, and TRIAL.failed.json if it failed last time
PYTHON=${PYTHON:-python}

read -r -a setups <<<"$SETUPS"
read -r -a lrs <<<"$LRS"
read -r -a seeds <<<"$SEEDS"
read -r -a reductions <<<"$REDUCTIONS"
read -r -a extra <<<"$EXTRA"

names=()   # of every trial, which are words in it: setup, learning rate, reduction factor or -, seed
stopped=0  # number of the signal that has stopped this shell
child=     # process of the trial under way
asked=     # set once it was asked to stop

# The options of a setup, in the array `of_setup`.
options_of() {
    local fused=(--fuse_adapters "qa=$QA_ADAPTER" "ner=$NER_ADAPTER")
    case $1 in
        full) of_setup=(--train_adapter False) ;;
        qa) of_setup=() ;;
        lang) of_setup=(--load_lang_adapter "$LANG_ADAPTER") ;;
        fusion) of_setup=("${fused[@]}") ;;
        lang_fusion) of_setup=("${fused[@]}" --load_lang_adapter "$LANG_ADAPTER") ;;
        *)
            echo "error: SETUPS $1: choose from full, qa, lang, fusion, lang_fusion" >&2
            return 2
            ;;
    esac
}

# Fills `names`.
list_trials() {
    local setup lr reduction seed with
    for setup in "${setups[@]}"; do
        options_of "$setup" || return
        with=("${reductions[@]}")
        case $setup in full | fusion | lang_fusion) with=(-) ;; esac
        for lr in "${lrs[@]}"; do for reduction in "${with[@]}"; do for seed in "${seeds[@]}"; do
            names+=("$setup $lr $reduction $seed")
        done; done; done
    done
    if ((${#names[@]} == 0)); then
        echo "error: no trials: SETUPS, LRS, SEEDS and REDUCTIONS need a value each" >&2
        return 2
    fi
}

# The command line of trial $1, in the array `command`.
command_of() {
    local setup lr reduction seed
    read -r setup lr reduction seed <<<"${names[$1]}"
    options_of "$setup"
    command=("$PYTHON" run_qa_adapter.py --model_name_or_path "$MODEL" --do_train --do_eval --train_file "$TRAIN"
        --validation_file "$DEV" --num_train_epochs "$EPOCHS" --early_stopping_patience "$PATIENCE"
        "${of_setup[@]}" --learning_rate "$lr" --seed "$seed")
    if [ "$reduction" != - ]; then
        command+=(--adapter_reduction_factor "$reduction")
    fi
    command+=("${extra[@]}")
}

# Runs trial $1, its output at the end of a log, and returns its exit code.
run_trial() {
    local name=${names[$1]} code begun=$SECONDS
    local kept=$LOGS/${name// /_}
    local log=$kept.log failed=$kept.failed.json size=0
    command_of "$1"
    echo "trial $1 of ${#names[@]}: $name (log: $log)"
    rm -f "$failed"
    if [ -f "$log" ]; then
        size=$(wc -c <"$log")
    fi
    "${command[@]}" >>"$log" 2>&1 &
    child=$!
    if ((stopped)) && [ -z "$asked" ]; then # the signal came just before
        stop "$stopped"
    fi
    while true; do # a signal ends `wait`, not the trial, which saves a checkpoint first
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    child=
    if ((stopped)); then
        return $((128 + stopped))
    fi
    if ((code)); then
        record_failure "$failed" "$1" "$code" "$log" "$size" "${command[@]}"
        echo "trial $1: failed with exit code $code: $(tail -n 1 "$log")" >&2
    else
        echo "trial $1: done in $((SECONDS - begun)) s"
    fi
    return "$code"
}

# Writes to file $1 that trial $2 failed with exit code $3, and why: its log $4 says so after byte $5. The rest is the
# command.
record_failure() {
    "$PYTHON" - "$@" <<'PYTHON'
import json, sys, time
target, number, code, log, start, *command = sys.argv[1:]
with open(log, "rb") as stream:
    stream.seek(int(start))
    lines = [line for line in stream.read().decode("utf-8", "replace").splitlines() if line.strip()]
why = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines[-1:]
facts = {"trial": int(number), "exit_code": int(code), "why": why, "log": log, "command": command}
facts["time"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
with open(target, "w", encoding="utf-8") as stream:
    stream.write(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
PYTHON
}

# Prints the command of trial $1.
print_trial() {
    command_of "$1"
    printf '%q ' "${command[@]}" | sed 's/ $//'
    echo
}

# What this shell does at signal $1: the trial under way is asked to save a checkpoint; at once more, to stop at once.
stop() {
    stopped=$1
    if [ -n "$child" ]; then
        asked=1
        kill -TERM "$child" 2>/dev/null
    fi
}
