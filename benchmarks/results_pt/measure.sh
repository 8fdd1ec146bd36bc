#!/usr/bin/env bash
# Measure which setup pays on Portuguese questions: search settings for each setup, train each with several seeds, and
# look at the test questions once. Settings come from the environment:
#
#   BASE=encoder DATA=parts NER_TRAIN=train.conll NER_DEV=dev.conll OUT=outputs/results_pt \
#       bash benchmarks/results_pt/measure.sh
#
# DATA holds train.json, choose.json and test.json without a common article; parts.py makes the first two of one file.
# Settings and the best epoch are chosen on choose.json. The same command again skips what is finished and resumes what
# was interrupted. Several starts of the command share the searches.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../environment.sh
source "$here/../../environment.sh"
help_or_no_arguments "$@"

BASE=${BASE:?folder or hub id of the encoder}
DATA=${DATA:?folder with train.json, choose.json and test.json}
NER_TRAIN=${NER_TRAIN:?LeNER-Br to train on}
NER_DEV=${NER_DEV:?LeNER-Br to choose the best epoch with}
OUT=${OUT:-outputs/results_pt}
PYTHON=${PYTHON:-python}
SEEDS=${SEEDS:-1 2 3}
STEPS=${STEPS:-search train table}
SETUPS=${SETUPS:-untrained full qa lang_qa fusion control}
EPOCHS=${EPOCHS:-3}                # of a single adapter and of full fine-tuning
FUSION_EPOCHS=${FUSION_EPOCHS:-2}  # of the fusion layer; the control has both

mkdir -p "$OUT"
link() { [ -e "$OUT/$2" ] || ln -s "$(realpath "$1")" "$OUT/$2"; }
if [ -d "$BASE" ]; then link "$BASE" base && BASE=base; fi
link "$DATA" data
link "$NER_TRAIN" ner_train.conll
link "$NER_DEV" ner_dev.conll
cd "$OUT"  # every path in a run.json is relative to this folder

run() { "$PYTHON" "$here/../../$1" "${@:2}"; }

# search SETUP: search the settings of a setup on 1,500 questions, and write the best ones to settings/SETUP.yaml.
search() {
    run sweep_qa.py "$here/search/$1.yaml" --output_dir "search/$1"
    "$PYTHON" "$here/settings.py" "search/$1" "settings/$1.yaml"
}

# kind SETUP: print the options for an adapter of the kind that a setup has. Adapters of one fusion have one kind.
kind() { sed -nE 's/^(adapter_(config|reduction_factor)): /--\1 /p' "settings/$1.yaml"; }

# train SETUP SEED OPTION ...: train on all questions with the settings of a setup, and answer the test questions.
train() {
    run run_qa_adapter.py "settings/${1%%:*}.yaml" --model_name_or_path "$BASE" --do_train --do_eval --do_predict \
        --train_file data/train.json --validation_file data/choose.json --test_file data/test.json --seed "$2" \
        --per_device_train_batch_size 8 --report_to none --output_dir "runs/${1##*:}_$2" "${@:3}"
}

train_setup() {
    local setup=$1 seed=$2
    case $setup in
    untrained)
        run run_qa_adapter.py --model_name_or_path "$BASE" --train_adapter False --do_predict \
            --test_file data/test.json --seed "$seed" --report_to none --output_dir "runs/untrained_$seed"
        ;;
    full | qa | lora) train "$setup" "$seed" --num_train_epochs "$EPOCHS" ;;
    lang_qa) train lang_qa "$seed" --num_train_epochs "$EPOCHS" --load_lang_adapter adapters/mlm ;;
    control)
        train lang_qa:control "$seed" --num_train_epochs $((EPOCHS + FUSION_EPOCHS)) --load_lang_adapter adapters/mlm
        ;;
    fusion)
        train fusion "$seed" --num_train_epochs "$FUSION_EPOCHS" --load_lang_adapter adapters/mlm \
            --fuse_adapters "qa=runs/lang_qa_$seed" ner=adapters/ner
        ;;
    fusion_without_language)
        train fusion:fusion_without_language "$seed" --num_train_epochs "$FUSION_EPOCHS" \
            --fuse_adapters "qa=runs/qa_$seed" ner=adapters/ner
        ;;
    *)
        echo "error: SETUPS: $setup is unknown" >&2
        exit 2
        ;;
    esac
}

for step in $STEPS; do
    case $step in
    search)
        search full
        search qa
        search lora
        run run_mlm_adapter.py "$here/mlm.yaml" --model_name_or_path "$BASE" --output_dir adapters/mlm
        search lang_qa
        # shellcheck disable=SC2046  # words
        run run_ner_adapter.py "$here/ner.yaml" $(kind lang_qa) --model_name_or_path "$BASE" --output_dir adapters/ner
        search fusion
        ;;
    train)
        for seed in $SEEDS; do
            for setup in $SETUPS; do train_setup "$setup" "$seed"; done
        done
        ;;
    table) run report_qa.py runs --split predict --output_dir report --overwrite ;;
    *)
        echo "error: STEPS: $step is unknown; choose from search, train, table" >&2
        exit 2
        ;;
    esac
done
