"""The pictures of the report."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from support.made_runs import ATTENTION, groups_in, make_run, make_three_groups, update_run

from adapter_qa.models.metadata import FusionAttentionDocument
from adapter_qa.reporting import figures
from adapter_qa.reporting.error_analysis import Interval


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def segments_of(axes: Axes) -> list[list[float]]:
    """Return the ends of the vertical error bars."""
    bars = [bar for container in axes.containers for bar in container.lines[2]]
    return [segment[:, 1].tolist() for bar in bars for segment in bar.get_segments()]


def annotation_texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_learning_curves_have_a_line_per_seed(tmp_path: Path) -> None:
    group = make_three_groups(tmp_path)[0]
    figure = figures.curves_figure(group, Interval(40, 60, from_answers=True))
    scores, losses = figure.axes
    assert [axes.get_ylabel() for axes in (scores, losses)] == ["F1 (%)", "loss"]
    assert {axes.get_xlabel() for axes in (scores, losses)} == {"step"}
    assert [line.get_xydata().tolist() for line in scores.lines[:4]] == [
        [[5, 25], [10, 50]], [[10, 50]], [[5, 27], [10, 54]], [[10, 54]]
    ]  # fmt: skip
    assert [scores.lines[index].get_label() for index in (1, 3)] == ["best", "best"]
    assert [line.get_xydata().tolist()[-1] for line in losses.lines] == [[10, 2.5], [10, 2.0]] * 2
    assert [line.get_marker() for line in losses.lines] == ["None", "o", "None", "o"]
    assert legend_texts(figure) == ["best", "training loss", "evaluation"]
    assert annotation_texts(scores) == ["seed 1", "seed 2"]
    assert figure.get_suptitle() == "1  a1 +1: Stack[qa]"
    assert segments_of(scores) == [[40, 60]]


def test_overlaid_curves_are_means_over_seeds_in_the_style_of_their_group(tmp_path: Path) -> None:
    for name, seed, scores in (("a", 1, (20, 40, 60)), ("a", 2, (30, 50)), ("b", 3, (10, 20))):
        run = make_run(tmp_path / f"{name}{seed}", 50.0, seed=seed, weight_decay=ord(name))
        history = [{"eval_f1": f1, "eval_loss": 3, "step": n, "epoch": n} for n, f1 in enumerate(scores, 1)]
        update_run(run, history=history)
    groups = groups_in(tmp_path)
    figure = figures.overlay_figure(groups, {2: Interval(45, 58, from_answers=True)})
    first, second, bar = figure.axes[0].lines[:3]
    assert (first.get_xydata().tolist(), second.get_xydata().tolist()) == ([[1, 25], [2, 45]], [[1, 10], [2, 20]])
    for line, group in ((first, groups[0]), (second, groups[1]), (bar, groups[1])):
        style = figures.group_style(group)
        assert (line.get_color(), line.get_marker()) == (style["color"], style["marker"])
    assert segments_of(figure.axes[0]) == [[45, 58]]
    assert bar.get_xdata()[0] > 3  # beside the curves
    assert legend_texts(figure) == ["1  a1 +1: Stack[qa]", "2  b3: Stack[qa]"]
    assert max(figure.axes[1].get_xticks()) <= 3


def test_49_groups_differ_in_colour_or_marker(tmp_path: Path) -> None:
    group = make_three_groups(tmp_path)[0]
    styles = [figures.group_style(replace(group, number=number)) for number in range(1, 50)]
    assert len({(style["color"], style["marker"]) for style in styles}) == 49
    assert len({style["color"] for style in styles[:7]}) == len({str(style["linestyle"]) for style in styles[:7]}) == 7


def test_learning_curves_have_a_scale_in_epochs(tmp_path: Path) -> None:
    figure = figures.curves_figure(make_three_groups(tmp_path)[0])
    losses = figure.axes[1]
    (epoch_axis,) = losses.child_axes
    figure.draw_without_rendering()
    assert epoch_axis.get_xlabel() == "epoch"
    np.testing.assert_allclose(epoch_axis.get_xlim()[1], losses.get_xlim()[1] / 5)


def test_the_f1_axis_does_not_magnify_small_changes(tmp_path: Path) -> None:
    make_run(tmp_path, 50.0)
    update_run(tmp_path, history=[{"eval_f1": 80 + step / 100, "step": step, "epoch": 1.0} for step in (5, 10)])
    bottom, top = figures.curves_figure(groups_in(tmp_path)[0]).axes[0].get_ylim()
    np.testing.assert_allclose([top - bottom, (top + bottom) / 2], [5, 80.075])


def test_learning_curves_of_a_language_adapter_show_perplexity(tmp_path: Path) -> None:
    history = [{"eval_perplexity": 9.5, "step": 5, "epoch": 1}]
    update_run(make_run(tmp_path), script="run_mlm_adapter.py", history=history)
    axes = figures.curves_figure(groups_in(tmp_path)[0]).axes[0]
    assert axes.get_ylabel() == "perplexity"
    assert axes.lines[0].get_xydata().tolist() == [[5, 9.5]]


def test_learning_curves_are_legible_in_grey(tmp_path: Path) -> None:
    for group in make_three_groups(tmp_path):
        grey = np.asarray(Image.open(io.BytesIO(figures.as_png(figures.curves_figure(group)))).convert("L"))
        assert grey.shape[1] == 705
        assert (grey < 100).mean() > 0.005  # dark ink on white


def test_cost_shows_f1_with_its_interval_over_parameters_and_time(tmp_path: Path) -> None:
    intervals = {1: Interval(45, 58, from_answers=True), 2: Interval(40, 55, from_answers=False)}
    figure = figures.cost_figure(make_three_groups(tmp_path), intervals)
    by_size, by_time = figure.axes
    assert (by_size.get_xlabel(), by_size.get_ylabel(), by_size.get_xscale()) == ("trained parameters", "F1 (%)", "log")
    assert by_time.get_xlabel() == "training time (s)"
    points = [
        [line.get_xydata().tolist()[0] for line in axes.lines if line.get_marker() in [*"os"]] for axes in figure.axes
    ]
    assert points == [[[120, 52], [1000, 48]], [[112, 52], [108, 48]]]
    (seeds,) = [line.get_xydata().tolist() for line in by_time.lines if line.get_marker() == "."]
    assert seeds == [[110, 50], [114, 54]]
    assert segments_of(by_size) == segments_of(by_time) == [[45, 58], [40, 55]]
    assert annotation_texts(by_size) == ["1", "2"]
    untrained = "3  none: full $_{fine}$-tuning, not trained (5.0)"
    assert legend_texts(figure) == ["1  a1 +1: Stack[qa]", "2  full: full fine-tuning", untrained]
    assert by_time.lines[-1].get_ydata()[0] == 5.0
    assert all(axes.get_ylim()[0] > 35 for axes in figure.axes)


def test_a_logarithmic_axis_has_numbers_and_nothing_on_its_frame(tmp_path: Path) -> None:
    for number in range(3):  # the same number of parameters
        make_run(tmp_path / str(number), 50.0 + number, weight_decay=number)
    axes = figures.cost_figure(groups_in(tmp_path), {}).axes[0]
    left, right = axes.get_xlim()
    assert len([tick for tick in axes.get_xticks() if left <= tick <= right]) >= 2
    xs = [line.get_xydata().tolist()[0][0] for line in axes.lines]
    assert len(set(xs)) == 3
    assert all(left * 1.5 < x < right / 1.5 for x in xs)
    np.testing.assert_allclose(np.median(xs), 120)


def test_many_groups_with_the_same_number_of_parameters_are_side_by_side(tmp_path: Path) -> None:
    for number in range(16):
        make_run(tmp_path / f"{number:02d}", 50.0 - number, weight_decay=number)
    axes = figures.cost_figure(groups_in(tmp_path), {}).axes[0]
    xs = [line.get_xydata().tolist()[0][0] for line in axes.lines]
    assert xs == sorted(set(xs))
    assert len(xs) == 16
    left, right = axes.get_xlim()
    assert all(left * 1.5 < x < right / 1.5 for x in xs)


def test_characters_that_the_font_lacks_are_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    update_run(make_run(tmp_path / "a"), setup="日本")
    figures.as_png(figures.cost_figure(groups_in(tmp_path), {}))
    assert [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)] == []


def test_dollar_signs_are_not_mathematics(tmp_path: Path) -> None:
    figure = figures.cost_figure(make_three_groups(tmp_path), {})
    assert figures.as_png(figure).startswith(b"\x89PNG")  # mathematics that cannot be parsed raises an error


def test_cost_names_only_the_first_of_many_groups(tmp_path: Path) -> None:
    for number in range(16):
        make_run(tmp_path / f"{number:02d}", 80.0 - number, learning_rate=0.1 * number)
    figure = figures.cost_figure(groups_in(tmp_path), {})
    assert annotation_texts(figure.axes[0]) == [str(number) for number in range(1, 15)]
    assert len(legend_texts(figure)) == 14
    assert len(figure.axes[0].containers) == 16


def test_parameters_are_in_percent_of_the_base(tmp_path: Path) -> None:
    figure = figures.parameters_figure(make_three_groups(tmp_path))
    added, trained = figure.axes
    assert [bar.get_width() for bar in added.patches] == [11, 0, 11]
    assert [bar.get_width() for bar in trained.patches] == [12, 100, 0]
    assert annotation_texts(trained)[::2] == ["12.00", "100.00", "0.00"]
    assert annotation_texts(trained)[1::2] == [figures.group_label(group) for group in make_three_groups(tmp_path)]
    assert (added.get_xlabel(), trained.get_xlabel()) == ("added, % of the base", "trained, % of the base")
    assert legend_texts(figure) == ["qa"]


def test_attention_has_a_heat_map_for_each_kind_of_token() -> None:
    figure = figures.attention_figure(ATTENTION)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["question\ntokens", "context\ntokens", "all\ntokens"]
    weights = [ATTENTION["question"], ATTENTION["context"], ATTENTION["all"]]
    for axes, expected in zip(figure.axes, weights, strict=False):
        assert np.asarray(axes.images[0].get_array()).tolist() == expected
        assert axes.images[0].get_clim() == (0, 1)
        assert annotation_texts(axes) == [f"{weight:.2f}" for row in expected for weight in row]
        assert [text.get_text() for text in axes.get_xticklabels()] == ["qa", "ner"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["0", "1", "2"]


def test_titles_of_heat_maps_of_two_adapters_are_apart() -> None:
    figure = figures.attention_figure({**ATTENTION, "places": ["0 attention", "0 output", "1 output"]})
    figure.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes[:3]]
    for left, right in pairwise(boxes):
        assert left.x1 < right.x0


def test_attention_of_many_layers_has_no_numbers() -> None:
    weights = [[0.125] * 8] * 24
    document: FusionAttentionDocument = {
        "adapters": list("abcdefgh"), "places": [str(layer) for layer in range(24)], "windows": 1,
        "question": weights, "context": weights, "all": weights,
    }  # fmt: skip
    figure = figures.attention_figure(document)
    assert annotation_texts(figure.axes[0]) == []
    assert figures.as_png(figure).startswith(b"\x89PNG")


def test_attention_without_question_tokens_has_no_panel_for_them() -> None:
    figure = figures.attention_figure({**ATTENTION, "question": []})
    assert [axes.get_title() for axes in figure.axes][:2] == ["context\ntokens", "all\ntokens"]


def test_every_colour_has_its_own_marker_and_hatch() -> None:
    distinct = [len(set(styles)) for styles in (figures.COLOURS, figures.MARKERS, figures.HATCHES, figures.DASHES)]
    assert distinct == [figures.MAX_COMPARED] * 4 == [7] * 4
