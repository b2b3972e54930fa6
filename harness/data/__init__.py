"""What a model is trained on: one package a family, all giving `PerturbationData`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.data_spec import AnyDataSpec, Causal3DIdentData, PerturbseqData, TemporalCausal3DIdentData

if TYPE_CHECKING:
    from harness.data.batch import PerturbationData


def load(spec: AnyDataSpec, cache_dir: Path) -> PerturbationData:
    """Build or open the data ``spec`` names.

    Parameters
    ----------
    spec
        The study file's ``data``, with ``seed`` resolved to an integer.
    cache_dir
        Folder of built datasets, used where ``spec.cache_dir`` is not set.

    Raises
    ------
    UserError
        If a file or folder cannot be used; the sentence names it and says what would do.
    """
    from harness.data.fingerprint import fingerprint

    folder = Path(spec.cache_dir) if spec.cache_dir else cache_dir
    mark = fingerprint(spec)
    if isinstance(spec, Causal3DIdentData | TemporalCausal3DIdentData):
        from harness.data import causal3dident

        return causal3dident.build(spec, mark, folder)
    if isinstance(spec, PerturbseqData):
        from harness.data import perturbseq

        return perturbseq.build(spec, mark, folder)
    from harness.data import simulation

    return simulation.build(spec, mark, folder)
