"""Find out, by experiment, when a latent causal model of single-cell perturbations recovers the truth."""

__version__ = "0.1.0"
