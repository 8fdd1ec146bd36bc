"""Masked language modelling (adapter_qa/training/mlm.py): text to blocks, the shares of BERT's masking, the trainer."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import run_mlm_adapter
from adapter_qa.config.options import AdapterOptions, MLMTrainingOptions, ModelOptions
from adapter_qa.core.errors import UserError
from adapter_qa.data.labels import IGNORED
from adapter_qa.data.masked_lm import Blocks, make_blocks, mask_tokens, masked_once
from adapter_qa.data.text import read_texts
from adapter_qa.models.adapter_setup import resolve_setup
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model, load_tokenizer
from adapter_qa.models.build import build_setup
from adapter_qa.training.mlm import MLMTrainer
from adapter_qa.training.training_args import resolve_training_args

TEXTS = ["Ana nasceu em Recife.", "Bruno é pintor.", "Carla nasceu em São Luís e é juíza."]


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(ModelOptions(str(tiny_bert)))


@pytest.fixture(scope="module")
def roberta(tiny_roberta: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(ModelOptions(str(tiny_roberta)))


@pytest.fixture(params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return request.getfixturevalue(request.param)


# ---------------------------------------------------------------- reading


def flat(context: str, number: int, **answers: Any) -> dict[str, Any]:
    return {"id": str(number), "question": "Onde?", "context": context, **answers}


NESTED = {
    "data": [
        {"title": "t", "paragraphs": [{"context": text, "qas": [{"id": f"{text}{n}", "question": "?"} for n in "ab"]}]}
        for text in TEXTS
    ]
}
TWICE = [flat(text, number) for number, text in enumerate([*TEXTS, TEXTS[1], TEXTS[0]])]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\n".join(TEXTS)),
        ("a.txt", "\ufeff\n\n " + " \r\n \r\n".join(TEXTS) + "\n"),
        ("a.json", json.dumps(NESTED, ensure_ascii=False)),
        ("a.json", json.dumps({"data": TWICE})),
        ("a.jsonl", "\n".join(json.dumps(one) for one in TWICE)),
        ("a.csv", "id,question,context\n" + "".join(f'{one["id"]},Onde?,"{one["context"]}"\n' for one in TWICE)),
        ("a.conll", "\n\n".join("\n".join(f"{word} O" for word in text.split()) for text in TEXTS)),
        ("a.conll", "\n\n".join("\n".join(text.split()) for text in TEXTS)),
    ],
)
def test_every_kind_of_file_gives_its_texts_once(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8"))
    assert read_texts(tmp_path / name) == read_texts(str(tmp_path / name)) == TEXTS


def test_a_repeated_line_of_text_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Fim.\nAna.\nFim.\n")
    assert read_texts(tmp_path / "a.txt") == ["Fim.", "Ana.", "Fim."]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.pdf", b"x", "{}: .pdf ending; text comes as .txt, .json, .jsonl, .csv, .conll"),
        ("text", b"x", "{}: no ending; text comes as .txt, .json, .jsonl, .csv, .conll"),
        ("a.txt", b"\n \n", "{}: the file is empty"),
        ("a.txt", b"S\xe3o Lu\xeds", "{}: not UTF-8 at byte 1: save the file as UTF-8"),
        ("a.txt", None, "{}: cannot be read: No such file or directory"),
        ("a.json", b"{", "{}"),
        ("a.conll", b"Ana PER\n", "{}, line 1: Ana has label PER; labels are O, B-TYPE or I-TYPE"),
    ],
)
def test_refused_texts(tmp_path: Path, name: str, content: bytes | None, problem: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_texts(path)
    (found,) = caught.value.problems
    assert found.startswith(problem.format(path)) and "\n" not in found


def test_real_contexts_are_unique(shared_data: Path) -> None:
    document = json.loads((shared_data / "faquad_train.json").read_text(encoding="utf-8"))
    contexts = {paragraph["context"] for article in document["data"] for paragraph in article["paragraphs"]}
    texts = read_texts(shared_data / "faquad_train.json")
    assert len(texts) == len(contexts) > 10 and set(texts) == contexts


# ---------------------------------------------------------------- blocks


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(alphabet="Anaçéx 日.", min_size=1, max_size=30), min_size=1, max_size=12),
    size=st.integers(4, 12),
    kind=st.sampled_from(["bert", "roberta"]),
)
def test_blocks_keep_all_tokens_but_the_rest(
    bert: PreTrainedTokenizerFast, roberta: PreTrainedTokenizerFast, texts: list[str], size: int, kind: str
) -> None:
    tokenizer = bert if kind == "bert" else roberta
    stream: list[int] = []
    for text in texts:
        stream += [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]
    room = size - 2
    if len(stream) < room:
        with pytest.raises(UserError, match=rf"the text has {len(stream)} tokens, not enough .* --block_size {size}$"):
            make_blocks(texts, tokenizer, size)
        return
    blocks = make_blocks(texts, tokenizer, size)
    assert blocks.dtype == np.int64 and blocks.shape == (len(stream) // room, size)
    assert (blocks[:, 0] == tokenizer.cls_token_id).all() and (blocks[:, -1] == tokenizer.sep_token_id).all()
    assert blocks[:, 1:-1].flatten().tolist() == stream[: len(stream) // room * room]


def test_many_texts_are_one_stream(bert: PreTrainedTokenizerFast) -> None:
    texts = [f"Ana nasceu em Recife {number}." for number in range(1001)]  # one more than are tokenized at once
    stream = [token for text in texts for token in [*bert(text)["input_ids"][1:]]]
    blocks = make_blocks(texts, bert, 10)
    assert blocks[:, 1:-1].flatten().tolist() == stream[: len(stream) // 8 * 8]


# ---------------------------------------------------------------- masking


def many_tokens(tokenizer: PreTrainedTokenizerFast, rows: int = 4000) -> torch.Tensor:
    """(rows, 128) ids: special tokens at both ends and one unknown word, other words anywhere else."""
    ids = torch.randint(0, len(tokenizer), (rows, 128), generator=torch.Generator().manual_seed(1))
    ids[torch.isin(ids, torch.tensor(tokenizer.all_special_ids))] = len(tokenizer) - 1
    ids[:, 0], ids[:, -1], ids[:, 64] = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id
    ids[::2, 100:] = tokenizer.pad_token_id
    return ids


def near(count: int, total: int, share: float) -> bool:
    """Within five standard deviations of a binomial count."""
    return abs(count - total * share) < 5 * math.sqrt(total * share * (1 - share))


@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_shares_of_masking(tokenizer: PreTrainedTokenizerFast, probability: float) -> None:
    ids = many_tokens(tokenizer)
    before = ids.clone()
    masked, labels = mask_tokens(ids, tokenizer, probability, torch.Generator().manual_seed(3))
    assert torch.equal(ids, before) and masked.dtype == labels.dtype == torch.int64
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = labels != IGNORED
    assert not (chosen & special).any()
    assert torch.equal(masked[~chosen], ids[~chosen]) and torch.equal(labels[chosen], ids[chosen])

    tokens, size = int(chosen.sum()), len(tokenizer)
    assert near(tokens, int((~special).sum()), probability)
    hidden = int((masked[chosen] == tokenizer.mask_token_id).sum())
    kept = int((masked[chosen] == ids[chosen]).sum())
    assert near(hidden, tokens, 0.8 + 0.1 / size)  # a random word may be the mask, or the word itself
    assert near(kept, tokens, 0.1 + 0.1 / size)
    replaced = masked[chosen & (masked != tokenizer.mask_token_id) & (masked != ids)]
    assert near(len(replaced), tokens, 0.1 - 0.2 / size)
    assert near(int((replaced < size // 2).sum()), len(replaced), 0.5)
    assert int(replaced.min()) < 8 and size - 8 <= int(replaced.max()) < size


def test_every_place_is_as_likely(bert: PreTrainedTokenizerFast) -> None:
    ids = torch.full((300, 128), 100)
    masked, labels = mask_tokens(ids, bert, 0.5, torch.Generator().manual_seed(5))
    columns = (labels != IGNORED).sum(0)
    assert all(near(int(count), 300, 0.5) for count in columns)
    assert near(int((masked == bert.mask_token_id).sum()), int(columns.sum()), 0.8 + 0.1 / len(bert))


def test_masks_are_new_on_each_call_and_follow_the_seed(bert: PreTrainedTokenizerFast) -> None:
    ids = many_tokens(bert, 8)
    torch.manual_seed(0)
    first, second = mask_tokens(ids, bert, 0.15), mask_tokens(ids, bert, 0.15)
    torch.manual_seed(0)
    again = mask_tokens(ids, bert, 0.15)
    assert not torch.equal(first[1], second[1])
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_evaluation_is_masked_once(bert: PreTrainedTokenizerFast) -> None:
    ids = many_tokens(bert, 8).numpy()
    state = torch.get_rng_state()
    one, same, other = (masked_once(ids, bert, 0.15, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)  # the training's own randomness is left alone
    assert one.labels is not None and same.labels is not None and other.labels is not None
    assert np.array_equal(one.ids, same.ids) and np.array_equal(one.labels, same.labels)
    assert not np.array_equal(one.labels, other.labels)
    assert len(one) == 8 and {name: array.shape for name, array in one[3].items()} == {
        "input_ids": (128,),
        "labels": (128,),
    }
    assert np.array_equal(one[3]["labels"], one.labels[3]) and list(Blocks(ids)[3]) == ["input_ids"]


# ---------------------------------------------------------------- training


@pytest.fixture
def trainer(tmp_path: Path, tiny_bert: Path, bert: PreTrainedTokenizerFast) -> MLMTrainer:
    options = ModelOptions(str(tiny_bert))
    model = load_model(options, "mlm")
    setup = resolve_setup("mlm", read_base_config(options), AdapterOptions(madx2=True))
    assert setup is not None
    build_setup(model, setup)
    asked = MLMTrainingOptions(
        output_dir=str(tmp_path),
        report_to=[],
        do_train=True,
        do_eval=True,
        max_steps=1,
        eval_strategy="no",
        save_strategy="no",
        per_device_train_batch_size=4,
        learning_rate=0.01,
        use_cpu=True,
        disable_tqdm=True,
    )
    run = resolve_training_args(asked)
    run.prediction_loss_only = True
    run.label_names = ["labels"]
    blocks = make_blocks(TEXTS * 12, bert, 32)
    return MLMTrainer(
        model=model,
        setup=setup,
        tokenizer=bert,
        mlm_probability=0.3,
        args=run,
        train_dataset=Blocks(blocks[:-4]),
        eval_dataset=masked_once(blocks[-4:], bert, 0.3, 1),
    )


def test_one_step_moves_the_adapter_and_nothing_else(trainer: MLMTrainer) -> None:
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])}
    trained = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert trainer.state.global_step == 1 and moved <= trained
    adapter = {name for name in trained if "adapters.mlm." in name}
    assert {name for name in adapter if name.endswith("adapter_up.weight")} <= moved
    assert any("invertible_adapters.mlm." in name for name in moved)
    assert not any(name.startswith("bert.embeddings.") and "adapter" not in name for name in trained)


def test_training_blocks_are_masked_anew_in_every_use(trainer: MLMTrainer) -> None:
    trainer.model.eval()
    assert isinstance(trainer.train_dataset, Blocks)
    batch = {"input_ids": torch.from_numpy(trainer.train_dataset.ids[:4])}
    before = batch["input_ids"].clone()
    with torch.no_grad():
        losses = [float(trainer.task_loss(trainer.model, batch)[0]) for _ in range(3)]
    assert torch.equal(batch["input_ids"], before) and list(batch) == ["input_ids"]
    assert len(set(losses)) == 3


@pytest.mark.parametrize("inference", [False, True])
def test_loss_and_gradients_are_those_of_a_whole_vocabulary_for_every_token(
    trainer: MLMTrainer, inference: bool
) -> None:
    model, dataset = trainer.model.double().eval(), trainer.eval_dataset
    assert isinstance(dataset, Blocks) and dataset.labels is not None
    ids, labels = torch.from_numpy(dataset.ids), torch.from_numpy(dataset.labels)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    logits = model(input_ids=ids).logits
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
    with torch.inference_mode(inference):
        total, weight, outputs = trainer.task_loss(model, {"input_ids": ids, "labels": labels})
    chosen = labels != IGNORED
    assert outputs.logits.shape == (chosen.sum(), logits.shape[-1]) and float(weight) == chosen.sum()
    torch.testing.assert_close(outputs.logits, logits[chosen], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(total, plain, rtol=1e-6, atol=1e-6)
    if not inference:
        found, expected = (torch.autograd.grad(loss, weights) for loss in (total, plain))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert model(input_ids=ids).logits.shape == logits.shape, "outside of a loss the model gives all of them"


def test_evaluation_is_repeatable_and_reports_perplexity(trainer: MLMTrainer) -> None:
    first, second = trainer.evaluate(), trainer.evaluate()
    assert first["eval_loss"] == second["eval_loss"]
    assert first["eval_perplexity"] == math.exp(first["eval_loss"])
    dataset = trainer.eval_dataset
    assert isinstance(dataset, Blocks) and dataset.labels is not None
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.from_numpy(dataset.ids)).logits.double().numpy()
    chosen = dataset.labels != IGNORED
    right = np.take_along_axis(logits[chosen], dataset.labels[chosen][:, None], axis=1)[:, 0]
    expected = np.mean(np.log(np.exp(logits[chosen]).sum(-1)) - right)
    assert first["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_perplexity_of_a_training_gone_astray_is_a_number(trainer: MLMTrainer) -> None:
    with torch.no_grad():
        for weight in trainer.model.get_output_embeddings().parameters():
            weight.mul_(1e6)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] > 1000 and 1e308 < metrics["eval_perplexity"] < math.inf


def test_an_evaluation_in_which_chance_masks_nothing(trainer: MLMTrainer) -> None:
    dataset = trainer.eval_dataset
    assert isinstance(dataset, Blocks) and dataset.labels is not None
    trainer.eval_dataset = Blocks(dataset.ids, np.full_like(dataset.labels, IGNORED))
    metrics = trainer.evaluate()
    assert (metrics["eval_loss"], metrics["eval_perplexity"]) == (0.0, 1.0)


@pytest.mark.slow
def test_compiled_training_has_the_same_losses_and_no_breaks(tiny_bert: Path, tmp_path: Path) -> None:
    base, text = tmp_path / "base", tmp_path / "text.txt"
    shutil.copytree(tiny_bert, base)
    config = json.loads((base / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # a compiled dropout draws others
    (base / "config.json").write_text(json.dumps(config))
    text.write_text("\n".join(f"Ana nasceu em Recife e é médica número {number}." for number in range(200)))
    losses = {}
    for name in ("plain", "compiled"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        words = [
            "--model_name_or_path", str(base), "--train_file", str(text), "--do_train", "--do_eval",
            "--block_size", "32", "--num_train_epochs", "2", "--logging_steps", "5", "--report_to", "none",
            "--disable_tqdm", "True",
            "--torch_compile", str(name == "compiled"), "--output_dir", str(tmp_path / name),
        ]  # fmt: skip
        assert run_mlm_adapter.main(words) == 0
        run = json.loads((tmp_path / name / "run.json").read_text())
        losses[name] = [entry["loss"] for entry in run["losses"]] + [entry["eval_loss"] for entry in run["history"]]
    assert losses["compiled"] == pytest.approx(losses["plain"], abs=2e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert not torch._dynamo.utils.counters["graph_break"]
