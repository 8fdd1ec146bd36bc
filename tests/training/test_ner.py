"""The trainer for named entities (adapter_qa/training/ner.py): scores, loss, evaluation.

Oracles: a span counter that walks over labels, and the formula of the loss.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.entity_spans import counted_scores
from seqeval.metrics import classification_report
from support.device_reads import DeviceReadCounter
from support.sentences import ANA, BOTH, DAVI, NAMES
from support.split_batches import assert_same_step, train_on
from support.trainers import copy_without_dropout
from transformers import EvalPrediction, PreTrainedTokenizerFast

from adapter_qa.config.options import AdapterOptions, ModelOptions, TrainingOptions
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.readers.sentences import Sentence
from adapter_qa.data.token_classification import (
    TokenClassificationCollator,
    TokenClassificationDataset,
    sentence_labels,
    tokenize_and_align_labels,
)
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model, load_tokenizer
from adapter_qa.models.build import build_setup
from adapter_qa.models.setup_decisions import resolve_setup
from adapter_qa.training.ner import NERTrainer, entity_scores
from adapter_qa.training.training_args import resolve_training_args


@pytest.fixture(scope="module")
def tokenizer(tiny_bert: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(ModelOptions(str(tiny_bert)), split_words=True)


def as_iob2(types: list[str], breaks: list[bool]) -> list[str]:
    """Return labels from a type for each word ("" for none) and whether a new entity begins there."""
    labels: list[str] = []
    for index, (entity, begins) in enumerate(zip(types, breaks, strict=True)):
        continues = index > 0 and types[index - 1] == entity and not begins
        labels.append(("I-" if continues else "B-") + entity if entity else "O")
    return labels


@st.composite
def scored_sentences(draw: st.DrawFn) -> tuple[list[list[str]], list[list[str]]]:
    """Draw gold sequences in IOB2 and predictions; most predicted labels are the gold labels."""
    gold, predicted = [], []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 9))
        types = draw(st.lists(st.sampled_from(["", "", "PER", "LOC", "ORG"]), min_size=size, max_size=size))
        gold.append(as_iob2(types, draw(st.lists(st.booleans(), min_size=size, max_size=size))))
        noise = st.one_of(st.none(), st.none(), st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))
        changes = draw(st.lists(noise, min_size=size, max_size=size))
        predicted.append([change or label for change, label in zip(changes, gold[-1], strict=True)])
    return gold, predicted


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # seqeval's macro average where there is no entity at all
@settings(max_examples=100, deadline=None)
@given(scored_sentences())
def test_entity_scores_equal_counted_spans(case: tuple[list[list[str]], list[list[str]]]) -> None:
    gold, predicted = case
    scores = entity_scores(gold, predicted)
    assert scores == pytest.approx(counted_scores(gold, predicted))
    assert all(isinstance(value, (int, float)) for value in scores.values())
    assert json.dumps(scores)


def test_entity_scores_of_a_hand_computed_example() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "B-LOC"]]
    predicted = [["B-PER", "I-PER", "O", "B-PER"], ["B-LOC", "I-LOC"]]  # 1 of 3 is correct; the gold has 4
    assert entity_scores(gold, predicted) == pytest.approx(
        {
            "precision": 100 / 3, "recall": 25.0, "f1": 200 / 7, "entities": 4,
            "PER_precision": 50.0, "PER_recall": 100.0, "PER_f1": 200 / 3, "PER_entities": 1,
            "LOC_precision": 0.0, "LOC_recall": 0.0, "LOC_f1": 0.0, "LOC_entities": 3,
        }
    )  # fmt: skip


def make_trainer(
    folder: Path,
    base: Path,
    weights: np.ndarray | None,
    dataset: TokenClassificationDataset,
    unseen: tuple[str, ...] = (),
) -> NERTrainer:
    options = ModelOptions(str(base))
    model = load_model(options, "ner", NAMES)
    setup = resolve_setup("ner", read_base_config(options), AdapterOptions())
    assert setup is not None
    build_setup(model, setup)
    args = resolve_training_args(
        TrainingOptions(output_dir=str(folder), report_to=[], do_eval=True, use_cpu=True, disable_tqdm=True)
    )
    args.label_names = ["O", "B-PER"]  # in a NER run the option has names of classes
    collator = TokenClassificationCollator(pad_id=0, has_types=True)
    return NERTrainer(
        model=model, setup=setup, names=NAMES, unseen=unseen, weights=weights, args=args, data_collator=collator,
        eval_dataset=dataset,
    )  # fmt: skip


@pytest.mark.parametrize("weights", [None, np.array([0.2, 1.5, 0.8, 2.0, 0.5], dtype=np.float32)])
@pytest.mark.parametrize(("factor", "trains", "smoothing"), [(0.0, True, 0.0), (0.3, True, 0.3), (0.3, False, 0.0)])
def test_loss_is_the_weighted_mean_over_labelled_tokens(
    tmp_path: Path,
    tiny_bert: Path,
    tokenizer: PreTrainedTokenizerFast,
    weights: np.ndarray | None,
    factor: float,
    trains: bool,
    smoothing: float,
) -> None:
    """Label smoothing spreads its share evenly over the classes. It and class weights count in training only."""
    dataset = tokenize_and_align_labels(BOTH, tokenizer, NAMES, max_seq_length=64)
    trainer = make_trainer(tmp_path, tiny_bert, weights, dataset)
    trainer.args.label_smoothing_factor = factor
    trainer.model.train(trains)
    batch = trainer.data_collator([dataset[0], dataset[1]])
    with torch.no_grad():
        loss, loss_weight, outputs = trainer.task_loss(trainer.model, batch)
    total = norm = 0.0
    for row, labels in zip(outputs.logits.double().numpy(), batch["labels"].numpy(), strict=True):
        for logits, label in zip(row, labels, strict=True):
            if label != IGNORE_INDEX:
                targets = [smoothing / len(NAMES) + (1 - smoothing) * (name == label) for name in range(len(NAMES))]
                class_weights = [1.0] * len(NAMES) if weights is None or not trains else weights.tolist()
                for target, weight, logit in zip(targets, class_weights, logits, strict=True):
                    total += target * weight * (np.log(np.exp(logits).sum()) - logit)
                norm += class_weights[label]
    assert [float(loss), float(loss_weight)] == pytest.approx([total, norm], rel=1e-5)


@pytest.mark.parametrize("weights", [None, np.array([0.2, 1.5, 0.8, 2.0, 0.5], dtype=np.float32)])
def test_unseen_labels_count_in_the_scores_and_not_in_the_loss(
    tmp_path: Path, tiny_bert: Path, tokenizer: PreTrainedTokenizerFast, weights: np.ndarray | None
) -> None:
    unseen = ("B-ART", "I-ART")
    sentence = Sentence(ANA.words, ("B-PER", "I-PER", "B-ART", "I-ART", "B-LOC"))
    dataset = tokenize_and_align_labels([sentence, DAVI], tokenizer, [*NAMES, *unseen], max_seq_length=64)
    trainer = make_trainer(tmp_path, tiny_bert, weights, dataset, unseen)
    batch = trainer.data_collator([dataset[0], dataset[1]])
    known = {**batch, "labels": batch["labels"].masked_fill(batch["labels"] >= len(NAMES), IGNORE_INDEX)}
    assert (known["labels"] != batch["labels"]).sum() == 2
    trainer.model.eval()
    with torch.no_grad():
        assert trainer.task_loss(trainer.model, batch)[:2] == trainer.task_loss(trainer.model, known)[:2]
    metrics = trainer.evaluate()
    rows = np.asarray(trainer.predict(dataset, metric_key_prefix="again").predictions)
    gold = [list(sentence.labels), list(DAVI.labels)]
    report = classification_report(gold, sentence_labels(rows, dataset, NAMES), output_dict=True, zero_division=0)
    for entity, row in {"": report["micro avg"], "ART_": report["ART"], "PER_": report["PER"]}.items():
        names = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
        assert {name: metrics[f"eval_{entity}{name}"] for name in names} == pytest.approx(
            {name: 100 * row[column] for name, column in names.items()}
        )
    assert (metrics["eval_ART_entities"], metrics["eval_entities"]) == (1, 5)


@pytest.mark.parametrize("weights", [None, np.ones(5, dtype=np.float32)])
def test_loss_and_gradients_read_nothing_from_the_device(
    tmp_path: Path, tiny_bert: Path, tokenizer: PreTrainedTokenizerFast, weights: np.ndarray | None
) -> None:
    dataset = tokenize_and_align_labels(BOTH, tokenizer, NAMES, max_seq_length=64)
    trainer = make_trainer(tmp_path, tiny_bert, weights, dataset)
    batch = trainer.data_collator([dataset[0], dataset[1]])
    with DeviceReadCounter() as reads:
        trainer.task_loss(trainer.model, batch)[0].backward()
    assert reads.count == 0


@pytest.mark.parametrize("weights", [None, np.array([0.2, 1.5, 0.8, 2.0, 0.5], dtype=np.float32)])
def test_parts_of_a_batch_have_its_loss_and_gradients(
    tmp_path: Path, tiny_bert: Path, tokenizer: PreTrainedTokenizerFast, weights: np.ndarray | None
) -> None:
    unknown = Sentence(("em", "Recife", "e", "São", "Luís", "nasceu", "Ana"), ("O", "B-ART", "O", "O", "O", "O", "O"))
    dataset = tokenize_and_align_labels([*BOTH, unknown, ANA], tokenizer, [*NAMES, "B-ART"], max_seq_length=64)
    base = copy_without_dropout(tiny_bert, tmp_path / "base")
    torch.manual_seed(2)
    trainer = make_trainer(tmp_path, base, weights, dataset, ("B-ART",))
    batch = trainer.data_collator([dataset[index] for index in range(4)])
    length = batch["input_ids"].shape[1]
    whole, parts = train_on(trainer, batch, None), train_on(trainer, batch, 2 * length)
    assert [rows for rows, _ in parts.shapes] == [2, 2]
    assert parts.shapes[0][1] == length > parts.shapes[1][1]
    assert_same_step(parts, whole)


def test_evaluation_scores_sentences_that_were_split(
    tmp_path: Path, tiny_bert: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    dataset = tokenize_and_align_labels(BOTH, tokenizer, NAMES, max_seq_length=9)
    assert dataset.cut_sentences == 2
    trainer = make_trainer(tmp_path, tiny_bert, None, dataset)
    metrics = trainer.evaluate()
    rows = np.asarray(trainer.predict(dataset, metric_key_prefix="again").predictions)
    predicted = sentence_labels(rows, dataset, NAMES)
    expected = counted_scores([list(sentence.labels) for sentence in BOTH], predicted)
    assert {name: metrics[f"eval_{name}"] for name in expected} == pytest.approx(expected)
    assert metrics["eval_entities"] == 4
    trainer.scored_dataset = None
    assert trainer.score(EvalPrediction(predictions=rows, label_ids=rows)) == {}
