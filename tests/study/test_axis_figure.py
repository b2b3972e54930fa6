"""The figure of a prediction: where values lie, and what is drawn of them."""

import itertools
import math
from dataclasses import replace

import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.lines import Line2D
from report_samples import MCC, record, study

from harness.study import axis_figure as module
from harness.study.axis_figure import PREDICTED, axis_figure
from harness.study.axis_scale import scale_of
from harness.study.expectation import expectation_of
from harness.study.records import Records
from harness.study.verdicts import verdicts

MODELS = [{"kind": "perturbed_vae"}, {"kind": "beta_vae"}]
KEY = "data.environments"


# ------------------------------------------------------------------------------------------------ scale


def test_numbers_lie_at_their_own_place():
    scale = scale_of([3, 0, 1, 2])
    assert (scale.values, scale.places, scale.is_numeric) == ((0, 1, 2, 3), (0.0, 1.0, 2.0, 3.0), True)
    assert scale.nearest == 1.0
    assert scale.spans()[1] == (0.5, 1.5)


def test_numbers_over_decades_lie_in_the_logarithm():
    assert scale_of([1, 100, 10]).places == pytest.approx((0.0, 1.0, 2.0))
    assert scale_of([1, 9]).places == (1.0, 9.0)


def test_a_zero_beside_decades_lies_a_step_below():
    assert scale_of([0, 1, 10, 100]).places == pytest.approx((-1.0, 0.0, 1.0, 2.0))
    assert scale_of([0.0, 0.01, 100.0]).places == pytest.approx((-6.0, -2.0, 2.0))


def test_words_and_booleans_lie_side_by_side():
    scale = scale_of(["cut", "soft", "none"])
    assert (scale.places, scale.is_numeric, scale.limits) == ((0.0, 1.0, 2.0), False, (-0.5, 2.5))
    assert not scale_of([True, "random"]).is_numeric
    assert not scale_of([True, False]).is_numeric


def test_spans_tile_the_axis():
    scale = scale_of([1, 2, 3, 4, 6, 8, 12, 20])
    spans = list(scale.spans().values())
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert scale.limits == (spans[0][0], spans[-1][1])
    assert all(begin < place < end for place, (begin, end) in zip(scale.places, spans, strict=True))
    assert scale_of([5]).limits == (4.5, 5.5)


# ----------------------------------------------------------------------------------------------- figure


def levels(model, value):
    return 0.65 if model == "beta_vae" else {1: 0.7, 4: 0.7}.get(value, 0.97)


def records(values, further=({},), *, models=("perturbed_vae", "beta_vae"), **margins):
    """Three seeds a cell, with margins given as functions of the value."""
    made = []
    for model, value, more, seed in itertools.product(models, values, further, range(3)):
        metrics = {MCC: levels(model, value) + 0.002 * seed, f"{MCC}_untrained": 0.6 + 0.01 * seed}
        metrics[f"{MCC}_shuffled"] = 0.05
        for name, margin in margins.items():
            metrics[f"conditions/{name.replace('__', '/')}"] = margin(value)
        axes = {KEY: value, **more}
        made.append(record(f"{model} {axes}", seed, model=model, axes=axes, metrics=metrics))
    return Records(made)


def drawn(monkeypatch, tmp_path, found, where=">= 4", **grid):
    kept = []
    write = module.write
    monkeypatch.setattr(module, "write", lambda figure, out: kept.append(figure) or write(figure, out))
    spec = study(models=MODELS, grid={KEY: [1, 4, 8], **grid}, expect={"axis": KEY, "identifies_where": where})
    out = axis_figure(found, verdicts(found, expectation_of(spec)), tmp_path / "axis.png", title="sample")
    return out, (kept[0] if kept else None)


def markers(axes):
    return [line for line in axes.lines if line.get_marker() in module.SIGNS and len(line.get_xdata()) == 1]


def test_scores_predictions_and_disagreements_are_drawn(monkeypatch, tmp_path):
    out, figure = drawn(monkeypatch, tmp_path, records([1, 4, 8]))
    assert imread(out).shape[2] == 4
    (axes,) = figure.axes
    rings = [line for line in markers(axes) if line.get_markersize() == 10]
    signs = [line for line in markers(axes) if line.get_markersize() == 5]
    assert sorted(round(float(line.get_ydata()[0]), 3) for line in signs) == pytest.approx(
        [0.652, 0.652, 0.652, 0.702, 0.702, 0.972]
    )
    filled = [line for line in signs if line.get_markerfacecolor() != "white"]
    assert len(filled) == 2  # the model at 4 and 8; the control is predicted nowhere
    assert [round(float(line.get_ydata()[0]), 3) for line in rings] == pytest.approx([0.702])  # at 4
    shaded = [patch for patch in axes.patches if to_hex(patch.get_facecolor()) == PREDICTED]
    assert len(shaded) == 2
    texts = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"PerturbedVAE", "β-VAE", "untrained encoder", "shuffled null"} <= texts
    assert "ringed: prediction and measurement disagree" in texts
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "8"]


def test_only_margins_that_vary_are_shown(monkeypatch, tmp_path):
    found = records(
        [1, 4, 8],
        intervention_sufficiency__margin_true=lambda value: min(value, 4) / 4,
        alignment__margin_true=lambda value: 1.0,
        rotation__margin_learned=lambda value: 0.1 * (value > 4),
    )
    _, figure = drawn(monkeypatch, tmp_path, found)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["", "margin of intervention sufficiency", "margin of rotation"]
    truth = [line for line in figure.axes[1].lines if len(line.get_xdata()) == 3]
    assert [list(line.get_ydata()) for line in truth] == [[0.25, 1.0, 1.0]]
    assert len([line for line in figure.axes[2].lines if len(line.get_xdata()) == 3]) == 2  # one a fitted model
    assert math.isclose(figure.axes[0].get_xlim()[0], figure.axes[1].get_xlim()[0])


def test_further_axes_make_small_multiples(monkeypatch, tmp_path):
    further = [{"data.process.steps": steps} for steps in (1, 2)]
    _, figure = drawn(monkeypatch, tmp_path, records([1, 4, 8], further), **{"data.process.steps": [1, 2]})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["steps 1", "steps 2"]


def test_a_model_without_a_further_axis_is_in_each_panel(monkeypatch, tmp_path):
    causal = records([1, 4], [{"sparsity": 0.0}, {"sparsity": 0.1}], models=["perturbed_vae"])
    found = Records([*causal, *records([1, 4], models=["beta_vae"])])
    _, figure = drawn(monkeypatch, tmp_path, found, sparsity=[0.0, 0.1])
    assert len(figure.axes) == 2
    assert [sum(line.get_marker() == "s" for line in markers(axes)) for axes in figure.axes] == [2, 2]


def test_nothing_measured_draws_nothing(monkeypatch, tmp_path):
    waiting = Records([record(state="waiting", axes={KEY: 1})])
    assert drawn(monkeypatch, tmp_path, waiting) == (None, None)
    assert not (tmp_path / "axis.png").exists()


def test_words_and_one_seed_can_be_drawn(tmp_path):
    spec = study(
        models=MODELS,
        grid={"data.process.intervention": ["cut", "soft"]},
        expect={"axis": "data.process.intervention", "identifies_where": ["cut"]},
    )
    found = Records(
        [
            record(word, 0, axes={"data.process.intervention": word}, metrics={MCC: score})
            for word, score in (("cut", 0.9), ("soft", 0.5))
        ]
    )
    assert axis_figure(found, verdicts(found, expectation_of(spec)), tmp_path / "axis.png") is not None


def test_an_axis_over_models_can_be_drawn(tmp_path):
    spec = study(expect={"axis": "model", "identifies_where": ["cite_vae"]})
    found = Records([record(name, model=name, metrics={MCC: 0.8}) for name in ("perturbed_vae", "cite_vae")])
    assert axis_figure(found, verdicts(found, expectation_of(spec)), tmp_path / "axis.png") is not None


def test_one_scale_a_margin_across_small_multiples(monkeypatch, tmp_path):
    further = [{"data.process.steps": steps} for steps in (1, 2)]
    found = [
        replace(one, metrics={**one.metrics, "conditions/rotation/margin_learned": one.axes[KEY] * factor})
        for one in records([1, 4, 8], further)
        for factor in [{1: 1.0, 2: 0.1}[one.axes["data.process.steps"]]]
    ]
    _, figure = drawn(monkeypatch, tmp_path, Records(found), **{"data.process.steps": [1, 2]})
    first, second = [axes for axes in figure.axes if axes.get_title(loc="left") == "margin of rotation"]
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[1] > 8


def test_the_legend_takes_as_many_columns_as_fit():
    entries = [Line2D([], [], label="x" * length) for length in (50, 50, 10, 10)]
    assert [module._legend_columns(entries, width) for width in (3.0, 5.0, 20.0)] == [1, 2, 3]
