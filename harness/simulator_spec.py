"""The count simulator as a study file describes it; a leaf, which imports nothing of the project but the base of all.

Numbers of ``realistic`` were fitted to 3,375 cells × 500 genes of a real screen (Norman et al. 2019): quantiles of the
genes' means, of library sizes, and the excess of variance over mean.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness.spec_part import Part


class SimulatorSpec(Part):
    """How latents become counts (``data/perturbseq/count_model.py``), beside genes, library_size and dispersion."""

    loading_density: float = Field(0.2, ge=0, le=1, description="share of genes that a program (one latent) moves")
    loading_sd: float = Field(0.4, gt=0, description="sd of a moved gene's log-fold change per sd of the latent")
    baseline: Literal["drawn", "spread"] = Field(
        "drawn",
        description="log mean expression of genes: drawn from a normal, or spread at even quantiles of one, so that "
        "every seed has the same genes in another order",
    )
    baseline_sd: float = Field(1.0, ge=0, description="sd of log mean expression over genes")
    library_sd: float = Field(0.4, ge=0, description="sd of a cell's log library size")
    dispersion_sd: float = Field(0.0, ge=0, description="sd of log dispersion over genes; 0: all alike")
    dispersion_trend: float = Field(
        0.0, ge=0, description="b of a gene's dispersion a + b/mean: its variance is at least 1 + b times its mean"
    )
    cells_sd: float = Field(0.0, ge=0, description="sd of log cells of a condition; 0: as even as possible")
    batches: int = Field(1, ge=1, description="batches that cells, control twins with them, are dealt to evenly")
    batch_sd: float = Field(0.2, ge=0, description="sd of a batch's log-fold change of a gene; acts from 2 batches on")


#: What each word of ``data.preset`` stands for: fields of the counts to start from.
PERTURBSEQ_PRESETS: dict[str, dict[str, Any]] = {
    "realistic": {
        "genes": 500,
        "library_size": 150.0,
        "dispersion": 0.3,
        "simulator": {
            "baseline": "spread",
            "baseline_sd": 4.2,
            "library_sd": 0.6,
            "loading_sd": 0.35,
            "dispersion_sd": 1.0,
            "dispersion_trend": 0.05,
        },
    },
}
