"""Checkpoints: written whole or not at all, read without executing anything."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from harness.files import has_no_room, write_atomic, write_when_room


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state``, tensors and plain values, atomically to ``path``, waiting while the disk is full."""
    write_when_room(path, _bytes(state))


def try_save(path: Path, state: dict[str, Any]) -> bool:
    """Write ``state`` as `save` does, unless the disk is full: the earlier file then stands; gives whether it did."""
    try:
        write_atomic(path, _bytes(state))
    except OSError as error:
        if not has_no_room(error):
            raise
        return False
    return True


def _bytes(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state at ``path``, or None where there is none or it cannot be read (training then starts anew)."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError):
        return None
    return state
