#!/usr/bin/env bash
# Train Stack(mlm, Fuse(qa, ner)) on a GPU from raw SQuAD-pt and LeNER-Br, with the reference hyperparameters of
# 2021 as defaults. Every setting below that looks like NAME=${NAME:-value} can be given in the environment:
#
#   SQUAD=squad-pt.tar.gz NER_TRAIN=train.conll NER_DEV=dev.conll bash train_fusion_pt.sh
#   SQUAD=squad-pt.tar.gz NER_TRAIN=train.conll NER_DEV=dev.conll MODEL=neuralmind/bert-base-portuguese-cased \
#       QA_LR=3e-4 OUT=outputs/base bash train_fusion_pt.sh
#
# The same command again skips finished steps and resumes interrupted ones. Changed settings need another OUT.
# recipes/reference_2021 has the same hyperparameters for single steps.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
help_or_no_arguments "$@"
cd "$(dirname "$0")"

MODEL=${MODEL:-neuralmind/bert-large-portuguese-cased}
SQUAD=${SQUAD:?the .tar.gz or .zip that holds squad-train-v1.1.json and squad-dev-v1.1.json}
NER_TRAIN=${NER_TRAIN:?CoNLL file of LeNER-Br, training part}
NER_DEV=${NER_DEV:?CoNLL file of LeNER-Br, development part}
OUT=${OUT:-outputs/fusion_pt}
DATA=${DATA:-$OUT/data}
TEXT=${TEXT:-$DATA/pt_squad-train-v1.1.json}   # the language adapter's text: .txt, SQuAD contexts or CoNLL
PYTHON=${PYTHON:-python}
LAUNCHER=${LAUNCHER:-}   # of the training steps, in place of PYTHON: "torchrun --nproc_per_node 4" for four GPUs
SEED=${SEED:-42}
FP16=${FP16:-True}
MADX2=${MADX2:-True}
ADAPTER=${ADAPTER:-pfeiffer}
ACTIVATION=${ACTIVATION:-gelu}
EXTRA=${EXTRA:-}   # options for every training step, which override the others, e.g. "--max_train_samples 1000"

MLM_LR=${MLM_LR:-1e-4} MLM_BATCH=${MLM_BATCH:-16} MLM_EPS=${MLM_EPS:-1e-4} MLM_EPOCHS=${MLM_EPOCHS:-100}
MLM_PATIENCE=${MLM_PATIENCE:-10} MLM_REDUCTION=${MLM_REDUCTION:-2}
QA_LR=${QA_LR:-1e-4} QA_BATCH=${QA_BATCH:-8} QA_GAS=${QA_GAS:-2} QA_EPS=${QA_EPS:-1e-7} QA_EPOCHS=${QA_EPOCHS:-15}
QA_PATIENCE=${QA_PATIENCE:-5} QA_REDUCTION=${QA_REDUCTION:-16} QA_HEAD_LR=${QA_HEAD_LR:-$QA_LR}
NER_LR=${NER_LR:-1e-4} NER_BATCH=${NER_BATCH:-4} NER_GAS=${NER_GAS:-2} NER_EPS=${NER_EPS:-1e-4}
NER_EPOCHS=${NER_EPOCHS:-30} NER_PATIENCE=${NER_PATIENCE:-10} NER_REDUCTION=${NER_REDUCTION:-16} NER_C=${NER_C:-0.5}
NER_HEAD_LR=${NER_HEAD_LR:-$NER_LR}            # in 2021 a head had the rate of its adapter
FUSION_LR=${FUSION_LR:-3e-5} FUSION_BATCH=${FUSION_BATCH:-16} FUSION_GAS=${FUSION_GAS:-2}
FUSION_EPS=${FUSION_EPS:-1e-6} FUSION_EPOCHS=${FUSION_EPOCHS:-5} FUSION_PATIENCE=${FUSION_PATIENCE:-3}
FUSION_DECAY=${FUSION_DECAY:-0.01}
LENGTH=${LENGTH:-384} STRIDE=${STRIDE:-128} N_BEST=${N_BEST:-20} LONGEST=${LONGEST:-30}

common=(--model_name_or_path "$MODEL" --do_train --do_eval --fp16 "$FP16" --madx2 "$MADX2" --seed "$SEED" --language pt)
new_adapter=(--adapter_config "$ADAPTER" --adapter_non_linearity "$ACTIVATION")
questions=(--train_file "$DATA/pt_squad-train-v1.1.json" --validation_file "$DATA/pt_squad-dev-v1.1.json"
    --max_seq_length "$LENGTH" --doc_stride "$STRIDE" --n_best_size "$N_BEST" --max_answer_length "$LONGEST")
read -r -a extra <<<"$EXTRA"
launcher=("$PYTHON")
if [ "$LAUNCHER" ]; then read -r -a launcher <<<"$LAUNCHER"; fi

# Clean, flat files from the raw archive.
if [ ! -f "$DATA/pt_squad-dev-v1.1.json" ]; then
    mkdir -p "$DATA"
    "$PYTHON" prepare_squad_pt.py "$SQUAD" --output_dir "$DATA" --overwrite
fi

# Language adapter: Pfeiffer + invertible, masked language modelling.
override "${common[@]}" --adapter_config pfeiffer+inv --adapter_non_linearity "$ACTIVATION" \
    --train_file "$TEXT" --adapter_reduction_factor "$MLM_REDUCTION" --learning_rate "$MLM_LR" \
    --per_device_train_batch_size "$MLM_BATCH" --adam_epsilon "$MLM_EPS" --num_train_epochs "$MLM_EPOCHS" \
    --early_stopping_patience "$MLM_PATIENCE" --output_dir "$OUT/mlm"
"${launcher[@]}" run_mlm_adapter.py "${words[@]}"

# QA adapter on the language adapter.
override "${common[@]}" "${new_adapter[@]}" "${questions[@]}" --load_lang_adapter "$OUT/mlm" \
    --adapter_reduction_factor "$QA_REDUCTION" --learning_rate "$QA_LR" --head_learning_rate "$QA_HEAD_LR" \
    --per_device_train_batch_size "$QA_BATCH" --gradient_accumulation_steps "$QA_GAS" --adam_epsilon "$QA_EPS" \
    --num_train_epochs "$QA_EPOCHS" --early_stopping_patience "$QA_PATIENCE" --output_dir "$OUT/qa"
"${launcher[@]}" run_qa_adapter.py "${words[@]}"

# NER adapter, without a language adapter.
override "${common[@]}" "${new_adapter[@]}" --train_file "$NER_TRAIN" \
    --validation_file "$NER_DEV" --max_seq_length "$LENGTH" --weighted_loss True --weighted_loss_constant "$NER_C" \
    --next_sentence True \
    --adapter_reduction_factor "$NER_REDUCTION" --learning_rate "$NER_LR" --head_learning_rate "$NER_HEAD_LR" \
    --per_device_train_batch_size "$NER_BATCH" --gradient_accumulation_steps "$NER_GAS" --adam_epsilon "$NER_EPS" \
    --num_train_epochs "$NER_EPOCHS" --early_stopping_patience "$NER_PATIENCE" --output_dir "$OUT/ner"
"${launcher[@]}" run_ner_adapter.py "${words[@]}"

# Fusion of both on the language adapter.
override "${common[@]}" "${questions[@]}" --load_lang_adapter "$OUT/mlm" \
    --fuse_adapters qa_squad11pt="$OUT/qa" ner_lenerbr="$OUT/ner" --learning_rate "$FUSION_LR" \
    --per_device_train_batch_size "$FUSION_BATCH" --gradient_accumulation_steps "$FUSION_GAS" \
    --adam_epsilon "$FUSION_EPS" --weight_decay "$FUSION_DECAY" --lr_scheduler_type linear --warmup_steps 0 \
    --num_train_epochs "$FUSION_EPOCHS" --early_stopping_patience "$FUSION_PATIENCE" --output_dir "$OUT/fusion"
"${launcher[@]}" run_qa_adapter.py "${words[@]}"

echo "done: $OUT/fusion/run.json; ask with: python ask_qa.py $OUT/fusion --question ... --context ..."
