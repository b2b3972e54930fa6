"""Find out, by experiment, when a latent causal model of single-cell perturbations recovers the truth."""

from harness.api import export_model, predict_run, write_programs

__all__ = ["__version__", "export_model", "predict_run", "write_programs"]
__version__ = "0.1.0"
