"""Folders of adapter-transformers 2.1.1 give the logits that it computed, before and after conversion.

Real folders are tested where they are available; `reference.legacy_saves` writes the other ones.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import adapters
import numpy as np
import pytest
import torch
from adapters import Fuse, Stack
from reference.legacy_saves import REDUCTIONS, LegacyModel
from safetensors.torch import load_file
from support.problems import problem_of, problems_of
from support.scripts import SHARED, run_script
from transformers import AutoModelForQuestionAnswering

import convert_2021_adapters
from adapter_qa.config.options import AdapterOptions, LanguageAdapterOptions, ModelOptions
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.base_config import read_base_config
from adapter_qa.models.base_model import load_model
from adapter_qa.models.build import build_setup
from adapter_qa.models.saved_adapters import read_setup
from adapter_qa.models.saved_folders import find_folder
from adapter_qa.models.setup_decisions import resolve_setup, setup_for_inference, setup_from_saved
from adapter_qa.models.setup_notes import setup_notes

# README of the real folders: another version of torch differs by 4e-5, the exact GELU by more than 1e-3.
TOLERANCE = 1e-4
LEGACY = SHARED / "legacy_2021"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# By setup: folder of the task adapters, language adapter, composition.
SETUPS = {
    "stack_mlm_qa": ("adapters-qa", "adapters-mlm", "Stack[mlm, qa]"),
    "qa": ("adapters-qa", None, "Stack[qa]"),
    "stack_mlm_fuse": ("adapters-fusion", None, "Stack[mlm, Fuse[qa_squad11pt, ner_lenerbr]]"),
    "fuse": ("adapters-fusion", "none", "Fuse[qa_squad11pt, ner_lenerbr]"),
    "houlsby_stack_mlm_qa": ("houlsby/adapters-qa", "houlsby/adapters-mlm", "Stack[mlm, qa]"),
    "houlsby_qa": ("houlsby/adapters-qa", None, "Stack[qa]"),
}


@pytest.fixture(scope="module")
def expected() -> Any:
    if not LEGACY.is_dir():
        pytest.skip("no ../shared/legacy_2021 here: the real folders are not part of the project")
    return np.load(LEGACY / "expected.npz")


def real_setup(folders: Path, name: str) -> AdapterSetup:
    task, language, block = SETUPS[name]
    config = read_base_config(ModelOptions(str(LEGACY / "base")))
    path = language if language in (None, "none") else str(folders / language)
    setup = setup_for_inference("RUN", str(folders / task), config, path)
    assert str(setup.block) == block
    return setup


def real_model(setup: AdapterSetup | None, attention: str) -> Any:
    model: Any = load_model(ModelOptions(str(LEGACY / "base"), attn_implementation=attention), "qa")
    assert model.config._attn_implementation == attention
    if setup is not None:
        build_setup(model, setup)
    return model.eval()


def outputs_of(model: Any, expected: Any, **kwargs: Any) -> Any:
    with torch.no_grad():
        return model(**{name: torch.tensor(expected[name]) for name in INPUTS}, **kwargs)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("setup", ["base", *SETUPS])
def test_logits_equal_the_recorded_ones(expected: Any, setup: str, attention: str) -> None:
    output = outputs_of(real_model(None if setup == "base" else real_setup(LEGACY, setup), attention), expected)
    for side in ("start", "end"):
        real = expected["attention_mask"] == 1
        difference = np.abs(output[f"{side}_logits"].numpy() - expected[f"{side}_logits__{setup}"])
        assert difference[real].max() < TOLERANCE


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_fusion_attention_equals_the_recorded_one(expected: Any, attention: str) -> None:
    model = real_model(real_setup(LEGACY, "stack_mlm_fuse"), attention)
    output = outputs_of(model, expected, output_adapter_fusion_attentions=True)
    weights = output.adapter_fusion_attentions["qa_squad11pt,ner_lenerbr"]
    assert sorted(weights) == [0, 1, 2]
    for layer, by_location in weights.items():
        reference = expected[f"fusion_attention__stack_mlm_fuse__layer{layer}"]
        assert np.abs(by_location["output_adapter"] - reference).max() < TOLERANCE


@pytest.fixture(scope="module")
def converted(expected: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("converted") / "new"
    assert convert_2021_adapters.main([str(LEGACY), str(target)]) == 0
    return target


@pytest.mark.parametrize("setup", SETUPS)
def test_converted_real_folders_give_bit_identical_logits(expected: Any, converted: Path, setup: str) -> None:
    old = outputs_of(real_model(real_setup(LEGACY, setup), "sdpa"), expected)
    new = outputs_of(real_model(real_setup(converted, setup), "sdpa"), expected)
    assert torch.equal(old.start_logits, new.start_logits)
    assert torch.equal(old.end_logits, new.end_logits)
    assert not list(converted.rglob("*.bin"))


# ---------------------------------------------------------------- generated folders

IDS = torch.tensor([[5, 17, 23, 9, 41, 30, 12, 8], [6, 7, 8, 9, 10, 11, 12, 13]])
TOLERANCES: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}  # the library's fusion multiplies in another order
COMPOSITION = Stack("mlm", Fuse("qa_squad", "ner_lener"))
KINDS: dict[str, dict[str, Any]] = {
    "pfeiffer, MAD-X 2.0": {},
    "pfeiffer, swish": {"activation": "swish", "leave_out": ()},
    "pfeiffer, leakyrelu, gaps": {"activation": "leakyrelu", "leave_out": (0, 2)},
    "houlsby, relu": {"kind": "double_seq_bn", "activation": "relu", "leave_out": ()},
    "houlsby, attention only in the last layer": {
        "kind": "double_seq_bn",
        "activation": "gelu",
        "leave_out": (),
        "attention_only_last_layer": True,
    },
}


@pytest.fixture(scope="module", params=["bert", "roberta"])
def base(request: pytest.FixtureRequest, tiny_bert: Path, tiny_roberta: Path) -> Path:
    return tiny_bert if request.param == "bert" else tiny_roberta


def saved_setup(base: Path, folder: Path, language: str | None = None) -> AdapterSetup:
    return setup_for_inference("RUN", str(folder), read_base_config(ModelOptions(str(base))), language)


def logits_of(base: Path, setup: AdapterSetup) -> torch.Tensor:
    model: Any = load_model(ModelOptions(str(base)), "qa")
    build_setup(model, setup)
    with torch.no_grad():
        output = model.eval()(IDS)
    return torch.stack([output.start_logits, output.end_logits])


def model_class_of(base: Path) -> str:
    return type(load_model(ModelOptions(str(base)), "qa", shapes_only=True)).__name__


def set_model_class(folder: Path, model_class: str) -> Path:
    """Change the model class that the heads in a folder record; return the folder."""
    for path in folder.rglob("head_config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_class": model_class}))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_gives_the_logits_of_the_model_that_was_saved(base: Path, tmp_path: Path, kind: str) -> None:
    old = LegacyModel(base, **KINDS[kind])
    notebook = set_model_class(old.save_notebook_run(tmp_path / "run"), model_class_of(base))
    checkpoint = set_model_class(old.save_all(tmp_path / "checkpoint"), model_class_of(base))
    old.save_fusion(checkpoint / old.fusion.name)
    script = set_model_class(old.save_all(tmp_path / "script", ("mlm", "qa_squad")), model_class_of(base))
    single = set_model_class(old.save_adapter(tmp_path / "single", "qa_squad"), model_class_of(base))
    language = str(checkpoint / "mlm")
    for folder, option, block in [
        (notebook, None, COMPOSITION),
        (notebook / "adapters-qa", "none", old.fusion),
        (checkpoint, None, COMPOSITION),
        (script, None, Stack("mlm", "qa_squad")),
        (script, "none", Stack("qa_squad")),
        (single, None, Stack("qa_squad")),
        (single, language, Stack("mlm", "qa_squad")),
    ]:
        setup = saved_setup(base, folder, option)
        assert str(setup.block) == str(block)
        assert all(
            source.attention_only_last_layer == KINDS[kind].get("attention_only_last_layer", False)
            for source in setup.adapters
        )
        torch.testing.assert_close(logits_of(base, setup), old.logits(block, IDS), **TOLERANCES)


def test_legacy_gelu_differs_from_the_current_one(tiny_bert: Path, tmp_path: Path) -> None:
    folder = LegacyModel(tiny_bert).save_adapter(tmp_path / "qa", "qa_squad")
    old = logits_of(tiny_bert, saved_setup(tiny_bert, folder))
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "adapters.1.3.0"}))
    assert (logits_of(tiny_bert, saved_setup(tiny_bert, folder)) - old).abs().max() > 1e-5


def test_every_assumption_is_noted_in_one_line(tiny_bert: Path, tmp_path: Path) -> None:
    old = LegacyModel(tiny_bert, **KINDS["houlsby, attention only in the last layer"])
    folder = old.save_all(tmp_path / "script", ("mlm", "qa_squad"))
    notes = setup_notes(saved_setup(tiny_bert, folder))
    assert notes == [
        f"{folder}: the language adapter mlm is stacked under qa_squad; the scripts for adapter-transformers 2.x "
        "unintentionally trained without it, but answered with it; --load_lang_adapter none leaves it out",
        *(
            f"{folder / name}: has no weights after the last feed-forward block; it was trained with "
            "--houlsby_MHA_lastlayer True and is used in the same way"
            for name in ("mlm", "qa_squad")
        ),
    ]
    assert len(setup_notes(saved_setup(tiny_bert, folder, "none"))) == 1
    for name in ("mlm", "qa_squad"):  # as `save_all_adapters` of today's library writes it
        path = folder / name / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "adapters.1.3.0"}))
    assert setup_notes(saved_setup(tiny_bert, folder))[0] == (
        f"{folder}: the language adapter mlm is stacked under qa_squad; --load_lang_adapter none leaves it out"
    )


def test_a_head_of_another_task_is_not_loaded(tiny_bert: Path, tmp_path: Path) -> None:
    old = LegacyModel(tiny_bert)
    folder = old.save_adapter(tmp_path / "ner", "ner_lener")
    old.save_head(folder, "BertForTokenClassification")
    setup = saved_setup(tiny_bert, folder)
    assert not setup.loads_saved_head
    assert setup.saved is not None
    assert setup.saved.head is not None
    assert (setup.saved.head.task, setup.saved.head.labels) == ("ner", ("LABEL_0", "LABEL_1"))


# ---------------------------------------------------------------- conversion


def convert(old: Path, new: Path, *words: str) -> None:
    assert convert_2021_adapters.main([str(old), str(new), *words]) == 0


def contents_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_converted_folders_give_bit_identical_logits(tiny_bert: Path, tmp_path: Path, kind: str) -> None:
    old = LegacyModel(tiny_bert, **KINDS[kind])
    old.save_notebook_run(tmp_path / "old" / "fusion")
    old.save_all(tmp_path / "old" / "script", ("mlm", "qa_squad"))
    old.save_adapter(tmp_path / "old" / "adapters-ner", "ner_lener", with_head=False)
    before = contents_of(tmp_path / "old")
    convert(tmp_path / "old", tmp_path / "new")
    assert contents_of(tmp_path / "old") == before
    for folder, block in [("fusion", COMPOSITION), ("script", Stack("mlm", "qa_squad"))]:
        setup = saved_setup(tiny_bert, tmp_path / "new" / folder)
        assert str(setup.block) == str(block)
        assert not setup_notes(setup)  # the assumptions are recorded now
        unconverted = logits_of(tiny_bert, saved_setup(tiny_bert, tmp_path / "old" / folder))
        assert torch.equal(logits_of(tiny_bert, setup), unconverted)
        torch.testing.assert_close(logits_of(tiny_bert, setup), old.logits(block, IDS), **TOLERANCES)
    assert not saved_setup(tiny_bert, tmp_path / "new" / "adapters-ner").loads_saved_head
    fusion = tmp_path / "new" / "fusion" / "adapters-qa"
    assert {str(path.relative_to(fusion)) for path in fusion.rglob("*") if path.is_file()} == {
        *(f"{name}/{file}" for name in REDUCTIONS for file in ("adapter_config.json", "adapter.safetensors")),
        "qa_squad,ner_lener/adapter_fusion_config.json",
        "qa_squad,ner_lener/model_adapter_fusion.safetensors",
        "adapter_setup.json",
        "head_config.json",
        "model_head.safetensors",
        "README.md",
    }


def test_the_library_alone_loads_a_converted_folder(tiny_bert: Path, tmp_path: Path) -> None:
    old = LegacyModel(tiny_bert)
    convert(old.save_notebook_run(tmp_path / "old"), tmp_path / "new")
    plain = AutoModelForQuestionAnswering.from_pretrained(tiny_bert)
    adapters.init(plain)
    plain.load_adapter_setup(str(tmp_path / "new" / "adapters-qa"), set_active=True, use_safetensors=True)
    with torch.no_grad():
        output = plain.eval()(IDS)
    assert torch.equal(torch.stack([output.start_logits, output.end_logits]), old.logits(COMPOSITION, IDS))


def test_a_dry_run_lists_the_folders_and_writes_nothing(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = LegacyModel(tiny_bert)
    old.save_notebook_run(tmp_path / "old" / "fusion")
    old.save_adapter(tmp_path / "old" / "adapters-mlm", "mlm", with_head=False)
    convert(tmp_path / "old", tmp_path / "new", "--dry_run")
    assert not (tmp_path / "new").exists()
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == [
        "adapters-mlm: Stack[mlm]",
        "  mlm: pfeiffer+inv, gelu_new, reduction 2, without layers [3]",
        "  head: none",
    ]
    document = json.loads(printed[-1])
    assert [(save["folder"], save["setup"], save["head"]) for save in document] == [
        ("adapters-mlm", "Stack[mlm]", None),
        ("fusion/adapters-qa", str(COMPOSITION), "BertForQuestionAnswering"),
    ]


def test_weights_tied_to_the_embeddings_are_not_converted(tiny_bert: Path, tmp_path: Path) -> None:
    old = LegacyModel(tiny_bert)
    folder = old.save_adapter(tmp_path / "old", "mlm", with_head=False)
    masked: Any = load_model(ModelOptions(str(tiny_bert)), "mlm")
    old.save_head(folder, "BertForMaskedLM")
    state = {name: weight for name, weight in masked.state_dict().items() if name.startswith("cls.")}
    assert "cls.predictions.decoder.weight" in state
    state["cls.predictions.transform.dense.bias"].fill_(0.5)
    torch.save(state, folder / "pytorch_model_head.bin")
    convert(folder, tmp_path / "new")
    assert not any("decoder" in name for name in load_file(tmp_path / "new" / "model_head.safetensors"))
    for saved in (folder, tmp_path / "new"):
        config = read_base_config(ModelOptions(str(tiny_bert)))
        again: Any = load_model(ModelOptions(str(tiny_bert)), "mlm")
        build_setup(again, setup_from_saved("--load_adapter", str(saved), "mlm", config))
        assert again.cls.predictions.transform.dense.bias.unique().tolist() == [0.5]


# ---------------------------------------------------------------- refusals


def test_a_model_saved_together_with_its_adapters_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    document = json.loads((folder / "config.json").read_text())
    empty = document | {"adapters": {"adapters": {}, "config_map": {}}}
    (folder / "config.json").write_text(json.dumps(empty))  # in every config.json of adapter-transformers 2.x
    read_base_config(ModelOptions(str(folder)))
    full = document | {"adapters": {"adapters": {"qa": "pfeiffer"}, "config_map": {}}}
    (folder / "config.json").write_text(json.dumps(full))
    assert problem_of(find_folder, "--load_adapter", str(folder)) == (
        f"--load_adapter {folder}: is a model saved together with its adapters, which cannot be loaded from it; give "
        "a folder that save_adapter, save_adapter_fusion and save_head wrote in the program that trained them"
    )
    assert "would get random values; give the plain base model" in problem_of(
        read_base_config, ModelOptions(str(folder))
    )


def test_a_fusion_without_one_of_its_adapters_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    old = LegacyModel(tiny_bert)
    folder = old.save_all(old.save_fusion(tmp_path / "a"), ("mlm", "qa_squad"))
    assert problem_of(saved_setup, tiny_bert, folder) == (
        f"{folder}: is incomplete: its fusion joins qa_squad, ner_lener, but ner_lener is missing"
    )


def test_several_task_adapters_without_a_fusion_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = LegacyModel(tiny_bert).save_all(tmp_path / "a")
    assert problem_of(saved_setup, tiny_bert, folder) == (
        f"{folder}: it is unclear which of its adapters belong together; give one of "
        f"{folder / 'mlm'}, {folder / 'ner_lener'}, {folder / 'qa_squad'}"
    )


def test_an_encoder_with_another_number_of_layers_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = LegacyModel(tiny_bert, leave_out=()).save_adapter(tmp_path / "a", "qa_squad")
    config = read_base_config(ModelOptions(str(tiny_bert)))
    assert problem_of(setup_from_saved, "RUN", str(folder), "qa", config | {"num_hidden_layers": 3}) == (
        f"{folder}: has weights for 4 layers, the base model has 3"
    )
    problem = problem_of(setup_from_saved, "RUN", str(folder), "qa", config | {"num_hidden_layers": 6})
    assert problem.startswith(f"{folder}: weights are missing for layer 4 (output_adapter), layer 5 (output_adapter); ")


class Harmful:
    """Writes a file when it is unpickled without care."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("damage", ["pickle", "truncated", "empty", "list"])
def test_damaged_and_harmful_weight_files_are_refused(tiny_bert: Path, tmp_path: Path, damage: str) -> None:
    folder = LegacyModel(tiny_bert).save_adapter(tmp_path / "a", "qa_squad")
    path = folder / "pytorch_adapter.bin"
    if damage == "pickle":
        torch.save({"bert.x": Harmful(tmp_path / "written")}, path)
    elif damage == "list":
        torch.save([torch.zeros(2)], path)
    else:
        path.write_bytes(path.read_bytes()[: 700 if damage == "truncated" else 0])
    problem = problem_of(saved_setup, tiny_bert, folder)
    assert problem.startswith(f"{path}: ")
    assert "damaged" in problem
    assert not (tmp_path / "written").exists()


def test_options_that_contradict_a_saved_adapter_name_both_values(tiny_bert: Path, tmp_path: Path) -> None:
    old = LegacyModel(tiny_bert)
    qa = old.save_adapter(tmp_path / "qa", "qa_squad")
    mlm = old.save_adapter(tmp_path / "mlm", "mlm")
    config = read_base_config(ModelOptions(str(tiny_bert)))
    consistent = (
        AdapterOptions(load_adapter=str(qa), adapter_non_linearity="gelu", adapter_reduction_factor=16),
        LanguageAdapterOptions(str(mlm), str(mlm / "adapter_config.json"), "gelu", 2),
    )
    assert str(resolve_setup("qa", config, *consistent).block) == "Stack[mlm, qa_squad]"  # type: ignore[union-attr]
    contradictory = (
        AdapterOptions(load_adapter=str(qa), adapter_non_linearity="relu", adapter_reduction_factor=8),
        LanguageAdapterOptions(str(mlm), str(qa / "adapter_config.json")),
    )
    problems = problems_of(resolve_setup, "qa", config, *contradictory)
    assert [problem.removesuffix("; leave the option out") for problem in problems] == [
        f"--adapter_* options ask for reduction_factor 8, but {qa} was trained with 16",
        f"--adapter_* options ask for non_linearity relu, but {qa} was trained with gelu_new",
        f"--lang_adapter_* options ask for inv_adapter None, but {mlm} was trained with nice",
        f"--lang_adapter_* options ask for reduction_factor 16, but {mlm} was trained with 2",
    ]


def test_a_trained_adapter_keeps_its_module_in_the_last_layer(tiny_bert: Path, tmp_path: Path) -> None:
    config = read_base_config(ModelOptions(str(tiny_bert)))
    old = LegacyModel(tiny_bert, **KINDS["houlsby, relu"])
    folder = old.save_adapter(tmp_path / "qa", "qa_squad")
    options = AdapterOptions(load_adapter=str(folder), houlsby_MHA_lastlayer=True)
    assert problem_of(resolve_setup, "qa", config, options) == (
        f"--houlsby_MHA_lastlayer: {folder} was trained with an adapter after the last feed-forward block; "
        "leave the option out"
    )


def test_adapters_that_cannot_be_fused_are_refused_for_inference(tiny_bert: Path, tmp_path: Path) -> None:
    folder = LegacyModel(tiny_bert).save_notebook_run(tmp_path / "run") / "adapters-qa"
    shutil.rmtree(folder / "mlm")
    LegacyModel(tiny_bert, leave_out=()).save_adapter(folder / "mlm", "mlm")
    assert problem_of(saved_setup, tiny_bert, folder).startswith(
        "layer 3 (output_adapter): mlm has a module there, but ner_lener, the last adapter in the fusion, has none; "
    )


def test_conversion_refuses_wrong_folders(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    main = convert_2021_adapters.main
    problem = problem_of(main, [str(tmp_path / "none"), str(tmp_path / "new")])
    assert problem == f"OLD {tmp_path / 'none'}: no such folder"
    problem = problem_of(main, [str(tmp_path / "empty"), str(tmp_path / "empty")])
    assert problem == f"NEW {tmp_path / 'empty'}: exists already; give the name of a new folder"
    problem = problem_of(main, [str(tmp_path / "empty"), str(tmp_path / "new")])
    assert problem == (
        f"{tmp_path / 'empty'}: holds no adapters of adapter-transformers 2.x "
        "(an adapter_config.json without a version)"
    )
    LegacyModel(tiny_bert).save_all(tmp_path / "mixed")
    assert "unclear which of its adapters belong together" in problem_of(
        main, [str(tmp_path / "mixed"), str(tmp_path / "new")]
    )
    assert not list(tmp_path.glob("new*"))


# ---------------------------------------------------------------- from the command line


def test_legacy_adapters_can_be_fused_and_trained(
    tiny_bert: Path, tmp_path: Path, squad_files: tuple[Path, Path]
) -> None:
    folder = LegacyModel(tiny_bert).save_all(tmp_path / "old")
    result = run_script(
        "run_qa_adapter.py", "--model_name_or_path", tiny_bert, "--do_train", "--do_eval",
        "--train_file", squad_files[0], "--validation_file", squad_files[1], "--max_seq_length", "64",
        "--doc_stride", "16", "--num_train_epochs", "1", "--load_lang_adapter", folder / "mlm",
        "--fuse_adapters", f"qa={folder / 'qa_squad'}", f"ner={folder / 'ner_lener'}", "--output_dir", "fused",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads((tmp_path / "fused" / "run.json").read_text())["setup"] == "Stack[mlm, Fuse[qa, ner]]"
    saved = read_setup(tmp_path / "fused" / "adapters-fusion")
    old = torch.load(folder / "qa_squad" / "pytorch_adapter.bin", weights_only=True)
    new = load_file(saved.adapters["qa"] / "adapter.safetensors")
    assert new.keys() == {name.replace("adapters.qa_squad.", "adapters.qa.") for name in old}
    assert all(torch.equal(new[name.replace("adapters.qa_squad.", "adapters.qa.")], old[name]) for name in old)
    document = json.loads((saved.adapters["qa"] / "adapter_config.json").read_text())
    assert document["config"]["non_linearity"] == "gelu_new"


def test_a_legacy_fusion_answers_questions(tiny_bert: Path, tmp_path: Path) -> None:
    folder = LegacyModel(tiny_bert).save_notebook_run(tmp_path / "run")
    ask: list[Any] = [
        "ask_qa.py",
        folder,
        "--question",
        "Onde nasceu Ana?",
        "--context",
        "Ana nasceu em Recife.",
        "--json",
    ]
    without_base = run_script(*ask)
    assert without_base.returncode == 2
    assert without_base.stderr == (
        f"error: {folder / 'adapters-qa'}: does not name the base model of its adapters; give --model_name_or_path\n"
    )
    result = run_script(*ask, "--model_name_or_path", tiny_bert)
    assert result.returncode == 0, result.stderr[-3000:]
    answer = json.loads(result.stdout)
    assert answer["context"][answer["start"] : answer["end"]] == answer["answer"]
    assert result.stderr.count("note: ") == 1
    convert(folder, tmp_path / "new", "--model_name_or_path", str(tiny_bert))
    again = run_script("ask_qa.py", tmp_path / "new", *ask[2:])  # the base model is recorded
    assert again.returncode == 0
    assert again.stdout == result.stdout
