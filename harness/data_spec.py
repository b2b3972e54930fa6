"""Data as a study file describes them; a leaf, which imports nothing of the project but other leaves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from harness.process_spec import (
    MOVING,
    SIMULATION_PRESETS,
    CitrisSpec,
    LinearGaussianSpec,
    NativeSpec,
    citris_variables,
    preset_of,
)
from harness.reading_spec import GuideRule, LeastCells, MinCells, ObsValues, Preprocess, Words
from harness.simulator_spec import PERTURBSEQ_PRESETS, SimulatorSpec
from harness.spec_part import Part
from harness.split_spec import AnySplit, LeavePerturbationOut, LeaveTimeOut, SinglesToDoubles

Names = Annotated[tuple[str, ...], Field(strict=False)]


def _pairs_word(value: object) -> object:
    """YAML reads ``pairs: true`` as a boolean and ``null`` as none; both are words here."""
    return "true" if value is True else "none" if value is None else value


Pairs = Annotated[Literal["true", "random", "none"], BeforeValidator(_pairs_word)]
ImagePairs = Annotated[Literal["true", "nearest", "random", "none"], BeforeValidator(_pairs_word)]
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
    if pairs not in ("true", "nearest") and process.steps > 1:
        raise ValueError(
            f"pairs: {pairs} would replace the first frame of a time course, which is the same cell earlier; "
            "leave pairs out, or use process.steps: 1"
        )


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
        preset = preset_of(value, SIMULATION_PRESETS)
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
ObjectClass = Literal["teapot", "hare", "dragon", "cow", "armadillo", "horse", "head"]
Axis = Literal["x", "y", "z", "-x", "-y", "-z"]
#: Fields of ImageData that act on what we draw, and not on images of a release.
_DRAWN_ONLY = ("meshes", "mesh_up", "object_size", "render_device")


class ImageData(GeneratedData):
    """Fields of rendered (or released) images of one object in a lit scene."""

    path: str | None = Field(None, description="folder of the official release; without it images are rendered")
    meshes: str | None = Field(None, description="folder of meshes to render instead of our procedural shapes")
    mesh_up: Axis | dict[ObjectClass, Axis] = Field(
        "z", description="axis of the meshes' files that points up; where files differ: class: axis, others z"
    )
    # with more than 6 the camera at (8, 0, 8) can come to lie inside the object
    object_size: float = Field(4.2, ge=1, le=6, description="largest side of the object in the scene")
    classes: Annotated[tuple[Annotated[int, Field(ge=0, le=6)], ...], Field(strict=False, min_length=1)] = (0,)
    responsive: Names = Field(OBJECT_LATENTS, min_length=1, description="latents that perturbations change")
    invariant: Names = Field(SCENE_LATENTS, description="latents they do not")
    image_size: int = Field(64, ge=8, le=1024)
    samples: int = Field(16, ge=1, description="light samples a pixel")
    render_device: Literal["cpu", "llvm", "cuda"] = Field("cpu", description="what draws; their pixels differ slightly")
    squash: float = Field(2.0, gt=0, description="linear_gaussian: sds of a latent that reach 0.76 of its image range")

    @model_validator(mode="after")
    def _latents_are_known_and_disjoint(self) -> ImageData:
        known = OBJECT_LATENTS + SCENE_LATENTS
        named = self.responsive + self.invariant
        for name in named:
            if name not in known:
                raise ValueError(f"latent {name!r} is unknown; known are {', '.join(known)}")
        if len(set(named)) < len(named):
            raise ValueError("a latent is named twice among responsive and invariant")
        return self

    @model_validator(mode="after")
    def _what_is_drawn_is_drawn_by_us(self) -> ImageData:
        fields = type(self).model_fields
        changed = [name for name in _DRAWN_ONLY if getattr(self, name) != fields[name].default]
        if self.path is not None and changed:
            raise ValueError(
                f"{changed[0]} acts on images that we draw, and those in data.path are drawn already; "
                f"leave out {changed[0]} or path"
            )
        if self.meshes is None and "mesh_up" in changed:
            raise ValueError("mesh_up turns the meshes of a folder; name the folder in meshes, or leave mesh_up out")
        return self


def _check_linear_process(data: ImageData, process: LinearGaussianSpec) -> None:
    """Refuse sizes of the process that are not those of the latents named."""
    if (process.responsive, process.invariant) != (len(data.responsive), len(data.invariant)):
        raise ValueError(
            f"process.responsive/invariant must be {len(data.responsive)}/{len(data.invariant)}, "
            "the number of latents named in data.responsive and data.invariant"
        )
    _refuse_torn_trajectories(data.pairs, process)


class Causal3DIdentData(ImageData):
    """Images whose latents follow the released graph, or the theorem's own process."""

    kind: Literal["causal3dident"] = "causal3dident"
    pairs: ImagePairs = Field(  # type: ignore[assignment]
        "true",
        description="true: a control shares the cell's invariant latents; nearest, with path: it is the stored image "
        "nearest to that; random: any control; none: no control; default: true, with path nearest",
    )
    invariant: Names = Field(SCENE_LATENTS, min_length=1, description="latents they do not")
    process: Annotated[NativeSpec | LinearGaussianSpec, Field(discriminator="kind")] = NativeSpec()

    @model_validator(mode="before")
    @classmethod
    def _a_release_has_no_true_pairs(cls, value: Any) -> Any:
        of_release = isinstance(value, dict) and value.get("path") is not None
        return {"pairs": "nearest", **value} if of_release else value

    @model_validator(mode="after")
    def _pairs_are_there(self) -> Causal3DIdentData:
        if self.path is not None and self.pairs == "true":
            raise ValueError(
                "pairs: true is not possible with the images of a release, none of which has a twin; leave pairs out, "
                "for the nearest stored image"
            )
        if self.path is None and self.pairs == "nearest":
            raise ValueError("pairs: nearest is for the images of a release, and path names none; use pairs: true")
        return self

    @model_validator(mode="after")
    def _process_fits(self) -> Causal3DIdentData:
        if isinstance(self.process, LinearGaussianSpec):
            _check_linear_process(self, self.process)
        return self


class TemporalCausal3DIdentData(ImageData):
    """Images along trajectories: CITRIS dynamics, drawn by us or released, or the theorem's own process over time.

    Under CITRIS dynamics a row is a transition, two successive frames and the variables intervened on between them:
    none is control, one a single perturbation, two a double; more are left out.
    """

    kind: Literal["temporal_causal3dident"] = "temporal_causal3dident"
    responsive: Names = Field(
        MOVING, min_length=1, description="latents that move; default: all that can and are not invariant"
    )
    invariant: Names = Field((), description="latents that are constant along a trajectory")
    process: Annotated[CitrisSpec | LinearGaussianSpec, Field(discriminator="kind")] = CitrisSpec()

    @model_validator(mode="before")
    @classmethod
    def _all_others_move(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "responsive" in value:
            return value
        held = value.get("invariant") or ()
        return {**value, "responsive": tuple(name for name in MOVING if name not in held)}

    @model_validator(mode="after")
    def _process_fits(self) -> TemporalCausal3DIdentData:
        if isinstance(self.process, CitrisSpec):
            self._check_dynamics()
            return self
        if self.process.steps < 2:
            raise ValueError(
                "process.steps: 1 makes no trajectory; give 2 or more (and process.lagged), or use kind: causal3dident"
            )
        if self.path is not None:
            raise ValueError(
                "process.kind: linear_gaussian draws trajectories of its own, and path names finished ones; leave out "
                "path, or use process.kind: citris"
            )
        _check_linear_process(self, self.process)
        return self

    def _check_dynamics(self) -> None:
        still = [name for name in self.responsive if name not in MOVING]
        if still:
            raise ValueError(
                f"{still[0]} does not move under process.kind: citris; name it in invariant, or leave it out"
            )
        if self.pairs != "true":
            raise ValueError(
                f"pairs: {self.pairs} would replace the frame before a transition, which is the same cell earlier; "
                "use pairs: true"
            )
        variables = len(self.variables)
        if "environments" in self.model_fields_set and self.environments != variables:
            raise ValueError(
                f"environments is {self.environments}, but process.kind: citris has one for each of its {variables} "
                "variables; leave it out"
            )
        object.__setattr__(self, "environments", variables)  # it follows from the other fields, so frozen or not
        if self.doubles > (pairs := variables * (variables - 1) // 2):
            raise ValueError(f"doubles is {self.doubles}, but {variables} variables have {pairs} pairs; give less")

    @property
    def variables(self) -> dict[str, tuple[str, ...]]:
        """What CITRIS dynamics intervene on, by name: the responsive latents each sets; none for ``shape``."""
        grouped = isinstance(self.process, CitrisSpec) and self.process.grouped
        return citris_variables(self.responsive, grouped=grouped, shapes=len(set(self.classes)))


class PerturbseqData(GeneratedData):
    """Single cells: somebody's ``.h5ad``, or counts from known latents where no path is given."""

    kind: Literal["perturbseq"] = "perturbseq"
    pairs: Pairs = Field(
        "random",
        description="true: a simulated control shares the cell's invariant latents, as no assay gives it, or is the "
        "same cell earlier (default with process.steps above 1); random: any control; none: no control",
    )
    path: str | None = Field(None, description=".h5ad file; without it counts are simulated")
    column: str | None = Field(None, description="obs column of the perturbation; default: detected")
    control: Words = Field((), description="its label(s) for control cells; default: detected")
    pair_mark: str = Field(
        "auto",
        min_length=1,
        description="what joins the members of a pair in a label, e.g. + or |; none: every label is one perturbation; "
        "auto: a mark that both halves give evidence for",
    )
    guides: GuideRule | None = Field(
        None,
        description="labels name guides: how to merge those of one gene; LCK_1, LCK_2 and NTg4 are read by "
        '{pattern: "{gene}_{guide}", control: "NTg{guide}"}; default: a label is a gene or a pair',
    )
    gene_names: str | None = Field(None, description="var column of gene names; default: the index of var")
    values: Literal["auto", "counts", "lognorm"] = Field("auto", description="what X holds; auto: from its values")
    layer: str | None = Field(
        None,
        description="matrix to read: a layer such as counts, raw or X; default: X, or layers['counts'] where X is "
        "unclear",
    )
    features: Words = Field(
        (),
        description="kinds of features to read, as var['feature_types'] names them; all: every kind; default: gene "
        "expression",
    )
    where: dict[str, ObsValues] | None = Field(
        None, description="read only the cells with these values, e.g. {cell_line: [K562]}; default: all"
    )
    strata: str | None = Field(
        None,
        description="obs column, such as cell_line, within whose values controls are drawn, cells are paired, and "
        "baselines and scores are taken, which are then averaged over them; default: none",
    )
    preprocess: Preprocess = Field(Preprocess(), description="steps from the file's matrix to what models see")
    min_cells: LeastCells = Field(
        MinCells(), description="cells a condition must have; {drop: true} leaves smaller ones out"
    )
    split: AnySplit = Field(SinglesToDoubles(), description="which cells train and which test; a kind, or its fields")
    perturbation_features: str = Field(
        "onehot",
        description="what a perturbation is to a model; onehot: a name; loadings: its gene's principal component "
        "loadings in training control cells; or a .csv file of genes × numbers",
    )
    loading_components: int = Field(10, ge=1, description="perturbation_features: loadings; components taken")
    time: str | None = Field(
        None, description="obs column of times (0, D2, day 6); none: no time course; default: detected"
    )
    time_pairs: Literal["random", "ot"] = Field(
        "random",
        description="time course: which cell stands before a cell, one of its condition at the time before; ot: by "
        "optimal transport",
    )
    genes: int = Field(500, ge=2, description="simulated genes")
    library_size: float = Field(5000.0, gt=0, description="simulated mean counts a cell")
    dispersion: float = Field(0.1, ge=0, description="negative-binomial dispersion; 0 is Poisson")
    preset: Literal["realistic"] | None = Field(
        None, description="simulated counts to start from; realistic: marginals of a real screen; other keys override"
    )
    simulator: SimulatorSpec = Field(SimulatorSpec(), description="how simulated latents become counts")
    process: LinearGaussianSpec = LinearGaussianSpec()

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        preset = preset_of(value, PERTURBSEQ_PRESETS)
        given = value.get("simulator")
        merged = {**preset, **value}
        if isinstance(given, dict):
            merged["simulator"] = {**preset.get("simulator", {}), **given}
        return merged

    @model_validator(mode="before")
    @classmethod
    def _simulated_trajectories_are_whole(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("path") is not None:
            return value
        process = value.get("process")
        steps = process.get("steps") if isinstance(process, dict) else getattr(process, "steps", None)
        return {"pairs": "true", **value} if isinstance(steps, int) and steps > 1 else value

    @model_validator(mode="after")
    def _simulated_are_simulated(self) -> PerturbseqData:
        for name in ("preset", "simulator"):
            if self.path is not None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} says how counts are simulated, and data.path names a file of cells; leave out one"
                )
        return self

    @model_validator(mode="after")
    def _the_split_can_be_made(self) -> PerturbseqData:
        if isinstance(self.split, LeavePerturbationOut) and self.perturbation_features == "onehot":
            raise ValueError(
                "split: leave_perturbation_out predicts unseen perturbations, of which one-hot ones say nothing; set "
                "perturbation_features to loadings or a .csv file"
            )
        if self.path is None and (isinstance(self.split, LeaveTimeOut) or self.time or self.time_pairs != "random"):
            raise ValueError(
                "split: leave_time_out, time and time_pairs are for files, and path names none; simulated time courses "
                "come from process.steps, their held-out times from process.held_out_steps"
            )
        return self

    @model_validator(mode="after")
    def _features_are_known(self) -> PerturbseqData:
        given = self.perturbation_features
        if given not in ("onehot", "loadings") and not given.endswith(".csv"):
            raise ValueError(f"perturbation_features is {given}, but must be onehot, loadings or the path of a .csv")
        return self

    @model_validator(mode="after")
    def _pairs_are_there(self) -> PerturbseqData:
        if self.path is None:
            _refuse_torn_trajectories(self.pairs, self.process)
        elif self.pairs == "true":
            raise ValueError("pairs: true is not possible with a file, whose cells are each seen once; use random")
        return self


AnyDataSpec = Annotated[
    SimulationData | Causal3DIdentData | TemporalCausal3DIdentData | PerturbseqData, Field(discriminator="kind")
]
