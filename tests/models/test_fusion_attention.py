"""Fusion attention (adapter_qa/models/fusion_attention.py) against the weights that the library hands out, window by window."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from adapters import Fuse, Stack
from adapters.methods.modeling import BertFusion
from support.questions import make_questions
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoTokenizer, PreTrainedModel

import run_qa_adapter
from adapter_qa.config.options import AdapterOptions, FusionOptions, LanguageAdapterOptions, ModelOptions
from adapter_qa.data.window_dataset import WindowCollator
from adapter_qa.data.windows import Windows, make_windows
from adapter_qa.models.adapter_setup import resolve_setup
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup
from adapter_qa.models.fusion_attention import FusionAttention, fusion_places, show_attention

SIZES = {"max_seq_length": 48, "doc_stride": 8}
TWO = FusionOptions(fuse_adapters=["qa=new", "ner=new"])
A, L = AdapterOptions, LanguageAdapterOptions
SETUPS = {
    "Fuse": (A(), None, ["0", "1", "2", "3"]),
    "Stack of Fuse, MAD-X 2.0": (A(madx2=True), L(load_lang_adapter="new"), ["0", "1", "2"]),
    "houlsby": (
        A(adapter_config="houlsby"),
        None,
        [f"{layer} {block}" for layer in range(4) for block in ("attention", "output")],
    ),
    "houlsby with the last-layer trick": (
        A(adapter_config="houlsby", houlsby_MHA_lastlayer=True),
        None,
        [f"{layer} {block}" for layer in range(4) for block in ("attention", "output")][:-1],
    ),
}


def shaken(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with adapters and fusion that differ and disagree."""
    torch.manual_seed(4)
    for name, weight in model.named_parameters():
        if "adapter" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def bundle(base: Path, adapter: AdapterOptions, lang: LanguageAdapterOptions | None) -> tuple[PreTrainedModel, Fuse]:
    options = ModelOptions(str(base), random_init=True)
    setup = resolve_setup("qa", read_base_config(options), adapter, lang, TWO, random_init=True)
    assert setup is not None and setup.fusion is not None
    torch.manual_seed(3)
    model = load_model(options, "qa")
    build_setup(model, setup)
    return shaken(model), setup.fusion


def windows_of(base: Path, side: str = "right") -> tuple[Windows, WindowCollator]:
    """Windows of several lengths; some questions have several."""
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side=side)
    questions = make_questions(4, 1, sentences=1) + [
        type(one)(f"long{one.id}", one.question, one.context, (), ()) for one in make_questions(3, 2, sentences=6)
    ]
    windows = make_windows(questions, tokenizer, **SIZES)
    assert len(windows) > len(questions) and len(set(windows.lengths().tolist())) > 2
    return windows, WindowCollator(int(tokenizer.pad_token_id), side == "left")


def means_of_the_library(
    model: PreTrainedModel, fusion: Fuse, windows: Windows, left: bool = False
) -> dict[str, list[np.ndarray]]:
    """Means over all windows, each alone and without padding, of what the library's forward pass returns.

    Tokens are told apart here by the layout: classification token, first text, separators, second text, separator.
    """
    rows: dict[str, list[Any]] = {"question": [], "context": []}
    for index in range(len(windows)):
        one = windows[index]
        inputs = {"input_ids": torch.tensor(one["input_ids"][None]).long()}
        if one["type_ids"] is not None:
            inputs["token_type_ids"] = torch.tensor(one["type_ids"][None]).long()
        with torch.no_grad():
            found = model(**inputs, output_adapter_fusion_attentions=True).adapter_fusion_attentions[fusion.name]
        places = [found[layer][where] for layer in sorted(found) for where in sorted(found[layer])]
        weights = np.stack([place[0] for place in places])  # mh_adapter before output_adapter, as in the encoder
        first = np.flatnonzero(one["in_context"])[0]
        past = np.flatnonzero(one["in_context"])[-1] + 1
        length, between = len(one["in_context"]), len(windows.layout.between)
        asked = range(past + between, length - 1) if left else range(1, first - between)
        rows["context"].append(weights[:, first:past])
        rows["question"].append(weights[:, list(asked)])
    means = {part: np.concatenate(found, axis=1) for part, found in rows.items()}
    means["all"] = np.concatenate([means["question"], means["context"]], axis=1)
    return {part: found.astype(np.float64).mean(axis=1) for part, found in means.items()}


def recorded(
    model: PreTrainedModel, fusion: Fuse, windows: Windows, collator: WindowCollator, repeated: int = 0
) -> dict[str, Any]:
    """The document over all windows in padded batches of four, the last one filled up with `repeated` other windows."""
    attention = FusionAttention(model, fusion, windows.layout)
    names = ("input_ids", "attention_mask", "token_type_ids")
    with attention.recording(), torch.inference_mode():
        for first in range(0, len(windows), 4):
            rows = list(range(first, min(first + 4, len(windows))))
            more = list(range(repeated)) if rows[-1] == len(windows) - 1 else []
            batch = collator([windows[row] for row in rows + more])
            model(**{name: batch[name] for name in names if name in batch})
            attention.add(batch, len(rows))
    return attention.document()


def assert_same(document: dict[str, Any], means: dict[str, Any]) -> None:
    for part in ("question", "context", "all"):
        np.testing.assert_allclose(document[part], means[part], rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.sum(document[part], axis=1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SETUPS)
def test_means_are_those_of_the_librarys_weights(name: str, tiny_bert: Path) -> None:
    adapter, lang, places = SETUPS[name]
    model, fusion = bundle(tiny_bert, adapter, lang)
    windows, collator = windows_of(tiny_bert)
    document = recorded(model, fusion, windows, collator)
    assert (document["places"], document["adapters"], document["windows"]) == (places, ["qa", "ner"], len(windows))
    assert_same(document, means_of_the_library(model, fusion, windows))
    assert np.ptp(document["question"]) > 0.05  # weights that say something, and differ between the parts
    assert not np.allclose(document["question"], document["context"], atol=1e-3)


def test_byte_level_tokenizer_and_padding_on_the_left(tiny_roberta: Path) -> None:
    model, fusion = bundle(tiny_roberta, A(), None)
    windows, collator = windows_of(tiny_roberta, "left")
    assert not windows.layout.question_first
    document = recorded(model, fusion, windows, collator)
    means = means_of_the_library(model, fusion, windows, left=True)
    assert_same(document, means)


def test_repeated_windows_do_not_count(tiny_bert: Path) -> None:
    """Several processes fill up their last batch with windows from the beginning."""
    model, fusion = bundle(tiny_bert, A(), None)
    windows, collator = windows_of(tiny_bert)
    filled = recorded(model, fusion, windows, collator, repeated=2)
    plain = recorded(model, fusion, windows, collator)
    assert filled["windows"] == plain["windows"] == len(windows)
    assert_same(filled, plain)


@pytest.mark.parametrize(
    "changed", [{"temperature": True}, {"residual_before": True}, {"value": False}, {"query": False}]
)
def test_kinds_of_fusion_that_stay_the_librarys(changed: dict[str, bool], tiny_bert: Path) -> None:
    import adapters

    options = ModelOptions(str(tiny_bert), random_init=True)
    torch.manual_seed(5)
    model: Any = load_model(options, "qa")
    adapters.init(model)
    for name in ("a", "b"):
        model.add_adapter(name, config="seq_bn")
    fusion = Fuse("a", "b")
    model.add_adapter_fusion(fusion, adapters.AdapterFusionConfig.load("dynamic", **changed))
    model.set_active_adapters(Stack(fusion))
    shaken(model)
    layers = [place.adapter_fusion_layer["a,b"] for _, place in fusion_places(model, "a,b")]
    assert len(layers) == 4 and all(isinstance(layer, BertFusion) for layer in layers)
    for layer in layers:  # each pass lowers the temperature, so that two ways of asking would see two
        layer.reduction = 0.0
    windows, collator = windows_of(tiny_bert)
    assert_same(recorded(model, fusion, windows, collator), means_of_the_library(model, fusion, windows))


def test_an_adapter_that_does_not_stand_there_has_no_weight(tiny_bert: Path) -> None:
    options = ModelOptions(str(tiny_bert), random_init=True)
    import adapters

    torch.manual_seed(6)
    model: Any = load_model(options, "qa")
    adapters.init(model)
    model.add_adapter("a", config=adapters.AdapterConfig.load("seq_bn", leave_out=[1, 3]))
    model.add_adapter("b", config="seq_bn")
    fusion = Fuse("a", "b")
    model.add_adapter_fusion(fusion)
    model.set_active_adapters(fusion)
    shaken(model)
    windows, collator = windows_of(tiny_bert)
    document = recorded(model, fusion, windows, collator)
    assert [row[0] == 0 for row in document["all"]] == [False, True, False, True]
    assert [document["all"][place] for place in (1, 3)] == [[0.0, 1.0]] * 2


def hooks(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_nothing_is_left_in_the_model_and_nothing_is_recorded_without_a_fusion(tiny_bert: Path) -> None:
    model, fusion = bundle(tiny_bert, A(), None)
    windows, collator = windows_of(tiny_bert)
    before = hooks(model)
    with FusionAttention(model, fusion, windows.layout).recording():
        assert hooks(model) == before + 4
    assert hooks(model) == before
    empty = FusionAttention(model, None, windows.layout)
    with empty.recording():
        assert hooks(model) == before
        empty.add(collator([windows[0]]), 1)
    assert empty.document() == {"adapters": [], "windows": 0, "places": [], "question": [], "context": [], "all": []}


# ---------------------------------------------------------------- from the command line


def test_a_run_keeps_its_fusion_attention(
    tiny_bert: Path, squad_files: tuple[Path, Path], tmp_path: Path, shown: list[str]
) -> None:
    """The file is that of the last evaluation, of the best weights; evaluating the saved run again gives the same."""
    train, dev = map(str, squad_files)
    words = ["--model_name_or_path", str(tiny_bert), "--validation_file", dev, "--do_eval", "--max_seq_length", "48"]
    words += ["--doc_stride", "8", "--disable_tqdm", "True", "--report_to", "tensorboard"]
    more = ["--random_init", "True", "--fuse_adapters", "qa=new", "ner=new", "--train_file", train, "--do_train"]
    more += ["--num_train_epochs", "2", "--learning_rate", "1e-2", "--output_dir", str(tmp_path / "run")]
    assert run_qa_adapter.main([*words, *more]) == 0
    document = json.loads((tmp_path / "run" / "fusion_attention.json").read_text(encoding="utf-8"))
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert list(document) == ["adapters", "windows", "places", "question", "context", "all"]
    assert document["windows"] == run["data"]["eval"]["windows"] and document["places"] == ["0", "1", "2", "3"]

    events = [EventAccumulator(str(path)).Reload() for path in (tmp_path / "run").rglob("events.*")]
    scalars = {tag for one in events for tag in one.Tags()["scalars"] if tag.startswith("fusion_attention/")}
    assert scalars == {f"fusion_attention/{place}/{name}" for place in range(4) for name in ("qa", "ner")}
    points = [point for one in events for point in one.Scalars("fusion_attention/2/ner")]
    points.sort(key=lambda point: point.wall_time)
    assert [point.step for point in points] == [5, 10, 10]  # after each epoch, and of the best at the end
    assert points[-1].value == pytest.approx(document["all"][2][1], abs=1e-6)
    assert shown == ["figure"]

    again = ["--load_adapter", str(tmp_path / "run"), "--output_dir", str(tmp_path / "again")]
    words[1] = str(tmp_path / "run" / "base")
    assert run_qa_adapter.main([*words, *again]) == 0
    assert_same(json.loads((tmp_path / "again" / "fusion_attention.json").read_text(encoding="utf-8")), document)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is drawn; matplotlib itself is not needed here."""
    from torch.utils.tensorboard import SummaryWriter

    drawn: list[str] = []
    plots = ModuleType("adapter_qa.reporting.figures")
    vars(plots)["attention_figure"] = lambda document: "figure"
    monkeypatch.setitem(sys.modules, "adapter_qa.reporting.figures", plots)
    monkeypatch.setattr("adapter_qa.models.fusion_attention.find_spec", lambda name: name)
    monkeypatch.setattr(SummaryWriter, "add_figure", lambda self, tag, figure, step: drawn.append(figure))
    return drawn


def test_without_matplotlib_there_are_numbers_only(
    tmp_path: Path, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    monkeypatch.setattr("adapter_qa.models.fusion_attention.find_spec", lambda name: None)
    document = {"adapters": ["a", "b"], "windows": 1, "places": ["0"], "all": [[0.25, 0.75]]}
    with SummaryWriter(str(tmp_path)) as writer:
        show_attention(writer, document, 7, drawn=True)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [events.Scalars(f"fusion_attention/0/{name}")[0].value for name in "ab"] == [0.25, 0.75]
    assert shown == []
