"""Recorded fusion attention, against the weights that the library returns for each window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import adapters
import numpy as np
import pytest
import torch
from adapters import Fuse, Stack
from adapters.methods.modeling import BertFusion
from support.questions import make_questions
from support.tiny_encoders import save_tiny
from transformers import AutoTokenizer, PreTrainedModel

from adapter_qa.config.options import AdapterOptions, FusionOptions, LanguageAdapterOptions, ModelOptions
from adapter_qa.data.window_dataset import WindowCollator, pair_tokenizer
from adapter_qa.data.windows import Windows, make_windows
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup
from adapter_qa.models.fusion_attention import FusionAttention, fusion_sites
from adapter_qa.models.metadata import FusionAttentionDocument
from adapter_qa.models.setup_decisions import resolve_setup

SIZES: dict[str, Any] = {"max_seq_length": 48, "doc_stride": 8}
FUSION = FusionOptions(fuse_adapters=["qa=new", "ner=new"])
A, L = AdapterOptions, LanguageAdapterOptions
SETUPS = {  # options, and labels of the adapter sites
    "Fuse": (A(), None, ["0", "1", "2", "3"]),
    "Stack of Fuse, MAD-X 2.0": (A(madx2=True), L(load_lang_adapter="new"), ["0", "1", "2"]),
    "houlsby": (
        A(adapter_config="houlsby"),
        None,
        [f"{layer} {block}" for layer in range(4) for block in ("attention", "output")],
    ),
    "houlsby without the last feed-forward block": (
        A(adapter_config="houlsby", houlsby_MHA_lastlayer=True),
        None,
        [f"{layer} {block}" for layer in range(4) for block in ("attention", "output")][:-1],
    ),
}


def randomize_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """Give the adapters and the fusion of a model large random weights."""
    torch.manual_seed(4)
    for name, weight in model.named_parameters():
        if "adapter" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.eval()
    return model


def make_model(
    base: Path, adapter: AdapterOptions, lang: LanguageAdapterOptions | None
) -> tuple[PreTrainedModel, Fuse]:
    options = ModelOptions(str(base), random_init=True)
    setup = resolve_setup("qa", read_base_config(options), adapter, lang, FUSION, random_init=True)
    assert setup is not None
    assert setup.fusion is not None
    torch.manual_seed(3)
    model = load_model(options, "qa")
    build_setup(model, setup)
    return randomize_adapters(model), setup.fusion


def make_padded_windows(base: Path, side: str = "right") -> tuple[Windows, WindowCollator]:
    """Make windows of several lengths, some of them of the same question."""
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side=side)
    long_questions = [replace(question, id=f"long{question.id}") for question in make_questions(3, 2, sentences=6)]
    questions = make_questions(4, 1, sentences=1) + long_questions
    windows = make_windows(questions, pair_tokenizer(tokenizer), **SIZES)
    assert len(windows) > len(questions)
    assert len(set(windows.lengths().tolist())) > 2
    return windows, WindowCollator(int(tokenizer.pad_token_id), side == "left")


def library_means(
    model: PreTrainedModel, fusion: Fuse, windows: Windows, context_first: bool = False
) -> dict[str, np.ndarray]:
    """Return the means of the weights that the library's forward pass returns, one window at a time, without padding.

    Question and context are found by the layout: classification token, first text, separators, second text, separator.
    """
    rows: dict[str, list[np.ndarray]] = {"question": [], "context": []}
    for index in range(len(windows)):
        window = windows[index]
        inputs = {"input_ids": torch.tensor(window.input_ids[None]).long()}
        if window.token_type_ids is not None:
            inputs["token_type_ids"] = torch.tensor(window.token_type_ids[None]).long()
        with torch.no_grad():
            by_layer = model(**inputs, output_adapter_fusion_attentions=True).adapter_fusion_attentions[fusion.name]
        # Sorted locations are in the order of the encoder: mh_adapter, output_adapter.
        sites = [by_layer[layer][location] for layer in sorted(by_layer) for location in sorted(by_layer[layer])]
        weights = np.stack([site[0] for site in sites])
        first = np.flatnonzero(window.context_mask)[0]
        end = np.flatnonzero(window.context_mask)[-1] + 1
        length, between = len(window.context_mask), len(windows.layout.between)
        question = range(end + between, length - 1) if context_first else range(1, first - between)
        rows["context"].append(weights[:, first:end])
        rows["question"].append(weights[:, list(question)])
    parts = {part: np.concatenate(weights, axis=1) for part, weights in rows.items()}
    parts["all"] = np.concatenate([parts["question"], parts["context"]], axis=1)
    return {part: weights.astype(np.float64).mean(axis=1) for part, weights in parts.items()}


def record(
    model: PreTrainedModel, fusion: Fuse, windows: Windows, collator: WindowCollator, repeated: int = 0
) -> FusionAttentionDocument:
    """Record padded batches of four windows; to the last one, `repeated` windows are added that do not count."""
    attention = FusionAttention(model, fusion, windows.layout)
    names = ("input_ids", "attention_mask", "token_type_ids")
    with attention.recording(), torch.inference_mode():
        for first in range(0, len(windows), 4):
            rows = list(range(first, min(first + 4, len(windows))))
            repetitions = list(range(repeated)) if rows[-1] == len(windows) - 1 else []
            batch = collator([windows[row] for row in rows + repetitions])
            model(**{name: batch[name] for name in names if name in batch})
            attention.add(batch, len(rows))
    return attention.document()


def assert_same_means(document: Mapping[str, Any], means: Mapping[str, Any]) -> None:
    for part in ("question", "context", "all"):
        np.testing.assert_allclose(document[part], means[part], rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.sum(document[part], axis=1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SETUPS)
def test_means_equal_those_of_the_librarys_weights(name: str, tiny_bert: Path) -> None:
    adapter, lang, sites = SETUPS[name]
    model, fusion = make_model(tiny_bert, adapter, lang)
    windows, collator = make_padded_windows(tiny_bert)
    document = record(model, fusion, windows, collator)
    assert (document["places"], document["adapters"], document["windows"]) == (sites, ["qa", "ner"], len(windows))
    assert_same_means(document, library_means(model, fusion, windows))
    assert np.ptp(document["question"]) > 0.05  # the weights differ between adapters and sites, and between the parts
    assert not np.allclose(document["question"], document["context"], atol=1e-3)


def test_a_site_that_layers_share_has_the_mean_of_their_weights(tmp_path: Path) -> None:
    """An ALBERT has one adapter site, through which every window passes once for each layer."""
    base = save_tiny("albert", tmp_path)
    model, fusion = make_model(base, A(), None)
    windows, collator = make_padded_windows(base)
    ((_, site),) = fusion_sites(model, fusion.name)
    passes: list[torch.Tensor] = []
    site.adapter_fusion_layer[fusion.name].register_forward_hook(lambda *args: passes.append(args[2][1][0]))
    context = []
    for index in range(len(windows)):
        batch = collator([windows[index]])
        passes.clear()
        with torch.no_grad():
            model(input_ids=batch["input_ids"], token_type_ids=batch["token_type_ids"])
        assert len(passes) == model.config.num_hidden_layers > 1
        assert not torch.allclose(passes[0], passes[1], atol=1e-3)
        context.append(torch.stack(passes).mean(0)[batch["context_mask"][0] == 1])
    document = record(model, fusion, windows, collator)
    assert (document["places"], document["windows"]) == (["0"], len(windows))
    np.testing.assert_allclose(document["context"], torch.cat(context).mean(0)[None], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.sum(document["all"], axis=1), 1, rtol=0, atol=1e-6)


def test_byte_level_tokenizer_with_padding_on_the_left(tiny_roberta: Path) -> None:
    model, fusion = make_model(tiny_roberta, A(), None)
    windows, collator = make_padded_windows(tiny_roberta, "left")
    assert not windows.layout.question_first
    document = record(model, fusion, windows, collator)
    means = library_means(model, fusion, windows, context_first=True)
    assert_same_means(document, means)


def test_repeated_windows_do_not_count(tiny_bert: Path) -> None:
    """With several processes, the last batch is completed with windows from the beginning."""
    model, fusion = make_model(tiny_bert, A(), None)
    windows, collator = make_padded_windows(tiny_bert)
    with_repetitions = record(model, fusion, windows, collator, repeated=2)
    without = record(model, fusion, windows, collator)
    assert with_repetitions["windows"] == without["windows"] == len(windows)
    assert_same_means(with_repetitions, without)


@pytest.mark.parametrize(
    "changes", [{"temperature": True}, {"residual_before": True}, {"value": False}, {"query": False}]
)
def test_fusions_with_the_librarys_layer(changes: dict[str, bool], tiny_bert: Path) -> None:
    options = ModelOptions(str(tiny_bert), random_init=True)
    torch.manual_seed(5)
    model: Any = load_model(options, "qa")
    adapters.init(model)
    for name in ("a", "b"):
        model.add_adapter(name, config="seq_bn")
    fusion = Fuse("a", "b")
    model.add_adapter_fusion(fusion, adapters.AdapterFusionConfig.load("dynamic", **changes))
    model.set_active_adapters(Stack(fusion))
    randomize_adapters(model)
    layers = [site.adapter_fusion_layer["a,b"] for _, site in fusion_sites(model, "a,b")]
    assert [type(layer) for layer in layers] == [BertFusion] * 4
    for layer in layers:  # each forward pass lowers the temperature, but both records need the same one
        layer.reduction = 0.0
    windows, collator = make_padded_windows(tiny_bert)
    assert_same_means(record(model, fusion, windows, collator), library_means(model, fusion, windows))


def test_an_adapter_that_is_left_out_of_a_layer_has_weight_0_there(tiny_bert: Path) -> None:
    options = ModelOptions(str(tiny_bert), random_init=True)
    torch.manual_seed(6)
    model: Any = load_model(options, "qa")
    adapters.init(model)
    model.add_adapter("a", config=adapters.AdapterConfig.load("seq_bn", leave_out=[1, 3]))
    model.add_adapter("b", config="seq_bn")
    fusion = Fuse("a", "b")
    model.add_adapter_fusion(fusion)
    model.set_active_adapters(fusion)
    randomize_adapters(model)
    windows, collator = make_padded_windows(tiny_bert)
    document = record(model, fusion, windows, collator)
    assert [row[0] == 0 for row in document["all"]] == [False, True, False, True]
    assert [document["all"][layer] for layer in (1, 3)] == [[0.0, 1.0]] * 2


def count_hooks(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_hooks_are_removed_and_nothing_is_recorded_without_a_fusion(tiny_bert: Path) -> None:
    model, fusion = make_model(tiny_bert, A(), None)
    windows, collator = make_padded_windows(tiny_bert)
    before = count_hooks(model)
    with FusionAttention(model, fusion, windows.layout).recording():
        assert count_hooks(model) == before + 4
    assert count_hooks(model) == before
    empty = FusionAttention(model, None, windows.layout)
    with empty.recording():
        assert count_hooks(model) == before
        empty.add(collator([windows[0]]), 1)
    assert empty.document() == {"adapters": [], "windows": 0, "places": [], "question": [], "context": [], "all": []}
