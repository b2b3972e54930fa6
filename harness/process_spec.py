"""Latent processes as a study file describes them; a leaf, which imports nothing of the project but the base of all."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.spec_part import Part

Range = Annotated[tuple[float, float], Field(strict=False, description="[low, high]")]


#: What each word of ``process.preset`` stands for: the theorem's conditions, each broken or met by name.
PROCESS_PRESETS: dict[str, dict[str, Any]] = {
    "targeted": {},
    "edge_free": {"edge_density": 0.0},
    "soft": {"intervention": "soft"},
    "uncut": {"intervention": "none"},
    "redrawn": {"background": "redrawn"},
    "untargeted_pair": {"untargeted": 2},
}


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
        return {**preset_of(value, PROCESS_PRESETS), **value} if isinstance(value, dict) else value

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


def preset_of(value: dict[str, Any], presets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Fields the preset named in ``value`` sets; an unknown one sets none, and is refused with its field."""
    name = value.get("preset")
    return presets.get(name, {}) if isinstance(name, str) else {}


class NativeSpec(Part):
    """The graph of Causal3DIdent; environments are soft interventions on responsive mechanisms."""

    kind: Literal["native"] = "native"
    shift: Range = Field((0.3, 0.7), description="|shift| of a target's conditional mean; its sign is random")
    scale: Range = Field((0.4, 1.2), description="factor on a target's conditional sd, log-uniform")


class CitrisSpec(Part):
    """Dynamics of Temporal Causal3DIdent (CITRIS): every step may intervene, perfectly, on any of the variables."""

    kind: Literal["citris"] = "citris"
    grouped: bool = Field(
        False, description="intervene on position and on rotation as wholes, as in the published data; false: on each"
    )


#: Latents that CITRIS dynamics move; the third rotation is constant there.
MOVING = ("x", "y", "z", "phi", "theta", "spotlight", "hue_object", "hue_spotlight", "hue_background")
#: Variables of the published dynamics that span several latents.
GROUPS = {"position": ("x", "y", "z"), "rotation": ("phi", "theta")}


def citris_variables(moving: tuple[str, ...], *, grouped: bool, shapes: int) -> dict[str, tuple[str, ...]]:
    """What CITRIS dynamics intervene on, by name: the latents each sets; none for ``shape``, a class.

    Parameters
    ----------
    moving
        Latents that move, in the order wanted.
    grouped
        Whether position and rotation are wholes.
    shapes
        How many there are; a single one is no variable.
    """
    group = {name: whole for whole, parts in GROUPS.items() for name in parts} if grouped else {}
    found: dict[str, tuple[str, ...]] = {}
    for name in moving:
        variable = group.get(name, name)
        found[variable] = (*found.get(variable, ()), name)
    return found | ({"shape": ()} if shapes > 1 else {})
