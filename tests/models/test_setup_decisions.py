"""Setups decided from options and saved folders (adapter_qa/models/setup_decisions.py), and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.problems import problem_of, problems_of
from support.setups import INVERTIBLE, PARALLEL, SETUPS, A, F, L, Maker, write_config

from adapter_qa.models.metadata import LanguageSwap, read_metadata
from adapter_qa.models.setup_decisions import resolve_setup, setup_for_inference, setup_from_saved
from adapter_qa.models.setup_notes import head_note, setup_notes
from adapter_qa.models.tasks import TASKS, Task


@pytest.fixture(scope="module")
def others(maker: Maker, saved: dict[str, Path]) -> dict[str, Path]:
    """Language adapters beside the saved one, which is MAD-X 2.0 in Portuguese."""
    assert saved
    return {
        "en": maker.make("mlm_en", "mlm", A(madx2=True, language="en"))[2],
        "all": maker.make("mlm_all", "mlm", A())[2],
        "no inverse": maker.make("no inverse", "mlm", A(adapter_config="pfeiffer"))[2],
    }


def option_problems(maker: Maker, *options: Any, task: Task = "qa") -> list[str]:
    return problems_of(resolve_setup, task, maker.config, *options)


@pytest.mark.parametrize("name", SETUPS)
def test_setups_have_their_composition(maker: Maker, saved: dict[str, Path], name: str) -> None:
    composition, options = SETUPS[name]
    setup = maker.setup(*options(saved))
    assert str(setup.block) == composition
    assert {source.name for source in setup.adapters} == setup.block.flatten()
    assert setup.folder_name == ("adapters-fusion" if "Fuse" in composition else f"adapters-{setup.task}")
    assert all(": was trained " in note for note in setup_notes(setup))  # on another language adapter or none


def test_full_fine_tuning_has_no_setup(maker: Maker) -> None:
    assert resolve_setup("qa", maker.config, A(), None, F(train_adapter=False)) is None


def test_a_saved_setup_is_the_setup_that_was_saved(maker: Maker, saved: dict[str, Path]) -> None:
    _, setup, folder = maker.make("saved", *SETUPS["lang+fusion"][1](saved))
    again = setup_from_saved("--load_adapter", str(folder), "qa", maker.config)
    assert str(again.block) == str(setup.block)
    assert again.loads_saved_head
    assert [source.folder for source in again.adapters] == [folder / name for name in ("mlm", "qa", "ner")]
    assert [source.sites(again.layers) for source in again.adapters] == [
        source.sites(setup.layers) for source in setup.adapters
    ]


def test_a_head_of_another_task_is_not_loaded(maker: Maker, saved: dict[str, Path]) -> None:
    assert not setup_from_saved("--load_adapter", str(saved["ner"]), "qa", maker.config).loads_saved_head


def test_the_word_none_leaves_out_the_language_adapter(maker: Maker, saved: dict[str, Path]) -> None:
    setup = setup_for_inference("RUN", str(saved["qa"]), maker.config, "none")
    assert str(setup.block) == "Stack[qa]"
    folder = maker.make("mlm in fusion", *SETUPS["lang in fusion"][1](saved))[2]
    assert problem_of(setup_for_inference, "RUN", str(folder), maker.config, "none") == (
        "--load_lang_adapter none: mlm is part of the saved fusion, and stays; leave it out"
    )


def test_a_saved_adapter_is_trained_further_for_its_own_task(maker: Maker, saved: dict[str, Path]) -> None:
    """A task adapter also for another task, which is noted; a language adapter for none, and nothing else as one."""
    qa, ner, mlm = (str(saved[name]) for name in ("qa", "ner", "mlm"))
    for task in ("qa", "ner"):
        assert option_problems(maker, A(load_adapter=mlm), task=task) == [
            f"--load_adapter {mlm}: is a language adapter; give it as --load_lang_adapter, which puts an adapter for "
            f"{TASKS[task].name} on it"
        ]
    assert option_problems(maker, A(load_adapter=qa), task="mlm") == [
        f"--load_adapter {qa}: would train qa, which is not a language adapter; give {saved['qa'] / 'mlm'}"
    ]
    assert option_problems(maker, A(load_adapter=ner), task="mlm") == [
        f"--load_adapter {ner}: would train ner, which is not a language adapter; give the folder of a language adapter"
    ]
    assert maker.setup("mlm", A(load_adapter=mlm)).saved
    assert setup_notes(maker.setup("ner", A(load_adapter=ner))) == []
    (note,) = setup_notes(maker.setup("qa", A(load_adapter=ner)))
    assert note.startswith(f"{ner}: its head belongs to ")
    assert note.endswith("ForTokenClassification; it is left out, and a new one starts from random values")


def test_problems_of_all_saved_adapters_are_reported_together(maker: Maker) -> None:
    given = [L(load_lang_adapter="./c"), F(fuse_adapters=["a=./a", "b=./b"])]
    assert option_problems(maker, A(), *given) == [
        f"{option}: no such folder; give an adapters-<task> folder or a hub id such as org/name"
        for option in ("--fuse_adapters a ./a", "--fuse_adapters b ./b", "--load_lang_adapter ./c")
    ]


def test_option_conflicts_are_reported_together(maker: Maker) -> None:
    problems = option_problems(
        maker,
        A(load_adapter="x", adapter_non_linearity="gellu", adapter_reduction_factor=-1),
        L(load_lang_adapter="y"),
        F(train_adapter=False, fuse_adapters=["qa=a"]),
    )
    assert problems == [
        "--load_adapter requires --train_adapter True; full fine-tuning has no adapters",
        "--load_lang_adapter requires --train_adapter True; full fine-tuning has no adapters",
        "--fuse_adapters requires --train_adapter True; full fine-tuning has no adapters",
        "--fuse_adapters: 1 adapter given; a fusion needs two or more NAME=PATH",
        "--load_adapter and --fuse_adapters exclude each other; a saved fusion is loaded with --load_adapter",
        "--adapter_non_linearity gellu: no such activation; common ones are gelu, gelu_new, relu, swish, tanh",
        "--adapter_reduction_factor -1: must be a number of at least 0.0625",
    ]


def test_contradictions_of_a_loaded_adapter_name_both_values(maker: Maker, saved: dict[str, Path]) -> None:
    problems = option_problems(
        maker,
        A(load_adapter=str(saved["qa_all"]), adapter_reduction_factor=4, adapter_non_linearity="gelu"),
        L(load_lang_adapter=str(saved["mlm"]), lang_adapter_reduction_factor=8),
    )
    assert [problem.split(";")[0] for problem in problems] == [
        f"--adapter_* options ask for reduction_factor 4, but {saved['qa_all'] / 'qa'} was trained with 16",
        f"--adapter_* options ask for non_linearity gelu, but {saved['qa_all'] / 'qa'} was trained with relu",
        f"--lang_adapter_* options ask for reduction_factor 8, but {saved['mlm'] / 'mlm'} was trained with 2",
    ]


def test_a_language_adapter_for_another_language_is_refused(maker: Maker, saved: dict[str, Path]) -> None:
    assert option_problems(maker, A(language="en"), L(load_lang_adapter=str(saved["mlm"]))) == [
        "--language en: the language adapter was trained for pt"
    ]


def test_a_fusion_cannot_be_fused(maker: Maker, saved: dict[str, Path]) -> None:
    fusion = maker.make("nested", *SETUPS["fusion"][1](saved))[2]
    (problem,) = option_problems(maker, A(), None, F(fuse_adapters=[f"a={fusion}", f"b={saved['ner']}"]))
    assert "holds a fusion; give one of its adapters" in problem


def test_new_adapters_in_a_fusion_need_random_init(maker: Maker) -> None:
    assert option_problems(maker, A(), None, F(fuse_adapters=["qa=new", "ner=new"])) == [
        f"--fuse_adapters {name} new: a new adapter can replace a saved one only with --random_init True"
        for name in ("qa", "ner")
    ]


def test_adapters_of_different_kinds_cannot_be_fused(maker: Maker, saved: dict[str, Path]) -> None:
    assert option_problems(maker, A(), None, F(fuse_adapters=[f"a={saved['hqa']}", f"b={saved['ner']}"])) == [
        "adapters of different kinds cannot be fused: a houlsby, b pfeiffer; train them with one --adapter_config"
    ]


def test_the_last_adapter_of_a_fusion_needs_every_site(maker: Maker, saved: dict[str, Path]) -> None:
    assert option_problems(maker, A(), None, F(fuse_adapters=[f"a={saved['qa_all']}", f"b={saved['ner']}"])) == [
        "layer 3 (output_adapter): a has a module there, but b, the last adapter in the fusion, has none; "
        "add --madx2 True, or fuse adapters with the same layers"
    ]


def test_the_last_layer_option_needs_houlsby_adapters(maker: Maker) -> None:
    assert option_problems(maker, A(houlsby_MHA_lastlayer=True, madx2=True)) == [
        "--houlsby_MHA_lastlayer: qa is not a houlsby adapter; give --adapter_config houlsby",
        "--houlsby_MHA_lastlayer and --madx2 exclude each other: in the last layer, the first removes one of two "
        "modules, the second removes both",
    ]


# ---------------------------------------------------------------- parts without an effect


@pytest.fixture(scope="module")
def bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tiny_bert, tmp_path_factory.mktemp("without effect"))


@pytest.fixture(scope="module")
def kinds(bert: Maker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved adapters of several kinds."""
    folder = tmp_path_factory.mktemp("kinds")
    changes: dict[str, dict[str, Any]] = {
        "parallel": PARALLEL,
        "inverse": INVERTIBLE,
        "without norm": {"original_ln_before": False},
        "parallel houlsby": {**PARALLEL, "mh_adapter": True},
        "attention": {"mh_adapter": True, "output_adapter": False},
    }
    made = {
        name: bert.make(name, "qa", A(adapter_config=write_config(folder / f"{name}.json", **values)))[2]
        for name, values in changes.items()
    }
    made["houlsby"] = bert.make("houlsby", "qa", A(adapter_config="houlsby"))[2]
    made["plain"] = bert.make("plain", "ner", A())[2]
    made["mlm"] = bert.make("mlm", "mlm", A())[2]
    parallel = write_config(folder / "mlm.json", **PARALLEL)
    made["parallel mlm"] = bert.make("parallel mlm", "mlm", A(adapter_config=parallel))[2]
    return made


SEQUENTIAL = "give an adapter that is not parallel, such as pfeiffer or houlsby, or no language adapter"


@pytest.mark.parametrize("task", ["qa", "ner"])
def test_a_parallel_adapter_on_a_language_adapter_is_refused(
    bert: Maker, kinds: dict[str, Path], tmp_path: Path, task: Task
) -> None:
    new = A(adapter_config=write_config(tmp_path / "config.json", **PARALLEL))
    lang = L(load_lang_adapter=str(kinds["mlm"]))
    for adapter in (new, A(load_adapter=str(kinds["parallel"]))):
        name = task if adapter is new else "qa"
        assert problems_of(resolve_setup, task, bert.config, adapter, lang) == [
            f"Stack[mlm, {name}]: {name} is parallel, and would leave mlm without effect at layer 0 (output_adapter); "
            + SEQUENTIAL
        ]
    parallel_lang = L(load_lang_adapter=str(kinds["parallel mlm"]))
    assert problems_of(resolve_setup, task, bert.config, A(), parallel_lang) == [
        f"Stack[mlm, {task}]: mlm is parallel, and would leave the block itself without effect at layer 0 "
        "(output_adapter); " + SEQUENTIAL
    ]
    assert problems_of(setup_for_inference, "RUN", str(kinds["parallel"]), bert.config, str(kinds["mlm"]))
    stacked = bert.make(f"stacked {task}", task, A(), lang)[2]
    swapped = A(load_adapter=str(stacked))
    assert problems_of(resolve_setup, task, bert.config, swapped, parallel_lang) == [
        f"Stack[mlm, {task}]: mlm is parallel, and would leave the block itself without effect at layer 0 "
        "(output_adapter); " + SEQUENTIAL
    ]
    # After another block than the language adapter's modules, it replaces nothing.
    elsewhere = write_config(tmp_path / "elsewhere.json", **PARALLEL, mh_adapter=True, output_adapter=False)
    assert str(bert.setup(task, A(adapter_config=elsewhere), lang).block) == f"Stack[mlm, {task}]"


@pytest.mark.parametrize("folder", ["qa", "fusion"])
def test_another_language_adapter_takes_the_place_of_the_saved_one(
    maker: Maker, saved: dict[str, Path], others: dict[str, Path], folder: str
) -> None:
    run = saved["qa"] if folder == "qa" else maker.make("swapped", *SETUPS["lang+fusion"][1](saved))[2]
    under = "qa" if folder == "qa" else "Fuse[qa, ner]"
    given = L(load_lang_adapter=str(others["en"]))
    for setup in (
        maker.setup("qa", A(load_adapter=str(run)), given),
        setup_for_inference("RUN", str(run), maker.config, str(others["en"])),
    ):
        assert str(setup.block) == f"Stack[mlm, {under}]"
        assert [source.folder for source in setup.adapters] == [
            others["en"] / "mlm", *(run / source.name for source in setup.tasks),
        ]  # fmt: skip
        assert setup_notes(setup) == [
            f"language swap: {others['en'] / 'mlm'} (en) replaces {run / 'mlm'} (pt) under {under}"
        ]
        assert setup.language_swaps == (LanguageSwap(str(others["en"]), str(run), "en", "pt"),)
        assert setup.loads_saved_head


def test_a_swapped_setup_remembers_its_swaps(maker: Maker, saved: dict[str, Path], others: dict[str, Path]) -> None:
    first = maker.make("in English", "qa", A(load_adapter=str(saved["qa"])), L(load_lang_adapter=str(others["en"])))[2]
    swap = LanguageSwap(str(others["en"]), str(saved["qa"]), "en", "pt")
    assert read_metadata(first / "adapter_setup.json").language_swaps == (swap,)
    kept = maker.make("in English again", "qa", A(load_adapter=str(first)))[2]
    assert read_metadata(kept / "adapter_setup.json").language_swaps == (swap,)
    back = maker.setup("qa", A(load_adapter=str(kept)), L(load_lang_adapter=str(saved["mlm"])))
    assert back.language_swaps == (swap, LanguageSwap(str(saved["mlm"]), str(kept), "pt", "en"))
    assert "language_swaps" not in (saved["qa"] / "adapter_setup.json").read_text(encoding="utf-8")
    assert setup_from_saved("--load_adapter", str(saved["qa"]), "qa", maker.config).language_swaps == ()


def test_the_same_language_adapter_is_no_swap(maker: Maker, saved: dict[str, Path]) -> None:
    for path in (saved["mlm"], saved["mlm"] / "mlm", saved["qa"] / "mlm"):
        setup = setup_for_inference("RUN", str(saved["qa"]), maker.config, str(path))
        note = f"--load_lang_adapter {path}: the same language adapter as {saved['qa'] / 'mlm'}"
        assert (setup_notes(setup), setup.language_swaps, setup.is_saved_composition) == ([note], (), True)


def test_a_swap_tells_the_parts_that_only_one_language_adapter_has(
    maker: Maker, saved: dict[str, Path], others: dict[str, Path]
) -> None:
    note = setup_notes(setup_for_inference("RUN", str(saved["qa"]), maker.config, str(others["no inverse"])))[0]
    assert note.endswith(
        " (pt) under qa; only the new one has a module at layer 3 (output_adapter); "
        "only the old one has an invertible adapter"
    )
    back = maker.make("without", "qa", A(), L(load_lang_adapter=str(others["no inverse"])))[2]
    note = setup_notes(setup_for_inference("RUN", str(back), maker.config, str(saved["mlm"])))[0]
    assert note.endswith(
        "under qa; only the new one has an invertible adapter; "
        "only the old one has a module at layer 3 (output_adapter)"
    )
    madx2 = maker.setup("qa", A(load_adapter=str(saved["qa"]), madx2=True), L(load_lang_adapter=str(others["all"])))
    assert setup_notes(madx2) == [
        f"language swap: {others['all'] / 'mlm'} replaces {saved['qa'] / 'mlm'} (pt) under qa"
    ]


def test_swaps_that_cannot_work_are_refused(
    maker: Maker, saved: dict[str, Path], others: dict[str, Path], tmp_path: Path
) -> None:
    def problems(run: Path, language: object) -> list[str]:
        given = problems_of(setup_for_inference, "RUN", str(run), maker.config, str(language))
        trained = option_problems(maker, A(load_adapter=str(run)), L(load_lang_adapter=str(language)))
        assert given == trained
        return given

    inside = maker.make("inside", *SETUPS["lang in fusion"][1](saved))[2]
    option = f"--load_lang_adapter {others['en']}"
    assert problems(inside, others["en"]) == [f"{option}: mlm is part of the saved fusion, and stays; leave it out"]
    (problem,) = problems(saved["qa"], saved["qa_all"])
    assert f"--load_lang_adapter {saved['qa_all']}: holds qa, the adapter of a " in problem
    fusion = maker.make("fewer layers", *SETUPS["lang+fusion"][1](saved))[2]
    assert problems(fusion, others["all"]) == [
        "layer 3 (output_adapter): mlm has a module there, but ner, the last adapter in the fusion, has none; give a "
        "language adapter without one, as --madx2 True trains it"
    ]
    assert maker.setup("qa", A(load_adapter=str(fusion), madx2=True), L(load_lang_adapter=str(others["all"])))
    assert problems(saved["qa"], "new") == [
        "--load_lang_adapter new: a new adapter can replace a saved one only with --random_init True"
    ]
    document = json.loads((others["en"] / "mlm" / "adapter_config.json").read_text(encoding="utf-8"))
    wide = Path(shutil.copytree(others["en"] / "mlm", tmp_path / "wide"))
    (wide / "adapter_config.json").write_text(json.dumps(document | {"hidden_size": 64}), encoding="utf-8")
    assert problems(saved["qa"], wide) == [
        f"{wide}: its hidden_size is 64, the base model's 32; an adapter fits only the kind and size of encoder it was "
        "trained on"
    ]
    assert option_problems(
        maker, A(load_adapter=str(saved["qa"]), language="pt"), L(load_lang_adapter=str(others["en"]))
    ) == ["--language pt: the language adapter was trained for en"]


@pytest.mark.parametrize(
    ("first", "last", "names"),
    [
        ("parallel", "plain", ("pfeiffer parallel", "pfeiffer")),
        ("plain", "parallel", ("pfeiffer", "pfeiffer parallel")),
        ("houlsby", "parallel houlsby", ("houlsby", "houlsby parallel")),
        ("plain", "without norm", ("pfeiffer", "pfeiffer with original_ln_before false")),
        ("attention", "plain", ("attention only", "pfeiffer")),
    ],
)
def test_fused_adapters_have_the_same_input(
    bert: Maker, kinds: dict[str, Path], first: str, last: str, names: tuple[str, str]
) -> None:
    fusion = F(fuse_adapters=[f"a={kinds[first]}", f"b={kinds[last]}"])
    assert problems_of(resolve_setup, "qa", bert.config, A(), None, fusion) == [
        f"adapters of different kinds cannot be fused: a {names[0]}, b {names[1]}; train them with one --adapter_config"
    ]


def test_an_inverse_that_is_not_first_is_refused_or_left_out(bert: Maker, kinds: dict[str, Path]) -> None:
    lang = L(load_lang_adapter=str(kinds["mlm"]))
    assert problems_of(resolve_setup, "qa", bert.config, A(adapter_config="pfeiffer+inv"), lang) == [
        "qa: its invertible adapter would have no effect, because only that of the first adapter, mlm, is used; give "
        "--adapter_config without +inv, such as pfeiffer or houlsby"
    ]
    note = f"{kinds['inverse'] / 'qa'}: its invertible adapter is left out; only that of the first adapter, "
    stacked = bert.setup("qa", A(load_adapter=str(kinds["inverse"])), lang)
    assert (setup_notes(stacked), stacked.tasks[0].config["inv_adapter"]) == ([note + "mlm, is used"], None)
    last = bert.setup("qa", A(), None, F(fuse_adapters=[f"a={kinds['plain']}", f"b={kinds['inverse']}"]))
    assert (setup_notes(last), last.tasks[1].config["inv_adapter"]) == ([note + "a, is used"], None)
    first = bert.setup("qa", A(), None, F(fuse_adapters=[f"b={kinds['inverse']}", f"a={kinds['plain']}"]))
    assert (setup_notes(first), first.tasks[0].config["inv_adapter"]) == ([], "nice")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"leave_out": [0, 1, 2, 3]}, "qa: has no module in any of the 4 layers of the base model"),
        ({"mh_adapter": False, "output_adapter": False}, "qa: has no module in any of the 4 layers"),
        ({"leave_out": [99]}, "qa: leave_out names layer 99; the base model has layers 0 to 3"),
        ({"leave_out": [-1]}, "qa: leave_out names layer -1; the base model has layers 0 to 3"),
        ({"reduction_factor": {"0": 4}}, "qa: reduction_factor lacks a layer; give it, or a default"),
        ({"reduction_factor": {"4": 4, "default": 8}}, "qa: reduction_factor names layer 4;"),
        ({"inv_adapter": "nice", "inv_adapter_reduction_factor": 20}, "without units; give at most 16"),
        (
            {"phm_layer": True, "shared_phm_rule": False, "reduction_factor": {"1": 8, "default": 16}},
            "phm_dim 4 must divide hidden size and bottleneck size, but does not divide 2;",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_the_encoder_is_refused(
    bert: Maker, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    config = write_config(tmp_path / "adapter_config.json", **changes)
    (message,) = problems_of(resolve_setup, "qa", bert.config, A(adapter_config=config))
    assert problem in message


@pytest.mark.parametrize("changes", [{"mh_adapter": True, "output_adapter": False}, PARALLEL, {}])
def test_post_add_needs_a_norm_after_the_feed_forward_block(
    bert: Maker, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = write_config(tmp_path / "adapter_config.json", **{"residual_before_ln": "post_add", **changes})
    resolve_setup("qa", bert.config, A(adapter_config=config))
    modernbert = {**bert.config, "model_type": "modernbert"}
    if changes:
        resolve_setup("qa", modernbert, A(adapter_config=config))
    else:
        assert problems_of(resolve_setup, "qa", modernbert, A(adapter_config=config)) == [
            "qa: residual_before_ln post_add needs a layer norm after the feed-forward block, which modernbert has "
            "not; give true or false"
        ]


def test_an_inverse_alone_is_enough_for_a_single_adapter(bert: Maker, kinds: dict[str, Path], tmp_path: Path) -> None:
    config = write_config(tmp_path / "adapter_config.json", **INVERTIBLE, leave_out=[0, 1, 2, 3])
    alone = bert.make("inverse alone", "qa", A(adapter_config=config))[2]
    fusion = F(fuse_adapters=[f"a={alone}", f"b={kinds['plain']}"])
    (problem,) = problems_of(resolve_setup, "qa", bert.config, A(), None, fusion)
    assert problem.startswith("a: has no module in any of the 4 layers")


def test_madx2_needs_more_than_one_layer(maker: Maker) -> None:
    config = {**maker.config, "num_hidden_layers": 1}
    assert problems_of(resolve_setup, "qa", config, A(madx2=True)) == [
        "qa: has no module in any of the 1 layers of the base model; leave out fewer layers (leave_out, --madx2)"
    ]
    houlsby = resolve_setup("qa", config, A(adapter_config="houlsby", houlsby_MHA_lastlayer=True))
    assert houlsby is not None


def test_an_adapter_is_given_once(bert: Maker, kinds: dict[str, Path]) -> None:
    plain, mlm = kinds["plain"], kinds["mlm"]
    fusion = F(fuse_adapters=[f"a={plain}", f"b={plain / '..' / 'plain'}"])
    assert problems_of(resolve_setup, "qa", bert.config, A(), None, fusion) == [
        f"a and b are the same adapter, {plain / '..' / 'plain' / 'ner'}; give another one"
    ]
    fusion = F(fuse_adapters=[f"a={plain}", f"b={mlm}"])
    assert problems_of(resolve_setup, "qa", bert.config, A(), L(load_lang_adapter=str(mlm)), fusion) == [
        f"mlm and b are the same adapter, {mlm / 'mlm'}; give another one"
    ]


def test_options_without_an_adapter_that_they_describe_are_refused(bert: Maker, kinds: dict[str, Path]) -> None:
    lang = L(lang_adapter_config="houlsby", lang_adapter_reduction_factor=4)
    assert problems_of(resolve_setup, "qa", bert.config, A(), lang) == [
        f"--lang_adapter_{option}: there is no language adapter; add --load_lang_adapter, or leave the option out"
        for option in ("config houlsby", "reduction_factor 4")
    ]
    fusion = F(fuse_adapters=[f"a={kinds['plain']}", f"b={kinds['without norm']}"])
    problem, *_ = problems_of(resolve_setup, "qa", bert.config, A(adapter_reduction_factor=4), None, fusion)
    assert problem.startswith("--adapter_* options ask for reduction_factor 4, but ")


def test_the_head_of_a_fusion_starts_from_the_first_saved_one(maker: Maker, saved: dict[str, Path]) -> None:
    qa, ner = f"qa={saved['qa_all']}", f"ner={saved['ner_all']}"

    def starting_head(*words: str, head: str | None = None) -> tuple[Path | None, str | None]:
        setup = maker.setup("qa", A(), None, F(fuse_adapters=[*words], fusion_head=head))
        return setup.starting_head.folder if setup.starting_head else None, head_note(setup)

    note = f"fusion: the head starts from that of qa, {saved['qa_all']}"
    for head in (None, "from_qa"):
        assert starting_head(ner, qa, head=head) == (saved["qa_all"], note)
    assert starting_head(qa, ner, head="new") == (None, "fusion: the head starts from random values")
    second = f"qa2={saved['qa']}"
    assert starting_head(second, qa) == (
        saved["qa"],
        f"fusion: the head starts from that of qa2, {saved['qa']}; qa comes later and has one, too",
    )
    other = f"ner2={saved['ner']}"
    assert starting_head(other, ner) == (
        None,
        "fusion: the head starts from random values, because none of ner2, ner was saved with a head for it",
    )
    assert option_problems(maker, A(), None, F(fuse_adapters=[other, ner], fusion_head="from_qa")) == [
        "--fusion_head from_qa: none of ner2, ner was saved with a question answering head; fuse the adapters-qa "
        "folder of a run, or give --fusion_head new"
    ]
    assert head_note(maker.setup("qa")) is None


def test_a_gate_outside_of_a_fusion_is_noted(bert: Maker, tmp_path: Path) -> None:
    config = write_config(tmp_path / "adapter_config.json", use_gating=True)
    setup = bert.setup("qa", A(adapter_config=config))
    assert setup_notes(setup) == [
        "qa: its gate (use_gating) is a mean over all tokens of a window, padding included, so that an answer depends "
        "on the length to which its batch is padded"
    ]


def test_fused_adapters_of_another_language_adapter_are_noted(maker: Maker, saved: dict[str, Path]) -> None:
    """Nothing is noted about those whose language adapter is the same, or that had none."""
    _, _, on_language = maker.make("qa on mlm", "qa", A(), L(load_lang_adapter=str(saved["mlm"])))
    _, _, alone = maker.make("qa alone", "qa", A())
    words = [f"qa={on_language}", f"ner={alone}"]

    def notes(lang: L | None) -> list[str]:
        return setup_notes(maker.setup("qa", A(), lang, F(fuse_adapters=words)))

    without = f"qa: was trained on the language adapter {on_language / 'mlm'}; here none is under it"
    assert notes(None) == [without]
    assert notes(L(load_lang_adapter=str(saved["mlm"]))) == []
    other = maker.make("another mlm", "mlm", A())[2]
    assert notes(L(load_lang_adapter=str(other))) == [
        f"qa: was trained on the language adapter {on_language / 'mlm'}; here {other / 'mlm'} is under it"
    ]
