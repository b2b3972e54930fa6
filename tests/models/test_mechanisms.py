"""Mechanism families: what each may change and what not, what its penalty weighs, how it anneals and moves."""

import itertools

import pytest
import torch

from harness.models.mechanisms import (
    DiagonalMechanisms,
    FamilyOptions,
    FreeMechanisms,
    GroupSparseMechanisms,
    KnownTargets,
    LearnedTargets,
    build_family,
)
from harness.models.mechanisms.base import LAGGED
from harness.models.scm import noise_of

P, V, D_I = 3, 4, 2
TARGETS = torch.tensor([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]], dtype=torch.bool)
PARTS = ("graph", "graph_invariant", "lagged", "mean", "variance", "bent")
CONTROL, *SINGLES = torch.cat([torch.zeros(1, P), torch.eye(P)]).double().split(1)


def _known(lagged="none", intervention="cut"):
    return KnownTargets(TARGETS, D_I, lagged, intervention)


FAMILIES = {
    "free": lambda lagged: FreeMechanisms(P, V, D_I, lagged),
    "diagonal": lambda lagged: DiagonalMechanisms(P, V, D_I, lagged),
    "group_sparse": lambda lagged: GroupSparseMechanisms(P, V, D_I, lagged),
    "known cut": _known,
    "known soft": lambda lagged: _known(lagged, "soft"),
    "learned cut": lambda lagged: LearnedTargets(P, V, D_I, lagged, count=2),
    "learned soft": lambda lagged: LearnedTargets(P, V, D_I, lagged, "soft", count=2),
}
EVERY = pytest.mark.parametrize("name", FAMILIES)
EVERY_LAG = pytest.mark.parametrize("lagged", LAGGED)


def _family(name, lagged="none", seed=0):
    """A family with every parameter drawn at random, in double precision."""
    torch.manual_seed(seed)
    family = FAMILIES[name](lagged).double()
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return family


def _row(mechanism, part, k):
    return getattr(mechanism, part)[0, k]


# -- what a family may change ---------------------------------------------------------------------------


@EVERY_LAG
@pytest.mark.parametrize("name", ["free", "group_sparse"])
def test_free_mechanisms_change_every_row_in_every_environment(name, lagged):
    family = _family(name, lagged)
    control = family(CONTROL)
    parts = [part for part in PARTS if getattr(control, part).any()]
    for u, k, part in itertools.product(SINGLES, range(1, V), parts):
        assert not torch.equal(_row(family(u), part, k), _row(control, part, k)), (part, k)


@EVERY
@EVERY_LAG
def test_the_lagged_part_has_the_form_asked_for(name, lagged):
    for u in (CONTROL, *SINGLES):
        mechanism = _family(name, lagged)(u)
        own = mechanism.lagged[0].diagonal()
        elsewhere = mechanism.lagged[0] - torch.diag(own)
        assert bool(elsewhere.any()) == (lagged in ("dense", "nonlinear"))
        assert bool(own.any()) == (lagged != "none")
        assert mechanism.is_linear == (lagged != "nonlinear")
        assert bool(mechanism.bent.any()) == (lagged == "nonlinear")


@EVERY
def test_edges_point_down_the_causal_order_and_variances_are_positive(name):
    family = _family(name, "dense")
    for u in (CONTROL, *SINGLES, torch.ones(1, P).double()):
        mechanism = family(u)
        assert not mechanism.graph.triu().any()
        assert (mechanism.variance > 0).all()
    assert bool(family(CONTROL).graph.any()) == (name != "diagonal")


def test_diagonal_has_no_edges_whatever_u_and_parameters():
    family = _family("diagonal", "dense")
    assert not family(torch.randn(50, P).double()).graph.any()
    assert not family.masked_graph.any()
    family(torch.ones(1, P).double()).graph.sum().backward()
    assert not family.graph.grad.any()
    assert not family.graph_change.grad.any()


@EVERY_LAG
def test_a_cut_leaves_a_target_without_parents_and_other_rows_as_in_control(lagged):
    family = _family("known cut", lagged)
    control = family(CONTROL)
    for u, targets in zip(SINGLES, TARGETS, strict=True):
        mechanism = family(u)
        for k, part in itertools.product(range(V), PARTS):
            if not targets[k]:
                torch.testing.assert_close(_row(mechanism, part, k), _row(control, part, k))
            elif part in ("mean", "variance"):
                assert _row(mechanism, part, k) != _row(control, part, k)
            else:
                assert not _row(mechanism, part, k).any()
    assert control.graph_invariant.all()


def test_the_noise_of_a_cut_latent_is_its_value():
    """What cutting means: no other latent, no invariant part, no past, linear or bent, reaches it any more."""
    family = _family("known cut", "nonlinear")
    latents, invariant, before = (torch.randn(1, k).double() for k in (V, D_I, V))
    noise = noise_of(family(SINGLES[2]), latents, invariant, before)
    torch.testing.assert_close(noise[0, 2:], latents[0, 2:])
    assert (noise[0, :2] - latents[0, :2]).abs().min() > 1e-3


@EVERY_LAG
def test_soft_interventions_change_all_of_the_targets_rows_and_no_other(lagged):
    family = _family("known soft", lagged)
    control = family(CONTROL)
    parts = [part for part in PARTS if getattr(control, part).any()]
    for u, targets in zip(SINGLES, TARGETS, strict=True):
        mechanism = family(u)
        for k, part in itertools.product(range(V), parts):
            same = torch.equal(_row(mechanism, part, k), _row(control, part, k))
            rootless = part == "graph" and k == 0
            assert same == (not targets[k] or rootless), (k, part)
            assert rootless or _row(mechanism, part, k).any()


def test_a_double_that_hits_one_latent_twice_cuts_it_once():
    """1 − the sum of two targets would be −1: edges of the wrong sign instead of none."""
    family = _family("known cut", "dense")
    both = family(SINGLES[1] + SINGLES[2])
    for part in ("graph", "graph_invariant", "lagged"):
        assert not getattr(both, part)[0, 2:].any()
        torch.testing.assert_close(getattr(both, part)[0, :2], getattr(family(CONTROL), part)[0, :2])
    shifts = [family(u).mean - family(CONTROL).mean for u in SINGLES]
    torch.testing.assert_close(both.mean - family(CONTROL).mean, shifts[1] + shifts[2])


def test_softly_assigned_doubles_keep_a_share_of_the_edges_between_none_and_all():
    family = _family("learned cut")
    with torch.no_grad():
        family.logits.zero_()
    share = 1 - 0.75**2  # two draws, each naming one of four latents with probability 1/4
    torch.testing.assert_close(family.assignment(), torch.full((P, V), share).double())
    control, one, two = (family(u) for u in (CONTROL, SINGLES[0], SINGLES[0] + SINGLES[1]))
    torch.testing.assert_close(one.graph, (1 - share) * control.graph)
    torch.testing.assert_close(two.graph, (1 - 2 * share) * control.graph)
    assert not family(torch.ones(1, P).double()).graph.any()  # 3 · share > 1


# -- learned targets ------------------------------------------------------------------------------------


def test_the_assignment_cools_geometrically_and_is_then_hard():
    family = _family("learned cut")
    assert family.temperature == 1.0
    for progress, temperature in ((0.0, 1.0), (0.15, 0.1**0.25), (0.3, 0.1**0.5), (0.45, 0.1**0.75)):
        family.anneal(progress)
        assert family.temperature.item() == pytest.approx(temperature, rel=1e-6)
        drawn = torch.softmax(family.logits / temperature, dim=2)
        torch.testing.assert_close(family.assignment(), 1 - (1 - drawn[0]) * (1 - drawn[1]))
        assert not family.settled
    family.anneal(0.6)
    assert family.settled
    assert set(family.assignment().flatten().tolist()) == {0.0, 1.0}


def test_a_hard_assignment_stays_hard_until_it_is_started_afresh():
    family = _family("learned cut")
    family.anneal(1.0)
    hard = family.assignment()
    family.anneal(0.1)
    assert family.settled
    assert torch.equal(family.assignment(), hard)
    family.restart(torch.Generator().manual_seed(0))
    assert not family.settled
    assert ((family.assignment() > 0.2) & (family.assignment() < 0.8)).all()


def test_a_checkpoint_keeps_the_temperature():
    family, again = _family("learned cut"), _family("learned cut", seed=1)
    family.anneal(0.45)
    again.load_state_dict(family.state_dict())
    assert torch.equal(again.assignment(), family.assignment())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_hard_perturbations_act_on_at_most_as_many_latents_as_they_may(count):
    torch.manual_seed(0)
    family = LearnedTargets(200, V, D_I, count=count)
    family.anneal(1.0)
    acted_on = family.assignment().sum(1)
    assert acted_on.max() == count
    assert acted_on.min() == 1  # draws may agree, but each names one
    named = torch.nn.functional.one_hot(family.logits.argmax(2), V).amax(0)
    torch.testing.assert_close(family.assignment(), named.float())
    assert torch.equal(family.target_scores(), family.assignment())


def test_hard_learned_targets_give_the_mechanism_of_known_ones():
    learned, known = _family("learned cut", "dense"), _family("known cut", "dense")
    with torch.no_grad():
        for name, parameter in known.named_parameters():
            parameter.copy_(dict(learned.named_parameters())[name])
        named = torch.tensor([[0, 2, 2], [0, 2, 3]])
        learned.logits.copy_(5 * torch.nn.functional.one_hot(named, V))
    learned.anneal(1.0)
    for ours, theirs in zip(learned(torch.cat(SINGLES)), known(torch.cat(SINGLES)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_only_families_with_targets_score_them():
    assert torch.equal(_known().target_scores(), TARGETS.float())
    for name in ("free", "diagonal", "group_sparse"):
        assert FAMILIES[name]("none").target_scores() is None


# -- order and restarts ---------------------------------------------------------------------------------

ORDER = [1, 0, 3, 2]


def _two_layers(family):
    """Keep only the edges from the first two latents to the last two, with which ``ORDER`` agrees."""
    with torch.no_grad():
        for name, parameter in family.named_parameters():
            if name in ("graph", "graph_change"):
                parameter[..., :2, :] = 0
                parameter[..., 2:] = 0
    return family


@EVERY
@EVERY_LAG
def test_permuted_families_give_the_permuted_mechanism(name, lagged):
    family, moved = _two_layers(_family(name, lagged)), _two_layers(_family(name, lagged))
    moved.permute(ORDER)
    latents, before, invariant = (torch.randn(P + 1, k).double() for k in (V, V, D_I))
    u = torch.cat([CONTROL, *SINGLES])
    ours, theirs = family(u), moved(u)
    torch.testing.assert_close(theirs.graph, ours.graph[:, ORDER][:, :, ORDER])
    torch.testing.assert_close(theirs.mean, ours.mean[:, ORDER])
    torch.testing.assert_close(theirs.variance, ours.variance[:, ORDER])
    noise = noise_of(ours, latents, invariant, before)
    torch.testing.assert_close(noise_of(theirs, latents[:, ORDER], invariant, before[:, ORDER]), noise[:, ORDER])
    if name != "diagonal":
        assert ours.graph.any()


@pytest.mark.parametrize("name", ["free", "known soft", "learned cut"])
def test_edges_that_would_point_backwards_are_dropped_for_good(name):
    family = _family(name)
    u = torch.cat([CONTROL, *SINGLES])
    assert (family(u).graph[:, 1, 0] != 0).any()
    for _ in range(2):  # there and back again
        family.permute([1, 0, 2, 3])
        assert not family(u).graph[:, 1, 0].any()
    assert (family(u).graph[:, 3, 2] != 0).any()


@EVERY
@EVERY_LAG
def test_a_restart_forgets_everything(name, lagged):
    family = _family(name, lagged)
    family.restart(torch.Generator().manual_seed(0))
    mechanism = family(torch.cat([CONTROL, *SINGLES]))
    for part in ("graph", "graph_invariant", "lagged", "mean", "bent"):
        assert not getattr(mechanism, part).any()
    torch.testing.assert_close(mechanism.variance, torch.full((P + 1, V), 1.0001).double())
    torch.testing.assert_close(family.penalty(), torch.zeros(()).double(), atol=2e-4, rtol=0)
    assert bool(mechanism.bends.any()) == (lagged == "nonlinear")  # else D would have no slope


def test_restarts_differ_by_their_generator_alone():
    families = [_family("learned cut", seed=seed) for seed in range(3)]
    for family, seed in zip(families, (7, 7, 8), strict=True):
        family.restart(torch.Generator().manual_seed(seed))
    first, second, third = (family.logits for family in families)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


# -- penalties and slopes -------------------------------------------------------------------------------


def _set(family, **entries):
    with torch.no_grad():
        for name, (place, value) in entries.items():
            getattr(family, name)[place] = value
    return family


def test_free_penalty_counts_graph_lagged_part_and_every_change():
    family = _set(
        FAMILIES["free"]("nonlinear"),
        graph=((2, 0), -2.0),
        graph_invariant=((0, 1), 0.25),
        before=((0, 3), 1.0),
        bent=((1, 0), -0.5),
        graph_change=((0, 3, 1), 4.0),
        graph_invariant_change=((1, 0, 0), 0.125),
        before_change=((2, 1, 1), -8.0),
        bent_change=((0, 0, 5), 16.0),
        mean_change=((0, 0), -32.0),
        raw_variance_change=((1, 2), 64.0),
        mean=((0,), 100.0),  # where control is, is no effect
    )
    total = 2.0 + 0.25 + 1.0 + 0.5 + 4.0 + 0.125 + 8.0 + 16.0 + 32.0 + 64.0
    assert family.penalty().item() == pytest.approx(total)
    _set(family, graph=((0, 2), 7.0), graph_change=((0, 1, 3), 7.0))  # above the diagonal: no edges
    assert family.penalty().item() == pytest.approx(total)


@pytest.mark.parametrize(("lagged", "place"), [("diagonal", (1, 2)), ("dense", (1, 2, 0))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_targeted_penalty_counts_only_what_targets_make_of_the_changes(lagged, place, dtype):
    soft = _known(lagged, "soft").to(dtype)
    _set(soft, graph=((2, 0), -2.0), mean_change=((0, 0), 0.5), before_change=(place, 4.0))
    _set(soft, graph_change=((2, 3, 1), -8.0), raw_variance_change=((1, 2), 16.0))
    assert soft.penalty().item() == pytest.approx(30.5)
    _set(soft, mean_change=((0, 1), 7.0), graph_change=((0, 1, 0), 7.0))  # not targets
    assert soft.penalty().item() == pytest.approx(30.5)
    cut = _set(_known(), graph=((2, 0), -2.0), graph_invariant=((2, 0), 1.0), mean_change=((0, 0), 0.5))
    assert cut.penalty().item() == pytest.approx(3.5)


def test_group_sparse_penalty_is_the_sum_of_norms_of_row_changes():
    family = _set(FAMILIES["group_sparse"]("diagonal"), graph=((2, 0), 7.0))
    _set(family, graph_change=((0, 2, 1), 2.0), before_change=((0, 2), 3.0), mean_change=((0, 2), 6.0))
    _set(family, raw_variance_change=((1, 3), -4.0))
    norms = torch.zeros(P, V)
    norms[0, 2], norms[1, 3] = 7.0, 4.0  # √(2² + 3² + 6²)
    torch.testing.assert_close(family.row_changes(), norms, atol=1.1e-5, rtol=0)
    assert family.penalty().item() == pytest.approx(11.0, abs=P * V * 1.1e-5)
    family.penalty().backward()
    assert not family.graph.grad  # the graph is free
    assert all(torch.isfinite(parameter.grad).all() for parameter in family.parameters() if parameter.grad is not None)


@EVERY
@EVERY_LAG
def test_latents_pull_at_every_parameter(name, lagged):
    family = _family(name, lagged)
    latents, before, invariant = (torch.randn(P + 1, k).double() for k in (V, V, D_I))
    mechanism = family(torch.cat([CONTROL, *SINGLES]))
    noise = noise_of(mechanism, latents, invariant, before) - mechanism.mean
    (noise.square() / mechanism.variance + mechanism.variance.log()).sum().backward()
    for parameter_name, parameter in family.named_parameters():
        has_slope = not (name == "diagonal" and parameter_name in ("graph", "graph_change"))
        assert bool(parameter.grad.any()) == has_slope, parameter_name


# -- as the study file names them -----------------------------------------------------------------------


def _build(mechanisms="targeted", known=TARGETS, responsive=V, **options):
    return build_family(
        FamilyOptions(mechanisms, **options), perturbations=P, responsive=responsive, invariant=D_I, known=known
    )


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"mechanisms": "free"}, FreeMechanisms),
        ({"mechanisms": "diagonal"}, DiagonalMechanisms),
        ({"mechanisms": "group_sparse"}, GroupSparseMechanisms),
        ({"targets": "known"}, KnownTargets),
        ({"targets": "known_unordered"}, KnownTargets),
        ({"targets": "learned"}, LearnedTargets),
    ],
)
def test_a_study_file_names_a_family_and_its_options_arrive(options, kind):
    family = _build(**options, lagged="dense", intervention="soft", targets_per_perturbation=2)
    assert type(family) is kind
    assert family.lagged == "dense"
    if kind in (KnownTargets, LearnedTargets):
        assert family.intervention == "soft"
    if kind is LearnedTargets:
        assert len(family.logits) == 2


def test_known_targets_keep_their_columns_and_pad_with_untargeted_latents():
    family = _build(targets="known", responsive=6)
    assert torch.equal(family.targets[:, :V], TARGETS.float())
    assert not family.targets[:, V:].any()


def test_known_unordered_does_not_give_the_order_away():
    """The first latent of the data comes to stand at every place, and no column is lost or made up."""
    places = set()
    for seed in range(60):
        torch.manual_seed(seed)
        targets = _build(targets="known_unordered", responsive=5).targets
        assert sorted(targets.T.tolist()) == sorted([*TARGETS.T.float().tolist(), [0.0] * P])
        places.add(int(targets[0].argmax()))
    assert places == set(range(5))


def test_the_order_is_open_where_it_matters_and_is_not_given():
    opened = {
        (mechanisms, targets): FamilyOptions(mechanisms, targets).order_is_open
        for mechanisms in ("free", "diagonal", "group_sparse", "targeted")
        for targets in ("known", "known_unordered", "learned")
    }
    assert {key for key, is_open in opened.items() if is_open} == {
        ("targeted", "known_unordered"),
        ("targeted", "learned"),
    }


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FreeMechanisms(P, V, D_I, "cubic"), "lagged 'cubic' is unknown; known are none, diagonal"),
        (lambda: _known("none", "hard"), "intervention 'hard' is unknown; known are cut, soft"),
        (lambda: LearnedTargets(P, V, D_I, count=0), "targets_per_perturbation is 0"),
        (lambda: LearnedTargets(P, V, D_I, count=5), "targets_per_perturbation is 5, but there are 4"),
        (lambda: _build("loose"), "mechanisms 'loose' is unknown; known are free, diagonal, group_sparse, targeted"),
        (lambda: _build(known=None), "targets: known needs known targets.*use targets: learned"),
        (lambda: _build(targets="known_unordered", known=None), "targets: known_unordered needs known targets"),
        (lambda: _build(responsive=3), "needs a responsive latent for each of the 4 targets, not 3"),
    ],
)
def test_impossible_families_are_refused_with_a_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make()
