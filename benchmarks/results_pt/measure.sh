#!/usr/bin/env bash
# Measure which setup has the best F1 for its cost on Portuguese questions: search settings for each setup, train each
# with several seeds, and look at the test questions once. Settings come from the environment:
#
#   BASE=encoder DATA=parts NER_TRAIN=train.conll NER_DEV=dev.conll OUT=outputs/results_pt \
#       bash benchmarks/results_pt/measure.sh
#
# DATA holds the files that parts.py writes. Settings and the best epoch are chosen on choose.json. The same command again
# skips what is finished and resumes what was interrupted. STEPS may also have
#
#   curve              few training questions
#   transfer           after curve: a QA adapter trained on source.json (parts.py --source) beside one of few questions
#   v2                 questions without an answer; the threshold is tuned on 30 % of choose.json
#   untrained_fusion   fusions as they begin; after v2 and two seeds of lang_qa
#   architecture       kinds and sizes of a QA adapter
#   speed              questions a second of the setups, one after the other; after two seeds of lang_qa. Let nothing else
#                      run, and set OMP_NUM_THREADS
#
# and SETUPS head, lora, fusion_ner_lang, fusion_without_language and, after the step v2, fusion_qa_qa.
#
# To use the settings that were found before, name their folder, and train the language and the NER adapter alone:
#
#   SETTINGS=benchmarks/results_pt/measured/settings STEPS="adapters train table" BASE=...
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
SETTINGS=${SETTINGS:-}             # folder with SETUP.yaml of a search that was done before
EPOCHS=${EPOCHS:-2}                # of a single adapter and of full fine-tuning
FUSION_EPOCHS=${FUSION_EPOCHS:-1}  # of the fusion layer; the control has both
PAIRS=${PAIRS:-}                   # of setups, compared in the table; without it those of DEFAULT_PAIRS that it has
DEFAULT_PAIRS="qa:full lang_qa:qa fusion:lang_qa fusion:control"

if [ "$SETTINGS" ] && [[ " $STEPS " == *" search "* ]]; then
    echo "error: SETTINGS and the step search: a search writes settings of its own; leave out one of them" >&2
    exit 2
fi
# check NAME ALLOWED WORD ...: refuse words that are not among the allowed ones.
check() {
    local name=$1 allowed=$2 word
    for word in "${@:3}"; do
        if [[ " $allowed " != *" $word "* ]]; then
            echo "error: $name: $word is unknown; choose from $allowed" >&2
            exit 2
        fi
    done
}
# shellcheck disable=SC2086  # words
check STEPS "search adapters train curve transfer v2 untrained_fusion architecture speed table" $STEPS
# shellcheck disable=SC2086  # words
check SETUPS "untrained head full lora qa lang_qa fusion control fusion_ner_lang fusion_without_language fusion_qa_qa" \
    $SETUPS
# seeds SETUP: print the seeds of a setup of which the table will have runs.
seeds() {
    local run seed
    # shellcheck disable=SC2086  # words
    if [[ " $STEPS " == *" train "* && " $SETUPS " == *" $1 "* ]]; then printf '%s\n' $SEEDS; fi
    for run in "$OUT/runs/$1"_*/predict_predictions.json; do
        seed=${run#"$OUT/runs/$1_"}
        seed=${seed%/*}
        if [[ -e $run && $seed =~ ^[0-9]+$ ]]; then echo "$seed"; fi
    done
}
# problem_of_pair FIRST:SECOND: print why the table cannot compare a pair; nothing if it can.
problem_of_pair() {
    local first=${1%%:*} second=${1#*:} setup
    if [[ ! $1 =~ ^[^:]+:[^:]+$ ]]; then echo "give two setups as SETUP:SETUP" && return; fi
    for setup in "$first" "$second"; do
        if [ ! "$(seeds "$setup")" ]; then
            echo "$setup has no finished runs in $OUT/runs and is not trained; add it to SETUPS, or leave out the pair"
            return
        fi
    done
    if [ ! "$(comm -12 <(seeds "$first" | sort) <(seeds "$second" | sort))" ]; then
        echo "$first and $second have no seed in common; give SEEDS that both have, or leave out the pair"
    fi
}
if [[ " $STEPS " == *" table "* ]]; then  # it comes last, after hours
    wrong=
    for pair in $PAIRS; do
        problem=$(problem_of_pair "$pair")
        if [ "$problem" ]; then wrong=1 && echo "error: PAIRS: $pair: $problem" >&2; fi
    done
    if [ "$wrong" ]; then exit 2; fi
    if [ ! "$PAIRS" ]; then
        for pair in $DEFAULT_PAIRS; do
            if [ ! "$(problem_of_pair "$pair")" ]; then PAIRS+=" $pair"; fi
        done
    fi
fi
if ! found=$(command -v "$PYTHON"); then echo "error: PYTHON: $PYTHON is no program" >&2; exit 2; fi
if [[ $found != /* ]]; then found=$PWD/$found; fi  # the working directory changes below
PYTHON=$found
mkdir -p "$OUT"
# link FILE NAME: link a file or folder as $OUT/NAME; what was linked before must be the same.
link() {
    if [ ! -e "$1" ]; then echo "error: $1: no such file or folder; give one that exists" >&2; exit 2; fi
    [ -e "$OUT/$2" ] || ln -s "$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")" "$OUT/$2"
    if ! [ "$1" -ef "$OUT/$2" ]; then
        echo "error: $1: $OUT began with another $2, $(readlink "$OUT/$2"); give that, or another OUT" >&2
        exit 2
    fi
}
if [ -d "$BASE" ]; then link "$BASE" base && BASE=base; fi
link "$DATA" data
link "$NER_TRAIN" ner_train.conll
link "$NER_DEV" ner_dev.conll
link "$here" settings_given
if [ "$SETTINGS" ]; then link "$SETTINGS" settings; fi
cd "$OUT"  # every path in a run.json is relative to this folder

run() { "$PYTHON" "$here/../../$1" "${@:2}"; }

# search SETUP: search the settings of a setup on 1,500 questions, and write the best ones to settings/SETUP.yaml.
search() {
    run sweep_qa.py "settings_given/search/$1.yaml" --output_dir "search/$1"
    "$PYTHON" "$here/settings.py" "search/$1" "settings/$1.yaml"
}

# kind SETUP: print the options for an adapter of the kind that a setup has. Adapters of one fusion have one kind.
kind() { sed -nE 's/^(adapter_(config|reduction_factor)): /--\1 /p' "settings/$1.yaml"; }

# The perplexity before training is that of a random masked-LM head, if the encoder has none.
train_language_adapter() {
    local options=(settings_given/mlm.yaml --model_name_or_path "$BASE")
    run run_mlm_adapter.py "${options[@]}" --do_train False --output_dir adapters/mlm_untrained
    run run_mlm_adapter.py "${options[@]}" --output_dir adapters/mlm
}

# train_ner_adapter NAME OPTION ...: train adapters/NAME.
train_ner_adapter() {
    local words
    words=$(kind lang_qa)
    # shellcheck disable=SC2086  # words
    run run_ner_adapter.py settings_given/ner.yaml $words --model_name_or_path "$BASE" --output_dir "adapters/$1" "${@:2}"
}

# train FILE FOLDER SEED EPOCHS OPTION ...: train with the settings in a file, and answer the test questions.
parts=data
questions=train
train() {
    run run_qa_adapter.py "$1" --model_name_or_path "$BASE" --do_train --do_eval --do_predict \
        --train_file "$parts/$questions.json" --validation_file "$parts/choose.json" --test_file "$parts/test.json" \
        --per_device_train_batch_size 8 --report_to none --output_dir "$2" --seed "$3" --num_train_epochs "$4" "${@:5}"
}

# train_setup SETUP SEED: train a row of the table.
train_setup() {
    local setup=$1 seed=$2 language=(--load_lang_adapter adapters/mlm)
    local folder=runs/${setup}_$seed
    case $setup in
    untrained)
        run run_qa_adapter.py --model_name_or_path "$BASE" --train_adapter False --do_predict \
            --test_file data/test.json --report_to none --output_dir "$folder" --seed "$seed"
        ;;
    full | qa | lora) train "settings/$setup.yaml" "$folder" "$seed" "$EPOCHS" ;;
    head) train settings_given/head.yaml "$folder" "$seed" "$EPOCHS" ;;
    lang_qa) train settings/lang_qa.yaml "$folder" "$seed" "$EPOCHS" "${language[@]}" ;;
    control) train settings/lang_qa.yaml "$folder" "$seed" $((EPOCHS + FUSION_EPOCHS)) "${language[@]}" ;;
    fusion)
        train settings/fusion.yaml "$folder" "$seed" "$FUSION_EPOCHS" "${language[@]}" \
            --fuse_adapters "qa=runs/lang_qa_$seed" ner=adapters/ner
        ;;
    fusion_ner_lang)  # the NER adapter is trained on the language adapter, too
        train_ner_adapter ner_lang "${language[@]}"
        train settings/fusion.yaml "$folder" "$seed" "$FUSION_EPOCHS" "${language[@]}" \
            --fuse_adapters "qa=runs/lang_qa_$seed" ner=adapters/ner_lang
        ;;
    fusion_without_language)
        train settings/fusion.yaml "$folder" "$seed" "$FUSION_EPOCHS" --fuse_adapters "qa=runs/qa_$seed" ner=adapters/ner
        ;;
    fusion_qa_qa)
        train settings/fusion.yaml "$folder" "$seed" "$FUSION_EPOCHS" "${language[@]}" \
            --fuse_adapters "qa=runs/lang_qa_$seed" "qa_v2=v2/lang_qa_$seed"
        ;;
    esac
}

# train_curve QUESTIONS EPOCHS SEED: train full fine-tuning, QA adapters, a fusion and its control on the first questions.
# The last epoch counts: evaluating every epoch would take longer than training.
train_curve() {
    local questions=$1 epochs=$2 seed=$3 folder=curve/$1
    local few=(--max_train_samples "$questions" --eval_strategy no) language=(--load_lang_adapter adapters/mlm)
    train settings/full.yaml "$folder/full_$seed" "$seed" "$epochs" "${few[@]}"
    train settings/qa.yaml "$folder/qa_$seed" "$seed" "$epochs" "${few[@]}"
    train settings/lang_qa.yaml "$folder/lang_qa_$seed" "$seed" "$epochs" "${few[@]}" "${language[@]}"
    train settings/lang_qa.yaml "$folder/control_$seed" "$seed" $((epochs + epochs / 2)) "${few[@]}" "${language[@]}"
    train settings/fusion.yaml "$folder/fusion_$seed" "$seed" $((epochs / 2)) "${few[@]}" "${language[@]}" \
        --fuse_adapters "qa=$folder/lang_qa_$seed" ner=adapters/ner
}

# train_transfer SEED: train a QA adapter on the questions of another source, and use it for the first 250 questions:
# fused with their own adapter, the fusion trained on the same questions or on the next 250; trained further on them;
# and not at all (the controls of the fusions: adapters of the 250, and of these and the next 250). Another adapter is
# trained on all these questions at once, in about as many steps as the second fusion and its adapters together.
train_transfer() {
    local seed=$1 few=(--max_train_samples 250 --eval_strategy no) folder=transfer
    local qa=qa=curve/250/qa_$seed source=source=$folder/source_$seed
    questions=source
    train settings/qa.yaml "$folder/source_$seed" "$seed" 4 --eval_strategy no
    questions=train
    train settings/fusion.yaml "$folder/fusion_$seed" "$seed" 4 "${few[@]}" --fuse_adapters "$qa" "$source"
    train settings/fusion.yaml "$folder/fusion_source_head_$seed" "$seed" 4 "${few[@]}" --fuse_adapters "$source" "$qa"
    train settings/qa.yaml "$folder/control_$seed" "$seed" 12 "${few[@]}"
    train settings/qa.yaml "$folder/control_of_500_$seed" "$seed" 8 --max_train_samples 500 --eval_strategy no
    train settings/qa.yaml "$folder/continued_$seed" "$seed" 8 "${few[@]}" --load_adapter "$folder/source_$seed"
    questions=next
    train settings/fusion.yaml "$folder/fusion_unseen_$seed" "$seed" 4 --eval_strategy no --fuse_adapters "$qa" "$source"
    questions=joint
    train settings/qa.yaml "$folder/joint_$seed" "$seed" 5 --eval_strategy no
    questions=train
}

# evaluate_untrained_fusion NAME ADAPTER ...: evaluate a fusion as it begins. Its head is that of the first adapter, which
# only a training takes over; so it has one step, at a rate too small to change a score.
evaluate_untrained_fusion() {
    run run_qa_adapter.py settings/fusion.yaml --model_name_or_path "$BASE" --do_train --do_eval \
        --train_file data/train.json --max_train_samples 8 --learning_rate 1e-9 --validation_file data/choose.json \
        --per_device_train_batch_size 8 --report_to none --output_dir "untrained_fusion/$1" --seed 1 \
        --num_train_epochs 1 --load_lang_adapter adapters/mlm --fuse_adapters "${@:2}"
}

# measure_speed SETUP OPTION ...: train a setup on 400 questions with the settings in its file, and answer 400.
measure_speed() {
    run run_qa_adapter.py "settings/${1%_without_language}.yaml" --model_name_or_path "$BASE" --do_train --do_predict \
        --train_file data/train.json --max_train_samples 400 --test_file data/test.json --max_predict_samples 400 \
        --per_device_train_batch_size 8 --num_train_epochs 1 --report_to none --output_dir "speed/$1" --seed 1 "${@:2}"
}

# measure_speeds: measure all of them. Which adapters a fusion has does not change its speed.
measure_speeds() {
    local language=(--load_lang_adapter adapters/mlm) fused=(--fuse_adapters qa=runs/lang_qa_1 qa_2=runs/lang_qa_2)
    local setup
    for setup in full lora qa; do measure_speed "$setup"; done
    measure_speed lang_qa "${language[@]}"
    measure_speed fusion "${language[@]}" "${fused[@]}"
    measure_speed fusion_without_language "${fused[@]}"
}

for step in $STEPS; do
    case $step in
    search)
        search full
        search qa
        if [[ " $SETUPS " == *" lora "* ]]; then search lora; fi
        train_language_adapter
        search lang_qa
        train_ner_adapter ner
        search fusion
        ;;
    adapters)
        train_language_adapter
        train_ner_adapter ner
        ;;
    train)
        for seed in $SEEDS; do
            for setup in $SETUPS; do train_setup "$setup" "$seed"; done
        done
        ;;
    curve)
        for seed in $SEEDS; do
            train_curve 250 8 "$seed"
            train_curve 1000 4 "$seed"
        done
        ;;
    transfer)
        for seed in $SEEDS; do train_transfer "$seed"; done
        ;;
    v2)
        parts=data/v2
        for seed in $SEEDS; do
            version_2=(--version_2_with_negative True --calibration_share 0.3)
            train settings/full.yaml "v2/full_$seed" "$seed" "$EPOCHS" "${version_2[@]}"
            train settings/lang_qa.yaml "v2/lang_qa_$seed" "$seed" "$EPOCHS" "${version_2[@]}" \
                --load_lang_adapter adapters/mlm
        done
        parts=data
        ;;
    untrained_fusion)
        evaluate_untrained_fusion qa_ner qa=runs/lang_qa_1 ner=adapters/ner
        evaluate_untrained_fusion qa_qa_v2 qa=runs/lang_qa_1 qa_v2=v2/lang_qa_1
        evaluate_untrained_fusion qa_qa_2 qa=runs/lang_qa_1 qa_2=runs/lang_qa_2
        run run_qa_adapter.py --model_name_or_path "$BASE" --load_adapter v2/lang_qa_1 --do_eval \
            --validation_file data/choose.json --max_seq_length 384 --doc_stride 128 --version_2_with_negative False \
            --bf16 True --report_to none --output_dir untrained_fusion/qa_v2_alone
        ;;
    architecture) run sweep_qa.py settings_given/search/architecture.yaml --output_dir search/architecture ;;
    speed) measure_speeds ;;
    table)
        run report_qa.py runs --split predict --output_dir report --overwrite
        # shellcheck disable=SC2086  # words
        "$PYTHON" "$here/compare.py" runs data/test.json $PAIRS --json report/compared.json
        ;;
    esac
done
