import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot, rcParams
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from report_samples import MCC, latents, record

from harness.errors import UserError
from harness.study import figures
from harness.study.canvas import ink_on, sequential
from harness.study.columns import IDENTIFIABILITY
from harness.study.figures import cell_reference, headline, heatmap
from harness.study.latents_figure import latents_figure, match
from harness.study.records import Records


def grid(models=("perturbed_vae", "cite_vae"), seeds=3, metrics=None, **axes):
    """A full grid of records."""
    axes = axes or {"sparsity": (0.0, 0.01), "latent_dim": (6, 8)}
    metrics = metrics or {MCC: 0.8, f"{MCC}_untrained": 0.7}
    return [
        record(f"{model} {values}", seed, model=model, axes=dict(zip(axes, values, strict=True)), metrics=metrics)
        for model in models
        for values in itertools.product(*axes.values())
        for seed in range(seeds)
    ]


def drawn(monkeypatch, records, tmp_path, **other):
    """The figure's texts, and its picture's shape."""
    kept = []
    monkeypatch.setattr(figures, "write", lambda figure, out: kept.append(figure) or _write(figure, out))
    out = heatmap(Records(records), tmp_path / "map.png", **other)
    (figure,) = kept
    texts = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        texts += [text.get_text() for text in axes.texts]
        texts += [axes.get_xlabel(), axes.get_ylabel(), *(label.get_text() for label in axes.get_yticklabels())]
    return texts, imread(out).shape, len(figure.axes)


_write = figures.write


def test_every_cell_is_written_out(monkeypatch, tmp_path):
    texts, shape, axes = drawn(monkeypatch, grid(), tmp_path, title="sample")
    assert texts.count("0.80 ± 0.00") == 8
    assert texts.count("untrained 0.70") == 8
    assert texts.count("n = 3") == 8
    assert {"PerturbedVAE", "CITE-VAE", "MCC · sample", "sparsity", "latent dim"} <= set(texts)
    assert axes == 3  # two panels and a colour bar
    assert shape[0] < shape[1]


def test_cells_that_are_missing_say_why(monkeypatch, tmp_path):
    records = grid()
    records = [replace(one, state="failed") if number < 4 else one for number, one in enumerate(records[:-3])]
    texts, _, _ = drawn(monkeypatch, records, tmp_path)
    assert "3 failed" in texts
    assert "n = 2 of 3" in texts
    assert "not in the study" in texts


def test_a_score_not_above_the_untrained_encoder_is_marked(monkeypatch, tmp_path):
    texts, _, _ = drawn(monkeypatch, grid(metrics={MCC: 0.7, f"{MCC}_untrained": 0.7}), tmp_path)
    assert texts.count("0.70 ± 0.00†") == 8
    assert any(text.startswith("† not above") for text in texts)


@pytest.mark.parametrize(
    ("axes", "panels"),
    [
        ({"sparsity": (0.0, 0.01)}, 1),
        ({"sparsity": (0.0, 0.01), "latent_dim": (6, 8), "data.environments": (4, 12)}, 4),
        ({"sparsity": (0.0, 0.01), "latent_dim": (6, 8), "k": (1, 2), "j": ("a", "b")}, 8),
        ({"latent_dim": tuple(range(6, 26)), "sparsity": (0.0, 0.01)}, 2),
    ],
)
def test_any_number_of_axes(monkeypatch, tmp_path, axes, panels):
    _, _, count = drawn(monkeypatch, grid(seeds=1, **axes), tmp_path)
    assert count == panels + 1


def test_no_grid_puts_models_below_each_other(monkeypatch, tmp_path):
    records = [record(model, model=model, metrics={MCC: 0.8}) for model in ("perturbed_vae", "cite_vae")]
    texts, _, count = drawn(monkeypatch, records, tmp_path)
    assert count == 2
    assert {"PerturbedVAE", "CITE-VAE"} <= set(texts)


def test_a_model_without_an_axis_says_so(monkeypatch, tmp_path):
    records = grid() + [record(f"b{d}", model="beta_vae", axes={"latent_dim": d}, metrics={MCC: 0.6}) for d in (6, 8)]
    texts, _, count = drawn(monkeypatch, records, tmp_path)
    assert "no sparsity in this model" in texts
    assert count == 4


def test_a_search_is_drawn_as_dots(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    records = [
        record(str(number), axes={"sparsity": float(s), "latent_dim": int(d)}, metrics={MCC: 0.5 + 0.4 * float(s)})
        for number, (s, d) in enumerate(zip(10 ** rng.uniform(-4, 0, 20), rng.integers(6, 12, 20), strict=True))
    ]
    texts, _, count = drawn(monkeypatch, records, tmp_path)
    assert count == 2
    assert not any("untrained" in text or "n = " in text for text in texts)


def test_without_truth_the_first_split_then_the_validation_loss_is_shown():
    losses = {"validation/loss": 1.0}
    ood = {"ood/seen2/rmse_relative": 0.5, "ood/seen1/rmse_relative": 0.6}
    assert headline(Records([record(metrics={**losses, **ood, MCC: 0.5})])).metric == MCC
    column = headline(Records([record(metrics={**losses, **ood})]))
    assert (column.metric, column.title) == ("ood/seen2/rmse_relative", "relative RMSE (seen2)")
    assert headline(Records([record(metrics=losses)])).title == "validation loss"
    assert headline(Records([record(state="failed", metrics=losses)])) is None


def test_a_prediction_is_compared_with_the_best_baseline():
    metric = "ood/double/rmse_relative"
    baselines = {f"baseline/control_mean/{metric}": 0.7, f"baseline/mean_effect/{metric}": 0.6}
    cell = Records([record(metrics={metric: 0.5}, baselines=baselines)])
    assert cell_reference(cell, headline(cell)) == ("mean effect", 0.6)
    assert cell_reference(cell, IDENTIFIABILITY[0]) is None


def test_nothing_finished_draws_nothing(tmp_path):
    assert heatmap(Records(grid()[:0]), tmp_path / "map.png") is None
    assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_no_global_state(tmp_path):
    before = dict(rcParams)
    heatmap(Records(grid()), tmp_path / "map.png", title="costs $5 and $6")
    assert dict(rcParams) == before
    assert pyplot.get_fignums() == []
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]


def test_colours_rise_in_lightness_and_keep_text_readable():
    colours = [sequential()(x) for x in np.linspace(0, 1, 21)]
    lightness = [np.dot([0.2126, 0.7152, 0.0722], np.power(colour[:3], 2.2)) for colour in colours]
    assert np.all(np.diff(lightness) > 0)
    for colour in colours:
        assert contrast(to_rgb(colour), to_rgb(ink_on(colour))) >= 3.9


def contrast(first, second):
    """WCAG contrast ratio."""
    linear = [
        np.where(np.array(c) <= 0.03928, np.array(c) / 12.92, ((np.array(c) + 0.055) / 1.055) ** 2.4)
        for c in (first, second)
    ]
    low, high = sorted(float(c @ [0.2126, 0.7152, 0.0722]) for c in linear)
    return (high + 0.05) / (low + 0.05)


def test_match_recovers_a_permutation_whatever_the_sign():
    true = np.random.default_rng(0).standard_normal((200, 4))
    order, signs = [2, 0, 3, 1], np.array([1.0, -3.0, 0.5, -1.0])
    partners, correlation = match(true, true[:, order] * signs)
    assert [order[partner] for partner in partners] == [0, 1, 2, 3]
    assert np.abs([correlation[k, partners[k]] for k in range(4)]) == pytest.approx(1.0)


def test_match_leaves_what_has_no_partner_and_takes_a_constant_for_uncorrelated():
    true = np.random.default_rng(0).standard_normal((50, 3))
    learned = np.column_stack([true[:, 1], np.full(50, 2.5)])
    partners, correlation = match(true, learned)
    assert partners[1] == 0
    assert sorted(partners, key=str).count(None) == 1
    assert np.all(correlation[:, 1] == 0)


@pytest.mark.parametrize(("learned", "invariant"), [(5, True), (2, True), (3, False)])
def test_latents_figure(tmp_path, learned, invariant):
    latents(tmp_path / "latents.npz", learned=learned, invariant=invariant)
    out = latents_figure(tmp_path / "latents.npz", tmp_path / "out" / "latents.png", title="a")
    assert imread(out).ndim == 3


def test_latents_figure_of_collapsed_latents_and_an_empty_block(tmp_path):
    true = np.random.default_rng(0).standard_normal((40, 2))
    np.savez(
        tmp_path / "latents.npz",
        responsive_true=true,
        invariant_true=true,
        responsive=np.zeros((40, 2)),
        invariant=np.zeros((40, 0)),
        condition=np.zeros(40, dtype=int),
    )
    assert latents_figure(tmp_path / "latents.npz", tmp_path / "latents.png") is not None


def test_latents_without_truth_have_no_figure(tmp_path):
    np.savez(tmp_path / "latents.npz", responsive=np.zeros((3, 1)), condition=np.zeros(3, dtype=int))
    assert latents_figure(tmp_path / "latents.npz", tmp_path / "latents.png") is None


def test_a_file_that_is_no_latents_is_refused(tmp_path):
    (tmp_path / "latents.npz").write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match="not a readable file of latents"):
        latents_figure(tmp_path / "latents.npz", tmp_path / "latents.png")
    with pytest.raises(UserError, match="not a readable file of latents"):
        latents_figure(tmp_path / "none.npz", tmp_path / "latents.png")
