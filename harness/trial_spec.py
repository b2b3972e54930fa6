"""What determines a trial's result, as types: model, data, training, evaluation, seed.

A leaf: it imports nothing of the project, so that the study (above) and the trial (below) can both read it.
Where a trial runs (partition, workers, device) is no part of it; see ``harness.study.spec``.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: Raised by hand when a change alters results; part of every trial's id.
RESULTS_VERSION = 1

Range = Annotated[tuple[float, float], Field(strict=False, description="[low, high]")]
Names = Annotated[tuple[str, ...], Field(strict=False)]


class Part(BaseModel):
    """A part of a spec: frozen, strict about types, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)


# ---------------------------------------------------------------------------------------------- models


def _pairing_word(value: object) -> object:
    """YAML reads ``pairing: true`` as a boolean and ``none`` as a word; both are words here."""
    return {True: "true", None: "none"}.get(value, value) if value is True or value is None else value


Pairing = Annotated[Literal["auto", "true", "random", "ot", "none"], BeforeValidator(_pairing_word)]


class AlignmentSpec(Part):
    """Penalty that keeps the invariant block the same in a perturbed cell and its control."""

    weight: float = Field(100.0, ge=0, description="α; scales with the likelihood's precision")
    kind: Literal["mean", "mmd"] = Field("mean", description="pair by pair, or between distributions")


class ModelSpec(Part):
    """Fields every latent model has."""

    latent_dim: int = Field(11, ge=1, le=4096, description="size of the latent space, d_v + d_i")
    network: Literal["auto", "mlp", "conv"] = Field("auto", description="auto: conv for images without input_pca")
    hidden: int = Field(128, ge=1, description="units of a hidden layer (mlp) or channels of the first (conv)")
    layers: int = Field(2, ge=1, le=16, description="hidden layers of encoder and decoder")
    input_pca: int | None = Field(None, ge=1, description="reduce inputs to this many principal components (mlp)")
    input_whiten: bool = Field(
        True, description="scale each component to unit variance; false keeps their proportions, for curved data"
    )
    likelihood_variance: float = Field(0.01, gt=0, description="fixed, on standardised or whitened inputs")
    kl_warmup: float = Field(0.1, ge=0, le=1, description="fraction of the epochs with a rising KL weight")

    @model_validator(mode="after")
    def _pca_needs_mlp(self) -> ModelSpec:
        if self.input_pca is not None and self.network == "conv":
            raise ValueError("input_pca needs network: mlp (a convolution has no pixels left to work on)")
        return self


class CausalModelSpec(ModelSpec):
    """Fields of the models with a responsive and an invariant block."""

    responsive_dim: int | float = Field(4, description="d_v: an integer, or a fraction of latent_dim")
    mechanisms: Literal["free", "targeted"] = Field("free", description="how mechanisms depend on u")
    posterior: Literal["unmixed", "noise"] = Field(
        "unmixed", description="unmixed: rotation on the side of the prior; noise: as published"
    )
    sparsity: float = Field(0.0, ge=0, description="weight of the L1 penalty on graph and perturbation effects")
    kl_responsive: float = Field(1.0, ge=0)
    kl_invariant: float = Field(1.0, ge=0)
    alignment: AlignmentSpec = AlignmentSpec()
    pairing: Pairing = Field("auto", description="auto: true pairs where the data have them, else random")

    @property
    def d_v(self) -> int:
        """Size of the responsive block."""
        if isinstance(self.responsive_dim, int):
            return self.responsive_dim
        return max(1, round(self.responsive_dim * self.latent_dim))

    @property
    def d_i(self) -> int:
        """Size of the invariant block."""
        return self.latent_dim - self.d_v

    @model_validator(mode="after")
    def _both_blocks_exist(self) -> CausalModelSpec:
        if isinstance(self.responsive_dim, float) and not 0 < self.responsive_dim < 1:
            raise ValueError("responsive_dim as a fraction lies strictly between 0 and 1")
        if not 1 <= self.d_v < self.latent_dim:
            raise ValueError(f"responsive_dim {self.responsive_dim} leaves no room in latent_dim {self.latent_dim}")
        return self


class PerturbedVAESpec(CausalModelSpec):
    """PerturbedVAE: one snapshot under u, paired with a control."""

    kind: Literal["perturbed_vae"] = "perturbed_vae"


class CiteVAESpec(CausalModelSpec):
    """CITE-VAE: a trajectory under u; a snapshot is two frames, control then perturbed."""

    kind: Literal["cite_vae"] = "cite_vae"
    lagged: Literal["diagonal", "dense"] = Field("diagonal", description="form of the lagged matrix B")

    @model_validator(mode="after")
    def _needs_a_first_frame(self) -> CiteVAESpec:
        if self.pairing == "none":
            raise ValueError("cite_vae starts from a control frame: pairing: none is not possible, random is")
        return self


class BetaVAESpec(ModelSpec):
    """β-VAE without u: the control that must fail to identify."""

    kind: Literal["beta_vae"] = "beta_vae"
    kl: float = Field(1.0, ge=0, description="weight of the KL term")


AnyModelSpec = Annotated[PerturbedVAESpec | CiteVAESpec | BetaVAESpec, Field(discriminator="kind")]


# ------------------------------------------------------------------------------------------------ data


class LinearGaussianSpec(Part):
    """The theorem's own latent process, its conditions as knobs (``data/latent_process.py``)."""

    kind: Literal["linear_gaussian"] = "linear_gaussian"
    responsive: int = Field(4, ge=1, description="true d_v")
    invariant: int = Field(7, ge=1, description="true d_i")
    intervention: Literal["cut", "soft"] = Field("cut", description="cut: the target's incoming edges vanish")
    edge_density: float = Field(1.0, ge=0, le=1, description="share of possible edges present")
    edge_range: Range = Field((0.5, 1.5), description="|weight| of an edge; its sign is random")
    mean_shift: Range = Field((1.0, 2.5), description="|shift| of a target's noise mean, in control sds")
    variance_range: Range = Field((0.2, 3.0), description="factor on a target's noise variance, log-uniform")
    steps: int = Field(1, ge=1, le=64, description="time steps under u after the control frame")
    lagged: Literal["none", "diagonal", "dense"] = Field("none", description="true lagged matrix")

    @model_validator(mode="after")
    def _ranges_rise(self) -> LinearGaussianSpec:
        for name in ("edge_range", "mean_shift", "variance_range"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} is [low, high] with 0 <= low <= high")
        if self.variance_range[0] <= 0:
            raise ValueError("variance_range starts above 0")
        if self.steps > 1 and self.lagged == "none":
            raise ValueError("steps > 1 needs lagged: diagonal or dense")
        return self


class NativeSpec(Part):
    """The graph of Causal3DIdent; environments are soft interventions on responsive mechanisms."""

    kind: Literal["native"] = "native"
    shift: Range = Field((0.3, 0.7), description="|shift| of a target's conditional mean; its sign is random")
    scale: Range = Field((0.4, 1.2), description="factor on a target's conditional sd, log-uniform")


DataSeed = Annotated[int, Field(ge=0)] | Literal["per_trial"]


class GeneratedData(Part):
    """Fields of data with perturbation environments that we generate."""

    seed: DataSeed = Field(0, description="governs truth and split; per_trial: a new truth for each seed")
    cache_dir: str | None = Field(None, description="where built datasets are kept; default: in the study root")
    environments: int = Field(12, ge=1, description="single perturbations, besides control")
    doubles: int = Field(4, ge=0, description="pairs of perturbations, held out as the OOD test")
    cells: int = Field(3000, ge=50, description="training and validation cells, over all environments")
    test_cells: int = Field(1000, ge=50, description="held-out cells of the training environments")
    double_cells: int = Field(100, ge=10, description="cells of each held-out double")
    validation: float = Field(0.1, gt=0, lt=0.5, description="share of cells that only validates")


#: The published simulation's sizes (arXiv 2605.19343: x 500-d, d_v = 4, d_i = 7, u 12-d, 3,000 / 1,000 cells).
SIMULATION_PRESETS: dict[str, dict[str, Any]] = {
    "published": {
        "features": 500,
        "environments": 12,
        "cells": 3000,
        "test_cells": 1000,
        "process": {"kind": "linear_gaussian", "responsive": 4, "invariant": 7},
    },
    "tiny": {
        "features": 20,
        "environments": 4,
        "doubles": 2,
        "cells": 400,
        "test_cells": 200,
        "double_cells": 40,
        "process": {"kind": "linear_gaussian", "responsive": 2, "invariant": 2},
    },
}


class SimulationData(GeneratedData):
    """Vectors from a random invertible mixing of the latent process."""

    kind: Literal["simulation"] = "simulation"
    preset: Literal["published", "tiny"] | None = Field(None, description="sizes to start from; other keys override")
    features: int = Field(500, ge=1, description="observed dimensions")
    mixing_layers: int = Field(1, ge=0, le=8, description="leaky layers before the linear lift")
    mixing_slope: float = Field(0.5, gt=0, le=1, description="negative slope of the leaky layers; 1 is linear")
    noise: float = Field(0.05, ge=0, description="sd of observation noise")
    process: LinearGaussianSpec = LinearGaussianSpec()

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("preset") not in SIMULATION_PRESETS:
            return value
        preset = SIMULATION_PRESETS[value["preset"]]
        given = value.get("process")
        merged = {**preset, **value}
        if isinstance(given, dict):
            merged["process"] = {**preset["process"], **given}
        return merged

    @model_validator(mode="after")
    def _mixing_is_injective(self) -> SimulationData:
        latent = self.process.responsive + self.process.invariant
        if self.features < latent:
            raise ValueError(f"features {self.features} cannot hold {latent} latents injectively")
        return self


OBJECT_LATENTS = ("x", "y", "z", "phi", "theta", "psi", "hue_object")
SCENE_LATENTS = ("spotlight", "hue_spotlight", "hue_background")


class Causal3DIdentData(GeneratedData):
    """Rendered (or released) images of one object in a lit scene."""

    kind: Literal["causal3dident"] = "causal3dident"
    path: str | None = Field(None, description="folder of the official release; without it images are rendered")
    meshes: str | None = Field(None, description="folder of meshes to render instead of our procedural shapes")
    classes: Annotated[tuple[Annotated[int, Field(ge=0, le=6)], ...], Field(strict=False, min_length=1)] = (0,)
    responsive: Names = Field(OBJECT_LATENTS, min_length=1, description="latents that perturbations change")
    invariant: Names = Field(SCENE_LATENTS, min_length=1, description="latents they do not")
    image_size: int = Field(64, ge=8, le=1024)
    samples: int = Field(16, ge=1, description="light samples a pixel")
    squash: float = Field(2.0, gt=0, description="linear_gaussian: sds of a latent that reach 0.76 of its image range")
    process: Annotated[NativeSpec | LinearGaussianSpec, Field(discriminator="kind")] = NativeSpec()

    @model_validator(mode="after")
    def _latents_are_known_and_disjoint(self) -> Causal3DIdentData:
        known = OBJECT_LATENTS + SCENE_LATENTS
        named = self.responsive + self.invariant
        for name in named:
            if name not in known:
                raise ValueError(f"latent {name!r} is unknown; known are {', '.join(known)}")
        if len(set(named)) < len(named):
            raise ValueError("a latent is named twice among responsive and invariant")
        process = self.process
        if isinstance(process, LinearGaussianSpec):
            if (process.responsive, process.invariant) != (len(self.responsive), len(self.invariant)):
                raise ValueError(
                    f"process.responsive/invariant must be {len(self.responsive)}/{len(self.invariant)}, "
                    "the number of latents named in data.responsive and data.invariant"
                )
            if process.steps > 1:
                raise ValueError("images have no time steps yet; set process.steps: 1")
        return self


class PerturbseqData(GeneratedData):
    """Single cells: somebody's ``.h5ad``, or counts from known latents where no path is given."""

    kind: Literal["perturbseq"] = "perturbseq"
    path: str | None = Field(None, description=".h5ad file; without it counts are simulated")
    column: str | None = Field(None, description="obs column of the perturbation; default: detected")
    control: str | None = Field(None, description="its label for control cells; default: detected")
    values: Literal["auto", "counts", "lognorm"] = Field("auto", description="what X holds; auto: from its values")
    min_cells: int = Field(20, ge=2, description="a condition with fewer cells is refused")
    split: Literal["singles_to_doubles"] = "singles_to_doubles"
    genes: int = Field(500, ge=2, description="simulated genes")
    library_size: float = Field(5000.0, gt=0, description="simulated mean counts a cell")
    dispersion: float = Field(0.1, ge=0, description="negative-binomial dispersion; 0 is Poisson")
    process: LinearGaussianSpec = LinearGaussianSpec()


AnyDataSpec = Annotated[SimulationData | Causal3DIdentData | PerturbseqData, Field(discriminator="kind")]


# ------------------------------------------------------------------------------- training and evaluation


class TrainSpec(Part):
    """How a model is fitted."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(128, ge=2)
    learning_rate: float = Field(3e-3, gt=0)
    mechanism_rate: float = Field(5.0, gt=0, description="factor on the rate of mechanisms and unmixing")
    schedule: Literal["cosine", "constant"] = "cosine"
    gradient_clip: float | None = Field(10.0, gt=0, description="largest gradient norm")
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    patience: int | None = Field(None, ge=1, description="validations without improvement before stopping")
    checkpoint_seconds: float = Field(20.0, ge=0, description="least time between checkpoints")
    keep: Literal["best", "all", "none"] = Field("best", description="weights kept once a trial ends")


class EvaluateSpec(Part):
    """Which scores are taken at the end."""

    identifiability: bool = True
    ood: bool = True
    conditions: bool = True
    cells: int = Field(500, ge=2, description="most cells of a condition in the OOD scores")


class TrialSpec(Part):
    """One trial: a pure function of this gives its result."""

    model: AnyModelSpec
    data: AnyDataSpec
    train: TrainSpec = TrainSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    seed: int = Field(0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = Field(1, ge=1, description="CPU threads; part of the result, since sums depend on it")
    data_fingerprint: str
    results_version: int = RESULTS_VERSION

    @property
    def trial_id(self) -> str:
        """Sixteen hex digits of a hash over everything that determines the result.

        The data count by their fingerprint alone, not by where they lie. How often checkpoints are written
        and which weights are kept do not count: a resumed trial gives the same numbers as an uninterrupted one.
        """
        body = self.model_dump(mode="json")
        del body["data"]
        for key in ("checkpoint_seconds", "keep"):
            body["train"].pop(key)
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
