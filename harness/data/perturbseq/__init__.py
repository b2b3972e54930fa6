"""Single-cell perturbation screens: real ``.h5ad`` files, or counts simulated from known latents."""

from harness.data.perturbseq.build import build

__all__ = ["build"]
