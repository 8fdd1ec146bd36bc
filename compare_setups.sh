#!/usr/bin/env bash
# Train full fine-tuning, a QA adapter, a QA adapter on a language adapter, and a fusion, each with several seeds, and
# compare them in one report. The hyperparameters are those of recipes/. Every setting below that looks like
# NAME=${NAME:-value} can be given in the environment; an empty one is that of the recipe:
#
#   TRAIN=train.json DEV=dev.json LANG_ADAPTER=outputs/mlm NER_ADAPTER=outputs/ner bash compare_setups.sh
#   TRAIN=train.json DEV=dev.json LANG_ADAPTER=outputs/mlm NER_ADAPTER=outputs/ner SEEDS="1 2 3 4 5" FULL_LR=5e-5 \
#       MODEL=neuralmind/bert-base-portuguese-cased OUT=outputs/compared bash compare_setups.sh
#
# A small example that takes a few minutes on a laptop. It uses what demo.sh has written:
#
#   MODEL=demo_outputs/base TRAIN=demo_outputs/data/pt_squad-train-v1.1.json \
#       DEV=demo_outputs/data/pt_squad-dev-v1.1.json LANG_ADAPTER=demo_outputs/mlm NER_ADAPTER=demo_outputs/ner \
#       ADAPTER=pfeiffer REDUCTION=4 LENGTH=128 STRIDE=32 BATCH=32 GAS=1 SEEDS="1 2" EPOCHS=2 \
#       FULL_LR=1e-3 QA_LR=3e-3 FUSION_LR=1e-3 OUT=demo_outputs/compared bash compare_setups.sh
#
# The same command again skips finished runs and resumes interrupted ones. A failed run does not stop the others: the
# report is still written, and the exit code is 1. The fusion of a seed uses the QA adapter of the same seed, so it has
# seen the questions for more epochs than the others. For a fair comparison train a QA adapter for both times, too.
set -uo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
help_or_no_arguments "$@"
cd "$(dirname "$0")" || exit

TRAIN=${TRAIN:?SQuAD file to train on, as prepare_squad_pt.py writes it}
DEV=${DEV:?SQuAD file to evaluate on}
LANG_ADAPTER=${LANG_ADAPTER:?run folder of a language adapter, made by run_mlm_adapter.py}
NER_ADAPTER=${NER_ADAPTER:?run folder of a NER adapter of the same kind as the QA adapter, made by run_ner_adapter.py}
MODEL=${MODEL:-neuralmind/bert-large-portuguese-cased}
RECIPES=${RECIPES:-recipes}   # folder with full.yaml, qa.yaml and fusion.yaml; or recipes/reference_2021
OUT=${OUT:-outputs/compared}
REPORT=${REPORT:-$OUT/report}
PYTHON=${PYTHON:-python}
SEEDS=${SEEDS:-1 2 3}
SETUPS=${SETUPS:-full qa lang_qa fusion}
EXTRA=${EXTRA:-}   # options for every run, which override the others, e.g. "--max_train_samples 1000"

# In place of the recipes' hyperparameters:
EPOCHS=${EPOCHS:-} PATIENCE=${PATIENCE:-} BATCH=${BATCH:-} GAS=${GAS:-} FP16=${FP16:-}
LENGTH=${LENGTH:-} STRIDE=${STRIDE:-}
MADX2=${MADX2:-} ADAPTER=${ADAPTER:-} ACTIVATION=${ACTIVATION:-} REDUCTION=${REDUCTION:-}   # of QA adapters
FULL_LR=${FULL_LR:-} QA_LR=${QA_LR:-} FUSION_LR=${FUSION_LR:-}
read -r -a extra <<<"$EXTRA"

# given OPTION VALUE ...: print the options that have a value.
given() {
    while [ $# -gt 0 ]; do
        if [ "$2" ]; then echo "--$1 $2"; fi
        shift 2
    done
}

read -r -d '' -a common < <(
    given fp16 "$FP16" max_seq_length "$LENGTH" doc_stride "$STRIDE" per_device_train_batch_size "$BATCH" \
        gradient_accumulation_steps "$GAS" num_train_epochs "$EPOCHS" early_stopping_patience "$PATIENCE"
)
read -r -d '' -a new_adapter < <(
    given adapter_config "$ADAPTER" adapter_non_linearity "$ACTIVATION" adapter_reduction_factor "$REDUCTION" \
        madx2 "$MADX2" learning_rate "$QA_LR"
)
failed=()
for setup in $SETUPS; do
    case $setup in full | qa | lang_qa | fusion) continue ;; esac
    echo "error: SETUPS: $setup is unknown; choose from full, qa, lang_qa, fusion" >&2
    exit 2
done

# train RECIPE NAME OPTION ...: train into $OUT/NAME. Ctrl-C, SIGTERM and SIGHUP stop the whole comparison.
train() {
    local recipe=$1 name=$2 code=0
    printf '\n=== %s\n' "$name"
    override --model_name_or_path "$MODEL" --train_file "$TRAIN" --validation_file "$DEV" --save_total_limit 1 \
        ${common[@]+"${common[@]}"} "${@:3}" --output_dir "$OUT/$name"
    "$PYTHON" run_qa_adapter.py "$RECIPES/$recipe.yaml" "${words[@]}" || code=$?
    case $code in
    0) ;;
    129 | 130 | 143) exit "$code" ;; # SIGHUP, Ctrl-C or SIGTERM
    *) failed+=("$name (exit code $code)") ;;
    esac
}

for seed in $SEEDS; do
    for setup in $SETUPS; do
        # shellcheck disable=SC2046  # words
        case $setup in
        full) train full "full_$seed" --seed "$seed" $(given learning_rate "$FULL_LR") ;;
        qa) train qa "qa_$seed" --seed "$seed" ${new_adapter[@]+"${new_adapter[@]}"} --load_lang_adapter none ;;
        lang_qa) train qa "lang_qa_$seed" --seed "$seed" ${new_adapter[@]+"${new_adapter[@]}"} \
            --load_lang_adapter "$LANG_ADAPTER" ;;
        fusion) train fusion "fusion_$seed" --seed "$seed" $(given learning_rate "$FUSION_LR") \
            --load_lang_adapter "$LANG_ADAPTER" --fuse_adapters qa="$OUT/lang_qa_$seed" ner="$NER_ADAPTER" ;;
        esac
    done
done

printf '\n=== report\n'
code=0
"$PYTHON" report_qa.py "$OUT" --output_dir "$REPORT" --overwrite || code=$?
for name in ${failed[@]+"${failed[@]}"}; do echo "failed: $name" >&2; done
[ "${#failed[@]}" -eq 0 ] || exit 1
exit "$code"
