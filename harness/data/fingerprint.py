"""What a dataset is, as a short hash, without building it (a dry run renders nothing)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from harness.data_spec import AnyDataSpec, ImageData, PerturbseqData, TemporalCausal3DIdentData
from harness.errors import UserError
from harness.split_spec import ReplaySplit

#: Raised by hand when a generator's or reader's output changes for the same fields.
GENERATOR_VERSION = 3

#: Fields, of the data or of their process, that say where data lie or how they were written down, not what they are.
#: ``mesh_up`` counts for the classes drawn alone, with their meshes.
_NOT_CONTENT = ("path", "meshes", "mesh_up", "cache_dir", "preset")
#: Fields of PerturbseqData that only the simulator reads.
_SIMULATED_ONLY: tuple[str, ...] = (
    "environments",
    "doubles",
    "cells",
    "test_cells",
    "double_cells",
    "genes",
    "library_size",
    "dispersion",
    "simulator",
    "process",
)


def fingerprint(spec: AnyDataSpec) -> str:
    """Sixteen hex digits naming the data ``spec`` gives.

    Generated data: the generator's fields, `GENERATOR_VERSION` and, for images, what determines pixels.
    Files: a hash of their content and the reader's options; the path does not count.

    Raises
    ------
    UserError
        If a file or folder the spec names cannot be read.
    """
    fields: dict[str, Any] = spec.model_dump(mode="json")
    for key in _NOT_CONTENT:
        fields.pop(key, None)
        fields["process"].pop(key, None)
    content: dict[str, Any] = {"version": GENERATOR_VERSION}
    if isinstance(spec, TemporalCausal3DIdentData) and spec.path is not None:
        from harness.data.digest import file_digest

        content["release"] = file_digest(Path(spec.path) / "train.npz")
    elif isinstance(spec, ImageData):
        from harness.data.causal3dident.variant import renderer_variant

        content["pixels"] = renderer_variant(spec)
    if isinstance(spec, PerturbseqData) and spec.path is not None:
        from harness.data.digest import file_digest

        _refuse_folder(Path(spec.path))
        content["file"] = file_digest(Path(spec.path))
        for key in _SIMULATED_ONLY:
            fields.pop(key)
    if isinstance(spec, PerturbseqData):
        content |= _tables_beside(spec, fields)
    text = json.dumps([fields, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _refuse_folder(path: Path) -> None:
    """A store of zarr is a folder, and is to be named for what it is."""
    if path.is_dir():
        from harness.data.perturbseq.foreign_formats import name_folder

        raise UserError(name_folder(path))


def _tables_beside(spec: PerturbseqData, fields: dict[str, Any]) -> dict[str, Any]:
    """Content of the other files that cells are read with; ``fields`` lose their paths."""
    from harness.data.digest import file_digest

    content = {}
    if isinstance(spec.split, ReplaySplit):
        content["split"] = file_digest(Path(spec.split.path))
        del fields["split"]["path"]
    if spec.perturbation_features.endswith(".csv"):
        content["perturbation_features"] = file_digest(Path(spec.perturbation_features))
        del fields["perturbation_features"]
    return content
