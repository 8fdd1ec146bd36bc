#!/usr/bin/env bash
# Run every step on a laptop: create a virtual environment, pre-train a tiny BERT, train a language, a NER and a QA
# adapter and their fusion, evaluate, answer questions, and write a table and a report:
#
#   bash demo.sh
#
# The demo shows how the scripts work together. Its text is made up and the model knows nothing else, so its numbers say
# nothing about real Portuguese. Only Python packages are downloaded.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
help_or_no_arguments "$@"
cd "$(dirname "$0")"
use_environment report
export HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=1   # matrices this small gain nothing from a second thread

out=demo_outputs
sample=examples/sample
model=(--model_name_or_path "$out/base" --seed 42 --report_to none)
questions=(--train_file "$out/data/pt_squad-train-v1.1.json" --validation_file "$out/data/pt_squad-dev-v1.1.json"
    --max_seq_length 128 --doc_stride 32 --per_device_train_batch_size 32 --per_device_eval_batch_size 64)
new_adapter=(--adapter_config pfeiffer --adapter_reduction_factor 4 --adapter_non_linearity gelu)

chapter() { printf '\n=== %s\n' "$*"; }

chapter "1. clean SQuAD files from raw ones"
mkdir -p "$out/data"
python prepare_squad_pt.py "$sample/squad-train-v1.1.json" --output_dir "$out/data" --overwrite
python prepare_squad_pt.py "$sample/squad-dev-v1.1.json" --output_dir "$out/data" --overwrite

chapter "2. a tiny BERT, pre-trained on examples/sample"
if [ ! -f "$out/base/model.safetensors" ]; then
    rm -rf "$out/base"
    python examples/make_tiny_bert.py "$out/base" "$out/data/pt_squad-train-v1.1.json"
fi

chapter "3. language adapter"
python run_mlm_adapter.py "${model[@]}" --do_train --do_eval --train_file "$sample/texts.txt" --language pt \
    --block_size 128 --learning_rate 2e-3 --num_train_epochs 1 --per_device_train_batch_size 16 \
    --max_eval_samples 50 --output_dir "$out/mlm"

chapter "4. NER adapter"
python run_ner_adapter.py "${model[@]}" "${new_adapter[@]}" --do_train --do_eval --language pt \
    --train_file "$sample/lener_train.conll" --validation_file "$sample/lener_dev.conll" --max_seq_length 128 \
    --weighted_loss True --learning_rate 5e-3 --num_train_epochs 4 --per_device_train_batch_size 16 --output_dir "$out/ner"

chapter "5. QA adapter on the language adapter"
python run_qa_adapter.py "${model[@]}" "${new_adapter[@]}" "${questions[@]}" --do_train --do_eval --language pt \
    --load_lang_adapter "$out/mlm" --learning_rate 3e-3 --num_train_epochs 2 --early_stopping_patience 2 \
    --output_dir "$out/qa"

chapter "6. fusion of both"
python run_qa_adapter.py "${model[@]}" "${questions[@]}" --do_train --do_eval --language pt \
    --load_lang_adapter "$out/mlm" --fuse_adapters qa="$out/qa" ner="$out/ner" --learning_rate 1e-3 \
    --num_train_epochs 2 --early_stopping_patience 2 --output_dir "$out/fusion"

chapter "7. for comparison: the untrained model"
python run_qa_adapter.py "${model[@]}" "${questions[@]}" --do_eval --train_adapter False --output_dir "$out/untrained"

chapter "8. questions, answered by the fusion"
python ask_qa.py "$out/fusion" --input "$sample/questions.jsonl"

chapter "9. EM, F1, parameters and time of each setup, and a report (of made-up text)"
python report_qa.py "$out/untrained" "$out/qa" "$out/fusion" --output_dir "$out/report" --overwrite
