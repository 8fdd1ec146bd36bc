#!/usr/bin/env bash
# Train full fine-tuning, a QA adapter, a QA adapter on a language adapter, and a fusion, each with several seeds, and
# compare them in one report. Every setting below that looks like NAME=${NAME:-value} can be given in the environment:
#
#   TRAIN=train.json DEV=dev.json LANG_ADAPTER=outputs/mlm NER_ADAPTER=outputs/ner bash compare_setups.sh
#   TRAIN=train.json DEV=dev.json LANG_ADAPTER=outputs/mlm NER_ADAPTER=outputs/ner SEEDS="1 2 3 4 5" FULL_LR=5e-5 \
#       OUT=outputs/compared bash compare_setups.sh
#
# A small example that takes a few minutes on a laptop. It uses what demo.sh has written:
#
#   MODEL=demo_outputs/base TRAIN=demo_outputs/data/pt_squad-train-v1.1.json DEV=demo_outputs/data/pt_squad-dev-v1.1.json \
#       LANG_ADAPTER=demo_outputs/mlm NER_ADAPTER=demo_outputs/ner REDUCTION=4 MADX2=False LENGTH=128 STRIDE=32 BATCH=32 \
#       GAS=1 SEEDS="1 2" EPOCHS=2 FULL_LR=1e-3 QA_LR=3e-3 FUSION_LR=1e-3 FP16=False OUT=demo_outputs/compared \
#       bash compare_setups.sh
#
# The same command again skips finished runs and resumes interrupted ones. A failed run does not stop the others: the
# report is still written, and the exit code is 1. The fusion of a seed uses the QA adapter of the same seed.
set -uo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
help_or_no_arguments "$@"
cd "$(dirname "$0")" || exit

TRAIN=${TRAIN:?SQuAD file to train on, as prepare_squad_pt.py writes it}
DEV=${DEV:?SQuAD file to evaluate on}
LANG_ADAPTER=${LANG_ADAPTER:?run folder of a language adapter, made by run_mlm_adapter.py}
NER_ADAPTER=${NER_ADAPTER:?run folder of a NER adapter, made by run_ner_adapter.py}
MODEL=${MODEL:-neuralmind/bert-large-portuguese-cased}
OUT=${OUT:-outputs/compared}
REPORT=${REPORT:-$OUT/report}
PYTHON=${PYTHON:-python}
SEEDS=${SEEDS:-1 2 3}
SETUPS=${SETUPS:-full qa lang_qa fusion}
FP16=${FP16:-True}
MADX2=${MADX2:-True}
ADAPTER=${ADAPTER:-pfeiffer}
ACTIVATION=${ACTIVATION:-gelu}
REDUCTION=${REDUCTION:-16}
EXTRA=${EXTRA:-}   # options for every run, which override the others, e.g. "--max_train_samples 1000"

EPOCHS=${EPOCHS:-5} PATIENCE=${PATIENCE:-3} BATCH=${BATCH:-8} GAS=${GAS:-2}
FULL_LR=${FULL_LR:-3e-5} QA_LR=${QA_LR:-1e-4} FUSION_LR=${FUSION_LR:-3e-5}
LENGTH=${LENGTH:-384} STRIDE=${STRIDE:-128}
read -r -a extra <<<"$EXTRA"

common=(--model_name_or_path "$MODEL" --do_train --do_eval --train_file "$TRAIN" --validation_file "$DEV"
    --fp16 "$FP16" --max_seq_length "$LENGTH" --doc_stride "$STRIDE" --per_device_train_batch_size "$BATCH"
    --gradient_accumulation_steps "$GAS" --num_train_epochs "$EPOCHS" --early_stopping_patience "$PATIENCE"
    --save_total_limit 1)
new_adapter=(--adapter_config "$ADAPTER" --adapter_non_linearity "$ACTIVATION" --adapter_reduction_factor "$REDUCTION"
    --madx2 "$MADX2" --learning_rate "$QA_LR")
failed=()
for setup in $SETUPS; do
    case $setup in full | qa | lang_qa | fusion) continue ;; esac
    echo "error: SETUPS: $setup is unknown; choose from full, qa, lang_qa, fusion" >&2
    exit 2
done

# train NAME OPTION ...: train into $OUT/NAME. Ctrl-C and SIGTERM stop the whole comparison.
train() {
    local name=$1 code=0
    shift
    printf '\n=== %s\n' "$name"
    override "${common[@]}" "$@" --output_dir "$OUT/$name"
    "$PYTHON" run_qa_adapter.py "${words[@]}" || code=$?
    if [ "$code" -gt 128 ]; then exit "$code"; fi
    if [ "$code" -ne 0 ]; then failed+=("$name (exit code $code)"); fi
}

for seed in $SEEDS; do
    for setup in $SETUPS; do
        case $setup in
        full) train "full_$seed" --seed "$seed" --train_adapter False --learning_rate "$FULL_LR" ;;
        qa) train "qa_$seed" --seed "$seed" "${new_adapter[@]}" ;;
        lang_qa) train "lang_qa_$seed" --seed "$seed" "${new_adapter[@]}" --load_lang_adapter "$LANG_ADAPTER" ;;
        fusion) train "fusion_$seed" --seed "$seed" --load_lang_adapter "$LANG_ADAPTER" --learning_rate "$FUSION_LR" \
            --fuse_adapters qa="$OUT/lang_qa_$seed" ner="$NER_ADAPTER" ;;
        esac
    done
done

printf '\n=== report\n'
"$PYTHON" report_qa.py "$OUT" --output_dir "$REPORT" --overwrite || exit
for name in "${failed[@]}"; do echo "failed: $name" >&2; done
[ "${#failed[@]}" -eq 0 ]
