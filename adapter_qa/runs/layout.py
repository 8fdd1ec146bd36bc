"""Names of the files and folders in the folder of a run or a sweep.

run.json, run.lock               the record of the run; the lock of the process that works in the folder
options.yaml                     the options of the run that are not defaults; repeats the run elsewhere
checkpoint-<step>/               manifest.json, trained.safetensors, progress.json and the trainer's own files
frozen.safetensors               the frozen adapters, which checkpoints do not hold
base/                            the base model of a run with --random_init
adapters-<task>/, README.md      what was trained and its model card; `models.saved_adapters` defines the contents
<split>_results.json             metrics; all_results.json has those of all splits
<split>_predictions.json         answers, beside <split>_nbest_predictions.json and <split>_null_odds.json
<split>_predictions.conll        labels of a token classifier
<split>_curves.json              reliability of the probabilities; SQuAD v2: precision and recall of answering
calibration.json                 temperature and threshold, and what they were fitted on
fusion_attention.json            mean attention of a fusion
runs/                            TensorBoard logs
sweep.json, journal.log, trials/<number>/       the report, the storage and the runs of a sweep
parallel_coordinates.png         picture of the finished trials of a sweep
fold_<number>/                   the runs of a cross-validation, whose folder has their answers and scores together
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from adapter_qa.core.files import TEMPORARY_SUFFIX
from adapter_qa.models.file_names import FULL_FILE

RUN_FILE = "run.json"
OPTIONS_FILE = "options.yaml"
LOCK_FILE = "run.lock"
CARD_FILE = "README.md"
FROZEN_FILE = "frozen.safetensors"
ATTENTION_FILE = "fusion_attention.json"
CALIBRATION_FILE = "calibration.json"
ALL_RESULTS_FILE = "all_results.json"
BASE_FOLDER = "base"
LOGS_FOLDER = "runs"

# In a checkpoint. The names of its other files are the library's.
MANIFEST_FILE = "manifest.json"
TRAINED_FILE = "trained.safetensors"
PROGRESS_FILE = "progress.json"

FOLD_NAME = re.compile(r"fold_\d+")
CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")
TEMPORARY_CHECKPOINT = "checkpoint" + TEMPORARY_SUFFIX
REMOVED_CHECKPOINT = "checkpoint.removing"

SWEEP_FILE = "sweep.json"
JOURNAL_FILE = "journal.log"
PARALLEL_FILE = "parallel_coordinates.png"
TRIALS_FOLDER = "trials"

# Patterns of a fully fine-tuned model that is saved in the run's folder.
FULL_MODEL_FILES = (
    FULL_FILE, "config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json",
    "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip
# Names of what a run may remove when it replaces an earlier one. Not among them: RUN_FILE, which is removed last;
# LOCK_FILE, which stays; README.md, which may be the user's and is a card only beside FULL_FILE.
REMOVABLE = re.compile(
    "|".join(
        (
            CHECKPOINT_NAME.pattern, FOLD_NAME.pattern, "adapters-(qa|ner|mlm|fusion)",
            r"(train|eval|predict|calibration|all)_results\.json", r"predict_predictions\.conll",
            r"(eval|predict|calibration)_((nbest_)?predictions|null_odds|curves)\.json",
            *map(re.escape, (REMOVED_CHECKPOINT, BASE_FOLDER, LOGS_FOLDER, FROZEN_FILE, "trainer_state.json")),
            *map(re.escape, (OPTIONS_FILE, ATTENTION_FILE, CALIBRATION_FILE)),
            *(fnmatch.translate(pattern) for pattern in FULL_MODEL_FILES), rf".+{re.escape(TEMPORARY_SUFFIX)}",
        )
    )
)  # fmt: skip


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the path of an optimizer step's checkpoint in the folder of its run."""
    return folder / f"checkpoint-{step}"


def results_file(split: str) -> str:
    """Return the name of a split's metrics."""
    return f"{split}_results.json"


def predictions_file(split: str, suffix: str = ".json") -> str:
    """Return the name of a split's answers, or with ".conll" of its labels."""
    return f"{split}_predictions{suffix}"


def nbest_file(split: str) -> str:
    """Return the name of a split's best candidates for each question."""
    return f"{split}_nbest_predictions.json"


def null_odds_file(split: str) -> str:
    """Return the name of a split's odds that a question has no answer."""
    return f"{split}_null_odds.json"


def curves_file(split: str) -> str:
    """Return the name of the curves that say how far a split's probabilities and odds can be trusted."""
    return f"{split}_curves.json"


def saved_folder(folder: Path, recorded: str) -> Path:
    """Return where a run has saved its model, also if the run has been moved since it `recorded` the place."""
    return folder if (folder / FULL_FILE).is_file() else folder / Path(recorded).name


def fold_folder(folder: Path, fold: int) -> Path:
    """Return the folder of a fold's run in that of its cross-validation."""
    return folder / f"fold_{fold}"


def trial_folder(folder: Path, number: int) -> Path:
    """Return the folder of a trial's run. It depends on the number only, so that every worker finds the checkpoints."""
    return folder / TRIALS_FOLDER / f"{number:04d}"
