"""Checkpoints: written whole or not at all, read without executing anything."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from harness.files import write_atomic


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state``, tensors and plain values, atomically to ``path``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state at ``path``, or None where there is none or it cannot be read (training then starts anew)."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError):
        return None
    return state
