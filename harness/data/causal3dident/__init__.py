"""Images of one object in a lit scene: latents from a known graph, drawn by us or served from the release.

What we draw is *Causal3DIdent-style*; only the release is Causal3DIdent.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.data_spec import Causal3DIdentData, TemporalCausal3DIdentData

if TYPE_CHECKING:
    from harness.data.batch import PerturbationData


def build(spec: Causal3DIdentData | TemporalCausal3DIdentData, fingerprint: str, cache_dir: Path) -> PerturbationData:
    """Render the images, or serve them from the release; the first call builds, later ones open the cache.

    Parameters
    ----------
    spec
        The data, with ``seed`` resolved to an integer.
    fingerprint
        What the data are; names the folder in the cache.
    cache_dir
        Folder of built datasets.

    Raises
    ------
    UserError
        If Mitsuba is missing, or the release or a mesh cannot be used.
    """
    # Rendering processes import this package: they must not pay for torch.
    if isinstance(spec, TemporalCausal3DIdentData):
        from harness.data.causal3dident.temporal import build_temporal

        return build_temporal(spec, fingerprint, cache_dir)
    from harness.data.causal3dident.dataset import build_dataset

    return build_dataset(spec, fingerprint, cache_dir)
