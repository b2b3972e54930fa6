"""Single-cell perturbation screens: real ``.h5ad`` files, or counts simulated from known latents."""

from harness.data.perturbseq.build import build, describe

__all__ = ["build", "describe"]
