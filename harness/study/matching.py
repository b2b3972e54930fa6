"""Whether a model can be built on some data at all, as far as the spec alone tells: no file is opened."""

from __future__ import annotations

from dataclasses import dataclass

from harness.data_spec import AnyDataSpec, ImageData, PerturbseqData
from harness.model_spec import (
    IMAGE_NETWORKS,
    AnyModelSpec,
    BetaVAESpec,
    CausalModelSpec,
    DiscrepancyVAESpec,
    PerturbedVAESpec,
    SupervisedSpec,
)
from harness.process_spec import LinearGaussianSpec
from harness.trial_spec import PUBLISHED_R2_CELLS, EvaluateSpec


@dataclass(frozen=True)
class Mismatch:
    """A field of a model, or of the data, that the data cannot serve.

    Attributes
    ----------
    part : ``model`` or ``data``.
    field : the field's name.
    says : what is wrong and what would do, to follow the field's key path.
    """

    part: str
    field: str
    says: str


def mismatch(model: AnyModelSpec, data: AnyDataSpec, evaluate: EvaluateSpec | None = None) -> Mismatch | None:
    """The first thing about a model, or a score, that these data cannot serve; None where none is known."""
    return (
        _of_data(data)
        or _of_scores(data, evaluate)
        or _of_inputs(model, data)
        or _of_truth(model, data)
        or _of_causes(model, data)
        or _of_vectors(model, data)
        or _of_pairs(model, data)
    )


def _of_data(data: AnyDataSpec) -> Mismatch | None:
    if isinstance(data, PerturbseqData) and data.path is None and data.values == "lognorm":
        return Mismatch("data", "values", "is lognorm, but simulated data are counts; leave it out, or set data.path")
    return None


def _of_scores(data: AnyDataSpec, evaluate: EvaluateSpec | None) -> Mismatch | None:
    if evaluate is None or not evaluate.published_r2 or getattr(data, "path", None) is not None:
        return None  # how many cells a file leaves to test on is known once it is read
    if data.test_cells >= PUBLISHED_R2_CELLS:
        return None
    return Mismatch(
        "data",
        "test_cells",
        f"is {data.test_cells:,}, but evaluate.published_r2 needs {PUBLISHED_R2_CELLS:,} or more; "
        "give more, or leave published_r2 out",
    )


def _of_inputs(model: AnyModelSpec, data: AnyDataSpec) -> Mismatch | None:
    if model.network in IMAGE_NETWORKS and not isinstance(data, ImageData):
        says = f"is {model.network}, but {data.kind} data are vectors and no images; use mlp"
        return Mismatch("model", "network", says)
    features = _features(data)
    if model.input_pca is not None and features is not None and model.input_pca > features:
        return Mismatch(
            "model", "input_pca", f"is {model.input_pca}, but a frame of these data has {features} features; use fewer"
        )
    return None


def _of_truth(model: AnyModelSpec, data: AnyDataSpec) -> Mismatch | None:
    if isinstance(model, SupervisedSpec) and isinstance(data, PerturbseqData) and data.path is not None:
        return Mismatch(
            "model", "kind", "is supervised, but a file of cells has no true latents to learn from; use another kind"
        )
    return None


def _of_causes(model: AnyModelSpec, data: AnyDataSpec) -> Mismatch | None:
    if not isinstance(model, CausalModelSpec) or model.mechanisms != "targeted" or model.targets == "learned":
        return None
    if isinstance(data, PerturbseqData) and data.path is not None:
        if model.targets == "auto":
            return None
        return Mismatch(
            "model",
            "targets",
            f"is {model.targets}, but which latents are targets is not known of a file of cells; use learned",
        )
    known = _responsive(data)
    if known > model.d_v:
        return Mismatch(
            "model",
            "responsive_dim",
            f"gives {model.d_v}, but mechanisms: targeted needs a responsive latent for each of the {known} that the "
            f"data have; give {known} or more, or use targets: learned",
        )
    return None


def _of_vectors(model: AnyModelSpec, data: AnyDataSpec) -> Mismatch | None:
    """What needs a column of u for each perturbation, where u is made of vectors."""
    if not isinstance(data, PerturbseqData) or data.perturbation_features == "onehot":
        return None
    because = f"but data.perturbation_features ({data.perturbation_features}) make u a sum of vectors"
    if isinstance(model, DiscrepancyVAESpec):
        return Mismatch(
            "model", "kind", f"is discrepancy_vae, which shifts a latent for each perturbation, {because}; use onehot"
        )
    if isinstance(model, CausalModelSpec) and model.mechanisms not in ("free", "diagonal"):
        return Mismatch(
            "model",
            "mechanisms",
            f"is {model.mechanisms}, which changes rows perturbation by perturbation, {because}; use free or diagonal",
        )
    return None


def _of_pairs(model: AnyModelSpec, data: AnyDataSpec) -> Mismatch | None:
    if isinstance(model, BetaVAESpec | SupervisedSpec):
        return None
    if model.pairing == "true" and data.pairs == "nearest":
        return Mismatch(
            "model",
            "pairing",
            "is true, but no image of a release has a true twin: its control is the nearest stored image "
            "(data.pairs: nearest); use auto, which takes it as it is",
        )
    if model.pairing == "true" and data.pairs != "true":
        return Mismatch(
            "model",
            "pairing",
            f"is true, but these data hold no true pairs of cell and control (data.pairs: {data.pairs}); "
            "use random or ot",
        )
    if model.pairing == "auto" and data.pairs == "none" and not isinstance(model, PerturbedVAESpec):
        return Mismatch(
            "model",
            "pairing",
            f"is auto, but the data offer no control for {model.kind} to start from (data.pairs: none); use random",
        )
    if _steps(data) > 1 and model.pairing in ("random", "ot"):
        return Mismatch(
            "model", "pairing", f"is {model.pairing}, which would break the trajectories of these data; use auto"
        )
    return None


def _features(data: AnyDataSpec) -> int | None:
    """Numbers in a frame; None where only the file knows."""
    if isinstance(data, ImageData):
        return 3 * data.image_size**2
    if isinstance(data, PerturbseqData):
        return data.genes if data.path is None else None
    return data.features


def _steps(data: AnyDataSpec) -> int:
    """Frames under u of a generated trajectory; a file of cells is a snapshot."""
    if isinstance(data, PerturbseqData) and data.path is not None:
        return 1
    return data.process.steps if isinstance(data.process, LinearGaussianSpec) else 1


def _responsive(data: AnyDataSpec) -> int:
    """Responsive latents of generated data, each of them a possible target."""
    return len(data.responsive) if isinstance(data, ImageData) else data.process.responsive
