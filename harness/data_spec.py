"""Data as a study file describes them; a leaf, which imports nothing of the project but the base of all parts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from harness.spec_part import Part

Range = Annotated[tuple[float, float], Field(strict=False, description="[low, high]")]
Names = Annotated[tuple[str, ...], Field(strict=False)]


#: What each word of ``process.preset`` stands for: the theorem's conditions, each broken or met by name.
PROCESS_PRESETS: dict[str, dict[str, Any]] = {
    "targeted": {},
    "edge_free": {"edge_density": 0.0},
    "soft": {"intervention": "soft"},
    "uncut": {"intervention": "none"},
    "redrawn": {"background": "redrawn"},
    "untargeted_pair": {"untargeted": 2},
}


class LinearGaussianSpec(Part):
    """The theorem's own latent process, its conditions as knobs (``data/latent_process.py``)."""

    kind: Literal["linear_gaussian"] = "linear_gaussian"
    preset: Literal["targeted", "edge_free", "soft", "uncut", "redrawn", "untargeted_pair"] | None = Field(
        None, description="knobs to start from; other keys override"
    )
    responsive: int = Field(4, ge=1, description="true d_v")
    invariant: int = Field(7, ge=1, description="true d_i")
    intervention: Literal["cut", "soft", "none"] = Field(
        "cut", description="a target's incoming weights: cut: vanish; soft: are drawn anew; none: stay"
    )
    changes: Literal["both", "mean", "variance"] = Field("both", description="of a target's noise")
    targets_per_perturbation: int = Field(1, ge=1, description="responsive latents that each perturbation acts on")
    untargeted: int = Field(0, ge=0, description="last responsive latents, on which no perturbation acts")
    background: Literal["shared", "redrawn"] = Field(
        "shared", description="redrawn: every environment draws all its edges anew"
    )
    edge_density: float = Field(1.0, ge=0, le=1, description="share of possible edges present")
    edge_range: Range = Field((0.5, 1.5), description="|weight| of an edge; its sign is random")
    mean_shift: Range = Field((1.0, 2.5), description="|shift| of a target's noise mean, in control sds")
    variance_range: Range = Field((0.2, 3.0), description="factor on a target's noise variance, log-uniform")
    interaction: float = Field(0.0, ge=0, description="a double's extra shift of its targets, in shifts; 0: none")
    steps: int = Field(1, ge=1, le=64, description="time steps under u after the control frame")
    held_out_steps: int = Field(0, ge=0, description="last time steps, which training does not see")
    lagged: Literal["none", "diagonal", "dense", "nonlinear"] = Field("none", description="true lagged part")

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, value: Any) -> Any:
        return {**_preset_of(value, PROCESS_PRESETS), **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _ranges_rise(self) -> LinearGaussianSpec:
        for name in ("edge_range", "mean_shift", "variance_range"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} is [low, high] with 0 <= low <= high")
        if self.variance_range[0] <= 0:
            raise ValueError("variance_range starts above 0")
        return self

    @model_validator(mode="after")
    def _targets_are_there(self) -> LinearGaussianSpec:
        if self.untargeted >= self.responsive:
            raise ValueError(
                f"untargeted {self.untargeted} leaves none of {self.responsive} responsive latents to act on; give less"
            )
        if self.targets_per_perturbation > self.targetable:
            raise ValueError(
                f"targets_per_perturbation {self.targets_per_perturbation} is more than the {self.targetable} "
                "responsive latents that can be targets; give less"
            )
        return self

    @model_validator(mode="after")
    def _steps_fit(self) -> LinearGaussianSpec:
        if self.steps > 1 and self.lagged == "none":
            raise ValueError("steps > 1 needs lagged: diagonal, dense or nonlinear")
        if self.held_out_steps >= self.steps:
            raise ValueError(
                f"held_out_steps {self.held_out_steps} leaves no step to train on; give less than steps ({self.steps})"
            )
        return self

    @property
    def targetable(self) -> int:
        """Responsive latents that perturbations can act on, the first in causal order."""
        return self.responsive - self.untargeted


def _preset_of(value: dict[str, Any], presets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Fields the preset named in ``value`` sets; an unknown one sets none, and is refused with its field."""
    name = value.get("preset")
    return presets.get(name, {}) if isinstance(name, str) else {}


class NativeSpec(Part):
    """The graph of Causal3DIdent; environments are soft interventions on responsive mechanisms."""

    kind: Literal["native"] = "native"
    shift: Range = Field((0.3, 0.7), description="|shift| of a target's conditional mean; its sign is random")
    scale: Range = Field((0.4, 1.2), description="factor on a target's conditional sd, log-uniform")


def _pairs_word(value: object) -> object:
    """YAML reads ``pairs: true`` as a boolean and ``null`` as none; both are words here."""
    return "true" if value is True else "none" if value is None else value


Pairs = Annotated[Literal["true", "random", "none"], BeforeValidator(_pairs_word)]
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
    pairs: Pairs = Field(
        "true", description="true: a control shares the cell's invariant latents; random: any control; none: no control"
    )


def _refuse_torn_trajectories(pairs: str, process: LinearGaussianSpec) -> None:
    if pairs != "true" and process.steps > 1:
        raise ValueError(
            f"pairs: {pairs} would replace the first frame of a time course, which is the same cell earlier; "
            "use pairs: true, or process.steps: 1"
        )


#: The published simulation's sizes (arXiv 2605.19343: x 500-d, d_v = 4, d_i = 7, u 12-d, 3,000 / 1,000 cells).
SIMULATION_PRESETS: dict[str, dict[str, Any]] = {
    "published_sizes": {
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
    """Vectors from a random mixing of the latent process, injective unless asked otherwise."""

    kind: Literal["simulation"] = "simulation"
    preset: Literal["published_sizes", "tiny"] | None = Field(
        None, description="sizes to start from; other keys override"
    )
    features: int = Field(500, ge=1, description="observed dimensions")
    mixing_layers: int = Field(1, ge=0, le=8, description="leaky layers before the linear lift")
    mixing_slope: float = Field(0.5, gt=0, le=1, description="negative slope of the leaky layers; 1 is linear")
    injective: bool = Field(True, description="false: the mixing forgets the sign of a third of its dimensions")
    noise: float = Field(0.05, ge=0, description="sd of observation noise")
    process: LinearGaussianSpec = LinearGaussianSpec()

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        preset = _preset_of(value, SIMULATION_PRESETS)
        given = value.get("process")
        merged = {**preset, **value}
        if isinstance(given, dict):
            merged["process"] = {**preset.get("process", {}), **given}
        return merged

    @model_validator(mode="after")
    def _latents_fit(self) -> SimulationData:
        latent = self.process.responsive + self.process.invariant
        if self.features < latent:
            raise ValueError(f"features {self.features} cannot hold {latent} latents injectively")
        _refuse_torn_trajectories(self.pairs, self.process)
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

    @model_validator(mode="before")
    @classmethod
    def _a_file_has_no_true_pairs(cls, value: Any) -> Any:
        of_file = isinstance(value, dict) and value.get("path") is not None
        return {"pairs": "random", **value} if of_file else value

    @model_validator(mode="after")
    def _pairs_are_there(self) -> PerturbseqData:
        if self.path is None:
            _refuse_torn_trajectories(self.pairs, self.process)
        elif self.pairs == "true":
            raise ValueError("pairs: true is not possible with a file, whose cells are each seen once; use random")
        return self


AnyDataSpec = Annotated[SimulationData | Causal3DIdentData | PerturbseqData, Field(discriminator="kind")]
