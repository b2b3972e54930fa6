import numpy as np
import pytest
from comparing import means
from sklearn.decomposition import PCA

from harness.evaluation.baselines import BASELINES, Baselines, CannotPredict
from harness.evaluation.ridge import Ridge
from harness.evaluation.scores import NonFiniteError


def estimated(train, **options):
    return Baselines(means(train), **options)


@pytest.fixture
def train():
    control = np.array([[0.0, 1.0], [2.0, 3.0]])  # mean (1, 2)
    return {"control": control, "A": np.array([[2.0, 2.0]]), "B": np.array([[1.0, 5.0], [1.0, 7.0]])}


def test_shifts_by_hand(train):
    baselines = estimated(train)
    np.testing.assert_allclose(baselines.shift("control_mean", "A+B"), [0, 0])
    np.testing.assert_allclose(baselines.shift("additive", "A"), [1, 0])
    np.testing.assert_allclose(baselines.shift("additive", "A+B"), [1, 4])
    np.testing.assert_allclose(baselines.shift("additive", "B+A"), [1, 4])
    np.testing.assert_allclose(baselines.shift("mean_effect", "A+B"), [0.5, 2])


def test_predictions_keep_the_variance_of_the_control_cells(train):
    baselines = estimated(train)
    cells = np.random.default_rng(0).normal(size=(20, 2))
    for name in BASELINES:
        predicted = baselines.predict(name, "A+B", cells)
        np.testing.assert_allclose(predicted.std(axis=0), cells.std(axis=0))
        np.testing.assert_allclose(predicted.mean(axis=0), cells.mean(axis=0) + baselines.shift(name, "A+B"))


def test_additive_is_exact_where_the_truth_is(train):
    rng = np.random.default_rng(1)
    effects = rng.normal(size=(2, 5))
    control = rng.normal(size=(10, 5))
    baselines = estimated({"control": control, "A": control + effects[0], "B": control + effects[1]})
    np.testing.assert_allclose(baselines.predict("additive", "A+B", control), control + effects.sum(axis=0))


def test_doubles_in_training_are_ignored(train):
    more = estimated(train | {"A+B": np.full((3, 2), 99.0)})
    np.testing.assert_allclose(more.mean_effect, estimated(train).mean_effect)


def test_refusals(train):
    with pytest.raises(CannotPredict, match="no training cells of C alone"):
        estimated(train).shift("additive", "A+C")
    with pytest.raises(ValueError, match="unknown baseline"):
        estimated(train).shift("best", "A")
    with pytest.raises(ValueError, match="control"):
        estimated({"A": train["A"]})
    with pytest.raises(ValueError, match="no single perturbation"):
        estimated({"control": train["control"]})
    with pytest.raises(NonFiniteError, match="training cells of A"):
        estimated(train | {"A": np.array([[np.nan, 0.0]])})


def additive_world(conditions, genes=30, seed=0):
    """Exact cells (one each) of conditions whose members' effects add up, and the effects."""
    random = np.random.default_rng(seed)
    members = sorted({m for c in conditions for m in c.split("+")})
    effects = {m: random.normal(size=genes) for m in members}
    control = random.normal(size=(1, genes))
    cells = {c: control + sum(effects[m] for m in c.split("+")) for c in conditions}
    return {"control": control, **cells}, effects


def test_two_hot_ridge_of_singles_is_all_but_additive():
    train, effects = additive_world(["A", "B", "C"])
    baselines = estimated(train)
    np.testing.assert_allclose(baselines.shift("linear", "A+B"), effects["A"] + effects["B"], rtol=1e-3)
    assert baselines.embedding_of("A+B") == "one-hot"


def test_linear_learns_a_member_that_was_seen_in_pairs_alone():
    train, effects = additive_world(["A", "B", "C", "A+D", "B+D", "C+D"])
    baselines = estimated(train)
    with pytest.raises(CannotPredict):
        baselines.shift("additive", "D")
    np.testing.assert_allclose(baselines.shift("linear", "D"), effects["D"], rtol=1e-2, atol=1e-2)


def test_linear_from_given_vectors_predicts_what_was_never_seen():
    random = np.random.default_rng(1)
    vectors = {f"p{k}": random.normal(size=3) for k in range(20)}
    weights = random.normal(size=(3, 40))
    control = random.normal(size=(1, 40))
    cells = {name: control + 0.5 + vector @ weights for name, vector in vectors.items() if name != "p19"}
    baselines = estimated({"control": control, **cells}, vectors=vectors)
    np.testing.assert_allclose(baselines.shift("linear", "p19"), 0.5 + vectors["p19"] @ weights, atol=0.01)
    assert baselines.embedding_of("p19") == "given vectors"
    closest = min(list(vectors)[:-1], key=lambda name: np.linalg.norm(vectors[name] - vectors["p19"]))
    np.testing.assert_allclose(baselines.shift("nearest", "p19"), baselines.effects[closest])
    with pytest.raises(CannotPredict, match="no training cells of q, which has no vector either"):
        baselines.shift("linear", "q")


def test_gene_loadings_are_those_of_sklearn_and_carry_over_to_unseen_genes():
    random = np.random.default_rng(2)
    names = [f"g{k}" for k in range(25)]
    control = random.normal(size=(1, 25))
    cells = {name: control + random.normal(size=25) for name in names[:12]}
    baselines = estimated({"control": control, **cells}, features=names)
    fitted = PCA(10).fit(np.concatenate([control, *cells.values()]))
    loadings = (fitted.components_ * fitted.singular_values_[:, None]).T
    distances = np.linalg.norm(loadings[:12] - loadings[20], axis=1)
    np.testing.assert_allclose(baselines.shift("nearest", "g20"), baselines.effects[names[int(distances.argmin())]])
    assert baselines.embedding_of("g20") == "gene loadings"
    fit = Ridge(loadings[:12], np.concatenate(list(cells.values())) - control, intercept=True)
    np.testing.assert_allclose(baselines.shift("linear", "g20"), fit(loadings[20]), rtol=1e-6)
    assert baselines.embedding_of("g20+other") == "one-hot"
    with pytest.raises(CannotPredict, match="other, which is no measured gene either"):
        baselines.shift("nearest", "other")


def test_nearest_prefers_shared_members_and_itself():
    train, _ = additive_world(["A", "B", "C", "A+C"])
    baselines = estimated(train)
    both = 0.5 * (baselines.effects["A"] + baselines.effects["B"])
    np.testing.assert_allclose(baselines.shift("nearest", "A+B"), both)
    np.testing.assert_allclose(baselines.shift("nearest", "A"), baselines.effects["A"])
    np.testing.assert_allclose(baselines.shift("nearest", "C+A"), (train["A+C"] - train["control"])[0])
