"""The model of a trial: as its spec describes it, and as training left it in the trial's folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from harness.data import load
from harness.data.batch import PerturbationData
from harness.data.seeding import derive
from harness.errors import UserError
from harness.kept_data import kept, read_kept
from harness.model_spec import BetaVAESpec, CausalModelSpec, CiteVAESpec, SupervisedSpec
from harness.models import FOLLOWED, LatentModel, build_model
from harness.training import checkpoint
from harness.training.pairing import Pairing
from harness.training.supervision import regression_targets
from harness.trial_result import KEPT_DATA, read_result
from harness.trial_spec import StartsSpec, TrialSpec

#: Initialisations of a causal model whose data have no true pairs: single ones often end on a wrong target.
UNPAIRED_STARTS = 4


@dataclass(frozen=True)
class Fitted:
    """A trained model, the data it was trained on, and the spec of its trial."""

    model: LatentModel
    data: PerturbationData
    spec: TrialSpec


def described_model(spec: TrialSpec, data: PerturbationData, pairing: str, start: int = 0) -> LatentModel:
    """The model that ``spec`` describes, as its start of this number is initialised; its transforms are not fitted."""
    fields = spec.model.model_dump() | {"pairing": pairing}
    if isinstance(spec.model, CausalModelSpec):
        fields["responsive_dim"] = spec.model.d_v
    truth = None if data.truth is None else regression_targets(data.truth)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(spec.seed, "initialisation", *([start] if start else [])))
        return build_model(
            fields,
            shape=data.frame_shape,
            perturbations=data.u.shape[1],
            targets=data.targets,
            columns=None if truth is None else (truth[0].shape[1], truth[1].shape[1]),
        )


def asked_pairing(spec: TrialSpec) -> str:
    """The pairing a model asks for; one without u needs no control, but its trajectories still have a first frame."""
    model = spec.model
    return "none" if isinstance(model, BetaVAESpec | SupervisedSpec) else model.pairing


def starts_of(spec: TrialSpec, pairing: str) -> StartsSpec:
    """How many initialisations are tried, ``auto`` resolved."""
    asked = spec.train.starts
    if asked.number != "auto":
        return asked
    alone = pairing == "true" or not isinstance(spec.model, CausalModelSpec)
    return asked.model_copy(update={"number": 1 if alone else UNPAIRED_STARTS})


def notes_of(spec: TrialSpec, pairing: str) -> list[str]:
    """What the pairing makes of a model that its name does not say."""
    if isinstance(spec.model, CiteVAESpec) and pairing not in FOLLOWED:
        return [
            f"cite_vae follows no cell here, since the frame before is another cell's (pairing {pairing}): it has no "
            "lagged part and no invariant part shared by the two, and differs from perturbed_vae by a factor in its "
            "loss alone"
        ]
    return []


def load_fitted(folder: Path, cache_dir: Path) -> Fitted:
    """The model of a finished trial, in evaluation mode on the CPU, and all its data.

    Parameters
    ----------
    folder
        The trial's.
    cache_dir
        Where built datasets are kept.

    Raises
    ------
    UserError
        If the trial has not finished, kept no weights, or its data are not what they were.
    """
    spec, weights = _trained(folder)
    data = load(spec.data, cache_dir)
    if data.fingerprint != spec.data_fingerprint:
        raise UserError(
            f"the data of trial {folder.name} are not what it was trained on (fingerprint {data.fingerprint}, then "
            f"{spec.data_fingerprint}); put the file back as it was, or launch the study again"
        )
    return _fitted(spec, weights, data)


def load_predictor(folder: Path, cache_dir: Path | None) -> Fitted:
    """The model of a finished trial, and of its data what predictions need: control cells of the training split.

    The trial's folder holds them, so that no data file is read; of an older trial's data as much is kept.

    Parameters
    ----------
    folder
        The trial's.
    cache_dir
        Where built datasets are kept; None to read nothing but the folder.

    Raises
    ------
    UserError
        As `load_fitted`; and if the folder holds no control cells and nothing else may be read.
    """
    spec, weights = _trained(folder)
    data = read_kept(folder / KEPT_DATA)
    if data is not None:
        return _fitted(spec, weights, data)
    if cache_dir is None:
        raise UserError(f"{folder} holds no {KEPT_DATA}, so that predictions have no control cells to begin from")
    whole = load_fitted(folder, cache_dir)
    return replace(whole, data=kept(whole.data))


def _trained(folder: Path) -> tuple[TrialSpec, dict[str, torch.Tensor]]:
    """Spec and weights of a finished trial."""
    try:
        spec = TrialSpec.model_validate_json((folder / "spec.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: is no folder of a trial (it has no readable spec.json)") from error
    result = read_result(folder)
    if result is None or result.state != "finished":
        state = "has not finished" if result is None else f"has {result.state}"
        raise UserError(f"trial {folder.name} {state}, so that it has no model; choose one that has finished")
    weights = checkpoint.load(folder / "model.pt", torch.device("cpu"))
    if weights is None:
        raise UserError(f"trial {folder.name} kept no weights; set train.keep: best and run it again")
    return spec, weights


def _fitted(spec: TrialSpec, weights: dict[str, torch.Tensor], data: PerturbationData) -> Fitted:
    model = described_model(spec, data, Pairing(data, asked_pairing(spec), spec.seed).kind)
    model.load_state_dict(weights)
    return Fitted(model.eval(), data, spec)
