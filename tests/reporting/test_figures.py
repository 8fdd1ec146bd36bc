"""The pictures of the report."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from support.made_runs import ATTENTION, groups_in, make_run, make_three_groups, update_run

from adapter_qa.models.fusion_attention import FusionAttentionDocument
from adapter_qa.reporting import figures


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def annotation_texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_learning_curves_have_a_line_per_seed(tmp_path: Path) -> None:
    figure = figures.curves_figure(make_three_groups(tmp_path)[0])
    scores, losses = figure.axes
    assert [axes.get_ylabel() for axes in (scores, losses)] == ["F1 (%)", "loss"]
    assert {axes.get_xlabel() for axes in (scores, losses)} == {"step"}
    assert [(line.get_label(), line.get_xydata().tolist()) for line in scores.lines] == [
        ("seed 1", [[5, 25], [10, 50]]), ("seed 2", [[5, 27], [10, 54]]), ("best", [[10, 50]]), ("best", [[10, 54]])
    ]  # fmt: skip
    assert [line.get_xydata().tolist()[-1] for line in losses.lines] == [[10, 2.5], [10, 2.0]] * 2
    assert [line.get_marker() for line in losses.lines] == ["None", "o", "None", "s"]
    assert legend_texts(figure) == ["seed 1", "seed 2", "best", "training loss", "evaluation loss"]
    assert figure.get_suptitle() == "1  Stack[qa]"
    first, second = scores.lines[:2]
    assert first.get_color() != second.get_color()
    assert first.get_marker() != second.get_marker()
    assert first.get_linestyle() != second.get_linestyle()


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
        assert grey.shape[1] == 990
        assert (grey < 100).mean() > 0.005  # dark ink on white


def test_cost_shows_f1_over_parameters_and_time(tmp_path: Path) -> None:
    figure = figures.cost_figure(make_three_groups(tmp_path))
    by_size, by_time = figure.axes
    assert (by_size.get_xlabel(), by_size.get_ylabel(), by_size.get_xscale()) == ("trained parameters", "F1 (%)", "log")
    assert by_time.get_xlabel() == "training time (s)"
    points = [
        [line.get_xydata().tolist()[0] for line in axes.lines if line.get_marker() in "os"] for axes in figure.axes
    ]
    assert points == [[[120, 52], [1000, 48]], [[112, 52], [108, 48]]]
    (bar,) = by_size.containers[0].lines[2]
    np.testing.assert_allclose(bar.get_segments()[0][:, 1], [52 - 8**0.5, 52 + 8**0.5])
    assert annotation_texts(by_size) == ["1", "2"]
    untrained = "3  full $_{fine}$-tuning, not trained (5.00)"
    assert legend_texts(figure) == ["1  Stack[qa]", "2  full fine-tuning", untrained]
    assert by_time.lines[-1].get_ydata()[0] == 5.0
    assert all(axes.get_ylim()[0] > 40 for axes in figure.axes)


def test_dollar_signs_are_not_mathematics(tmp_path: Path) -> None:
    figure = figures.cost_figure(make_three_groups(tmp_path))
    assert figures.as_png(figure).startswith(b"\x89PNG")  # mathematics that cannot be parsed raises an error


def test_cost_of_many_groups_is_coloured_by_setup(tmp_path: Path) -> None:
    for number in range(12):
        folder = make_run(tmp_path / f"{number:02d}", 80.0 - number, learning_rate=0.1 * number)
        update_run(folder, setup="Stack[qa]" if number % 2 else "Fuse[qa, ner]")
    figure = figures.cost_figure(groups_in(tmp_path))
    assert legend_texts(figure) == ["Fuse[qa, ner]", "Stack[qa]"]
    assert annotation_texts(figure.axes[0]) == ["1", "2", "3"]
    assert len(figure.axes[0].containers) == 12


def test_parameters_are_in_percent_of_the_base(tmp_path: Path) -> None:
    figure = figures.parameters_figure(make_three_groups(tmp_path))
    added, trained = figure.axes
    assert [bar.get_width() for bar in added.patches] == [11, 0, 11]
    assert [bar.get_width() for bar in trained.patches] == [12, 100, 0]
    assert annotation_texts(trained) == ["12.00", "100.00", "0.00"]
    assert (added.get_xlabel(), trained.get_xlabel()) == ("added, % of the base", "trained, % of the base")
    assert legend_texts(figure) == ["qa"]


def test_attention_has_a_heat_map_for_each_kind_of_token() -> None:
    figure = figures.attention_figure(ATTENTION)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["question tokens", "context tokens", "all tokens"]
    weights = [ATTENTION["question"], ATTENTION["context"], ATTENTION["all"]]
    for axes, expected in zip(figure.axes, weights, strict=False):
        assert np.asarray(axes.images[0].get_array()).tolist() == expected
        assert axes.images[0].get_clim() == (0, 1)
        assert annotation_texts(axes) == [f"{weight:.2f}" for row in expected for weight in row]
        assert [text.get_text() for text in axes.get_xticklabels()] == ["qa", "ner"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["0", "1", "2"]


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
    assert [axes.get_title() for axes in figure.axes][:2] == ["context tokens", "all tokens"]


def test_every_colour_has_its_own_marker_and_hatch() -> None:
    distinct = [len(set(styles)) for styles in (figures.COLOURS, figures.MARKERS, figures.HATCHES, figures.DASHES)]
    assert distinct == [figures.MAX_COMPARED] * 4 == [7] * 4
