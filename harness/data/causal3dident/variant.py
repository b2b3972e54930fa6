"""What determines the pixels, without drawing any: part of the data's fingerprint. Imports no torch and no Mitsuba."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.data.causal3dident.meshes import mesh_files, up_axis
from harness.data.causal3dident.release import release_digest
from harness.data_spec import ImageData
from harness.errors import UserError

#: Raised by hand when a change of ours alters pixels of the same latents.
RENDERER_VERSION = 2
#: Raised by hand when a change of ours alters which images of a release serve the same rows, or what is said of them.
SERVING_VERSION = 2


def renderer_variant(spec: ImageData) -> dict[str, str]:
    """Names of everything the pixels depend on besides the fields of ``spec``.

    Raises
    ------
    UserError
        If the release or the meshes are not there, or Mitsuba, where it is needed, is not installed.
    """
    if spec.path is not None:
        return {"release": release_digest(Path(spec.path), spec.classes), "serving": str(SERVING_VERSION)}
    try:
        mitsuba = version("mitsuba")
    except PackageNotFoundError as error:
        raise UserError("rendering needs the package mitsuba, which is not installed: pip install mitsuba") from error
    shapes = "own"
    if spec.meshes is not None:
        content = hashlib.sha256(b"faces outwards;")
        for class_id, path in sorted(mesh_files(Path(spec.meshes), spec.classes).items()):
            digest, up = hashlib.sha256(path.read_bytes()).hexdigest(), up_axis(spec.mesh_up, class_id)
            content.update(f"{class_id}:{digest}:{up};".encode())
        shapes = content.hexdigest()[:16]
    return {"renderer": str(RENDERER_VERSION), "mitsuba": mitsuba, "shapes": shapes}
