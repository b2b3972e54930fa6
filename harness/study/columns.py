"""The scores that tables and figures show, as columns: what each is called, and which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.evaluation.registry import direction_of
from harness.study.statistics import Direction

MCC = "identifiability/mcc"
MCC_ACROSS_SEEDS = f"{MCC}_across_seeds"
GRAPH_STABILITY, TARGET_STABILITY = "identifiability/graph_stability", "identifiability/target_stability"


@dataclass(frozen=True)
class Column:
    """A metric as a column.

    Attributes
    ----------
    metric : flat MLflow name.
    title : heading.
    direction : which way is better; None where a comparison would mean nothing.
    decimals : digits after the point; None for a scale that is only known from the values.
    """

    metric: str
    title: str
    direction: Direction | None = None
    decimals: int | None = 2

    @property
    def untrained(self) -> str:
        """Name of the same score of the untrained encoder, where one is logged."""
        return f"{self.metric}_untrained"


IDENTIFIABILITY = (
    Column(MCC, "MCC", "higher"),
    Column(f"{MCC}_untrained", "MCC untrained"),
    Column(f"{MCC}_shuffled", "MCC shuffled"),
    Column(MCC_ACROSS_SEEDS, "MCC between seeds"),
    Column("identifiability/r2_responsive", "R² responsive", "higher"),
    Column("identifiability/r2_invariant", "R² invariant", "higher"),
)
#: Scores that stand beside those where there is room.
DETAILS = (
    Column("identifiability/graph_f1", "graph F1", "higher"),
    Column("identifiability/graph_shd", "graph SHD", "lower", 1),
    Column("identifiability/target_accuracy", "target accuracy", "higher"),
    Column("identifiability/restart_agreement", "restart agreement"),
    Column(GRAPH_STABILITY, "graph between seeds"),
    Column(f"{GRAPH_STABILITY}_chance", "graph by chance"),
    Column(TARGET_STABILITY, "targets between seeds"),
    Column(f"{TARGET_STABILITY}_chance", "targets by chance"),
)
#: Scores of images beside those: of the object's class, and of all learned latents together.
OF_IMAGES = (
    Column("identifiability/class_accuracy", "class accuracy", "higher"),
    Column("identifiability/class_accuracy_majority", "of the majority"),
    Column("identifiability/dci/disentanglement", "DCI: disentanglement", "higher"),
    Column("identifiability/dci/completeness", "completeness", "higher"),
    Column("identifiability/dci/informativeness", "informativeness", "higher"),
    Column("identifiability/citris/r2_diagonal", "CITRIS: R² diagonal", "higher"),
    Column("identifiability/citris/r2_off_diagonal", "R² off diagonal", "lower"),
    Column("identifiability/citris/spearman_diagonal", "Spearman diagonal", "higher"),
    Column("identifiability/citris/spearman_off_diagonal", "Spearman off diagonal", "lower"),
)


def _ood_column(metric: str, title: str, decimals: int | None = 2) -> Column:
    """A metric of the registry, which says which way is better."""
    direction = direction_of(f"ood/any/{metric}")
    return Column(metric, title, None if direction is None else _WORDED[direction], decimals)


_WORDED: dict[str, Direction] = {"minimize": "lower", "maximize": "higher"}
OOD = (
    _ood_column("rmse_relative", "RMSE rel.", 3),
    _ood_column("rmse_relative_mean", "RMSE rel. of mean", 3),
    _ood_column("pearson_delta", "Pearson Δ"),
    _ood_column("r2", "R² of mean"),
    _ood_column("energy_distance", "energy dist.", None),
    _ood_column("latent_rmse", "latents' RMSE"),
)
#: Scores on gene sets, of genes and of conditions, where there is room.
OOD_DETAILS = (
    _ood_column("rmse_relative_mean_top20de", "RMSE rel. of mean, top 20 DE", 3),
    _ood_column("pearson_delta_top20de", "Pearson Δ, top 20 DE"),
    _ood_column("pearson_delta_top50de", "top 50 DE"),
    _ood_column("pearson_delta_top1000", "1,000 expressed"),
    _ood_column("energy_distance_top20de", "energy dist., top 20 DE", None),
    _ood_column("wasserstein", "Wasserstein", None),
    _ood_column("de_auroc", "AUROC of DE genes"),
    _ood_column("direction_accuracy", "direction of DE genes"),
    _ood_column("perturbation_rank", "nearest is right"),
    _ood_column("perturbation_rank_normalised", "rank of the right one"),
)
VALIDATION = Column("validation/loss", "validation loss", "lower", None)


def ood_columns(split: str, columns: Sequence[Column] = OOD) -> tuple[Column, ...]:
    """The OOD columns of one split."""
    return tuple(replace(column, metric=f"ood/{split}/{column.metric}") for column in columns)
