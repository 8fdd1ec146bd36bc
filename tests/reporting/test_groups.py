"""Groups of runs that differ in their seed only, and what is compared."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from support.made_runs import groups_in, make_run, update_run

from adapter_qa.reporting.groups import differing_settings, group_runs, mean_std, same_evaluation
from adapter_qa.reporting.runs import find_runs
from adapter_qa.reporting.tables import as_csv


def test_runs_that_differ_in_their_seed_only_are_one_group(tmp_path: Path) -> None:
    for seed, f1 in {3: 52.0, 1: 50.0, 2: 57.0}.items():
        make_run(tmp_path / f"s{seed}", f1, seed=seed, run_name=f"r{seed}", logging_dir=f"l{seed}")
    make_run(tmp_path / "other", 60.0, seed=1, learning_rate=3e-4)
    best, three = groups_in(tmp_path)
    assert (best.number, three.number) == (1, 2)
    assert [run.seed for run in three.runs] == [1, 2, 3]
    assert three.mean_std("f1").mean == 53.0
    assert three.mean_std("f1").deviation == pytest.approx(statistics.stdev([50, 57, 52]), abs=1e-12)
    assert three.mean_std("exact").mean == 43.0
    assert three.mean_std("train_seconds").mean == 113.0
    assert three.mean_std("best_epoch").mean == 2.0
    assert (best.mean_std("f1").mean, best.mean_std("f1").deviation) == (60.0, None)
    assert differing_settings([best, three]) == ["learning_rate"]


@pytest.mark.parametrize(
    ("values", "mean", "deviation"),
    [([], None, None), ([None], None, None), ([2.0], 2.0, None), ([1.0, 3.0], 2.0, 2**0.5),
     ([1.0, None, 3.0, float("nan")], 2.0, 2**0.5)],
)  # fmt: skip
def test_mean_and_sample_deviation(values: list[float | None], mean: float | None, deviation: float | None) -> None:
    result = mean_std(values)
    assert result.mean == mean
    assert result.deviation == (pytest.approx(deviation) if deviation else None)


def test_other_data_under_the_same_name_is_another_group(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 50.0, seed=1)
    update_run(make_run(tmp_path / "b", 51.0, seed=2), data={"eval": {"file": "dev.json", "sha256": "c" * 64}})
    groups = groups_in(tmp_path)
    assert len(groups) == 2
    assert differing_settings(groups) == ["train_data", "eval_data"]


def test_a_chain_of_runs_repeated_with_seeds_is_one_group_per_step(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_run(tmp_path / f"qa_{seed}", 40.0 + seed, seed=seed)
        adapters = [f"qa={tmp_path}/qa_{seed}", f"ner={tmp_path}/none"]
        make_run(tmp_path / f"fusion_{seed}", 60.0 + seed, seed=seed, fuse_adapters=adapters)
    fusion, qa = groups_in(tmp_path)
    assert (fusion.mean_std("f1").mean, qa.mean_std("f1").mean) == (61.5, 41.5)
    update_run(tmp_path / "qa_2", options={"learning_rate": 0.5, "seed": 2, "do_train": True})
    assert [group.mean_std("f1").mean for group in groups_in(tmp_path)] == [62.0, 61.0, 42.0, 41.0]


@pytest.mark.parametrize("option", ["model_name_or_path", "load_adapter", "load_lang_adapter"])
def test_later_evaluations_of_runs_that_differ_in_their_seed_are_one_group(tmp_path: Path, option: str) -> None:
    """Also where the path of the trained run has a "="."""
    folder = tmp_path / "lr=1e-2"
    for seed in (1, 2):
        make_run(folder / f"trained_{seed}", 40.0 + seed, seed=seed)
        make_run(tmp_path / f"evaluated_{seed}", 60.0 + seed, **{option: str(folder / f"trained_{seed}")})
    evaluated, trained = groups_in(tmp_path)
    assert (evaluated.mean_std("f1").mean, trained.mean_std("f1").mean) == (61.5, 41.5)
    assert evaluated.seeds == ["42/1", "42/2"]


def test_saved_adapters_belong_to_their_run_and_models_beside_a_run_do_not(tmp_path: Path) -> None:
    make_run(tmp_path / "qa", 40.0)
    for name, option in {"a": "load_adapter", "b": "model_name_or_path"}.items():
        (tmp_path / "qa" / name).mkdir()
        make_run(tmp_path / option, 60.0, **{option: str(tmp_path / "qa" / name)})
    settings = {group.name: group.settings for group in groups_in(tmp_path)}
    assert settings["load_adapter"]["load_adapter"].startswith("run ")
    assert settings["model_name_or_path"]["model_name_or_path"] == str(tmp_path / "qa" / "b")


def test_runs_that_refer_to_each_other_do_not_recurse_forever(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 40.0, load_adapter=str(tmp_path / "b"))
    make_run(tmp_path / "b", 41.0, load_adapter=str(tmp_path / "a"))
    assert len(groups_in(tmp_path)) == 2


def test_a_repeated_run_counts_once(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 50.0)
    make_run(tmp_path / "b", 52.0)
    groups, notes = group_runs(find_runs([tmp_path])[0])
    assert [group.mean_std("f1").mean for group in groups] == [52.0]
    assert notes == [f"{tmp_path}/a: left out, because {tmp_path}/b has the same options and seed"]


def test_runs_with_one_seed_and_several_data_seeds_are_one_group(tmp_path: Path) -> None:
    for data_seed, f1 in ((10, 50.0), (2, 52.0)):
        make_run(tmp_path / f"shuffle_{data_seed}", f1, data_seed=data_seed)
    make_run(tmp_path / "usual", 54.0)
    (group,) = groups_in(tmp_path)
    assert [run.folder.name for run in group.runs] == ["shuffle_2", "shuffle_10", "usual"]
    assert group.seeds == ["42/2", "42/10", "42/42"]
    assert group.mean_std("f1").mean == 52
    assert ",42/2 42/10 42/42," in as_csv([group])
    make_run(tmp_path / "explicit", 54.0, data_seed=42)  # the default
    _, notes = group_runs(find_runs([tmp_path])[0])
    assert notes == [f"{tmp_path}/explicit: left out, because {tmp_path}/usual has the same options and seed"]


def test_runs_with_one_seed_on_runs_of_several_seeds_are_one_group(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_run(tmp_path / f"qa_{seed}", 40.0, seed=seed)
        make_run(tmp_path / f"fusion_{seed}", 60.0, fuse_adapters=[f"qa={tmp_path}/qa_{seed}", "ner=none"])
    fusion, qa = groups_in(tmp_path)
    assert (qa.seeds, fusion.seeds) == (["1", "2"], ["42/1", "42/2"])
    assert fusion.name == "fusion_1 +1"


def test_options_that_did_not_exist_or_only_print_make_no_other_group(tmp_path: Path) -> None:
    make_run(tmp_path / "old", 50.0, seed=1)
    new: dict[str, Any] = {
        "question_column": "question",
        "text_column": None,
        "keep_checkpoint": True,
        "log_level": "info",
    }
    make_run(tmp_path / "new", 52.0, seed=2, **new)
    make_run(tmp_path / "other", 40.0, seed=3, question_column="pergunta")
    groups = groups_in(tmp_path)
    assert [len(group.runs) for group in groups] == [2, 1]
    assert differing_settings(groups) == ["question_column"]


EVAL = {"file": "a/dev.json", "sha256": "b" * 64, "questions": 200}


def test_groups_are_divided_by_what_they_were_evaluated_on(tmp_path: Path) -> None:
    sources = {
        "all": EVAL, "moved": EVAL | {"file": "z/d.json"}, "few": EVAL | {"questions": 50},
        "other": EVAL | {"sha256": "c" * 64}, "v2": EVAL,
    }  # fmt: skip
    for number, (name, source) in enumerate(sources.items()):
        run = make_run(tmp_path / name, 50.0 + number, weight_decay=number, version_2_with_negative=name == "v2")
        update_run(run, data={"eval": source})
    divided = same_evaluation(groups_in(tmp_path))
    names = [[group.first.folder.name for group in members] for members in divided]
    assert sorted(names) == [["few"], ["moved", "all"], ["other"], ["v2"]]
    assert names[-1] == ["few"]
    assert [group.number for members in divided for group in members] == [1, 2, 3, 4, 5]


def test_single_folds_of_different_seeds_are_not_one_group(tmp_path: Path) -> None:
    """The seed decides which questions are in a fold."""
    options: dict[str, Any] = {"folds": 3, "fold_by": "context", "fold_choosing_share": 0.1, "validation_file": None}
    for seed in (1, 2):
        make_run(tmp_path / f"fold_of_seed_{seed}", 50.0 + seed, seed=seed, fold=1, **options)
        make_run(tmp_path / f"cv_of_seed_{seed}", 60.0 + seed, seed=seed, **options)
    groups = [[run.folder.name for run in group.runs] for group in groups_in(tmp_path)]
    assert sorted(groups) == [["cv_of_seed_1", "cv_of_seed_2"], ["fold_of_seed_1"], ["fold_of_seed_2"]]


def test_perplexity_is_compared_for_the_same_base_only(tmp_path: Path) -> None:
    for name, base in (("a", "bert"), ("b", "bert"), ("c", "roberta")):
        run = make_run(tmp_path / name, model_name_or_path=base, weight_decay=ord(name))
        update_run(run, script="run_mlm_adapter.py", data={"eval": {"held_out_of": "x/t.txt", "blocks": 50}})
    assert sorted(len(members) for members in same_evaluation(groups_in(tmp_path))) == [1, 2]


def test_groups_are_sorted_by_task_and_score_with_the_unfinished_runs_of_a_task_last(tmp_path: Path) -> None:
    make_run(tmp_path / "low", 30.0, weight_decay=0.1)
    make_run(tmp_path / "high", 80.0, weight_decay=0.2)
    make_run(tmp_path / "unscored", None, weight_decay=0.3)
    make_run(tmp_path / "failed", 99.0, status="failed", weight_decay=0.4)
    make_run(tmp_path / "killed", 98.0, status="running", weight_decay=0.5)
    make_run(tmp_path / "stopped", None, status="interrupted", weight_decay=0.6)
    for name, perplexity in (("mlm_bad", 9.0), ("mlm_good", 5.0)):
        update_run(make_run(tmp_path / name, 0.0, weight_decay=perplexity), script="run_mlm_adapter.py",
                   metrics={"eval": {"eval_perplexity": perplexity}})  # fmt: skip
    update_run(make_run(tmp_path / "ner", 90.0), script="run_ner_adapter.py")
    groups = groups_in(tmp_path)
    assert [group.number for group in groups] == list(range(1, 10))
    assert [(group.first.folder.name, group.first.status) for group in groups] == [
        ("high", "finished"), ("low", "finished"), ("unscored", "finished"),
        ("failed", "failed"), ("killed", "killed"), ("stopped", "interrupted"),
        ("ner", "finished"), ("mlm_good", "finished"), ("mlm_bad", "finished"),
    ]  # fmt: skip
