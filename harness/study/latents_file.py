"""Reads a trial's ``latents.npz``."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError


def read_latents(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of a file of latents, by name.

    Parameters
    ----------
    path
        With ``responsive`` (n, a), ``invariant`` (n, b), ``condition`` (n,) where 0 is control, and where there is a
        truth ``responsive_true`` (n, d_v), ``invariant_true`` (n, d_i) and their names.

    Raises
    ------
    UserError
        If the file is missing or is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a readable file of latents: {error}.") from error
