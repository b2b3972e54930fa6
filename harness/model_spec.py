"""Models as a study file describes them; a leaf, which imports nothing of the project but the base of all parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from harness.spec_part import Part


def _pairing_word(value: object) -> object:
    """YAML reads ``pairing: true`` as a boolean and ``none`` as a word; both are words here."""
    return {True: "true", None: "none"}.get(value, value) if value is True or value is None else value


Pairing = Annotated[Literal["auto", "true", "random", "ot", "none"], BeforeValidator(_pairing_word)]


#: Networks that see images, and no vectors.
IMAGE_NETWORKS = ("conv", "glimpse", "resnet18")


class AlignmentSpec(Part):
    """Penalty that keeps the invariant block the same in a perturbed cell and its control."""

    weight: float = Field(100.0, ge=0, description="α; scales with the likelihood's precision")
    kind: Literal["auto", "mean", "mmd"] = Field(
        "auto",
        description="mean: pair by pair; mmd: between distributions; auto: mean where the data have true pairs, else "
        "mmd, since a cell has nothing in common with a stranger",
    )


class NetworkSpec(Part):
    """Fields of every model: what its encoder sees, and how large it is."""

    network: Literal["auto", "mlp", "conv", "glimpse", "resnet18"] = Field(
        "auto",
        description="auto: conv for images without input_pca; glimpse looks again, at full size, where it found an "
        "object; resnet18: the large one, for a GPU",
    )
    hidden: int = Field(128, ge=1, description="units of a hidden layer (mlp) or channels of the first (conv)")
    layers: int = Field(2, ge=1, le=16, description="hidden layers of encoder and decoder")
    input_pca: int | None = Field(None, ge=1, description="reduce inputs to this many principal components (mlp)")
    input_whiten: bool = Field(
        True, description="scale each component to unit variance; false keeps their proportions, for curved data"
    )

    input_standardise: bool = Field(
        True,
        description="without input_pca: centre each feature and scale it to unit variance; false: leave it alone",
    )

    @model_validator(mode="after")
    def _pca_needs_mlp(self) -> NetworkSpec:
        if self.input_pca is not None and self.network in IMAGE_NETWORKS:
            raise ValueError("input_pca needs network: mlp (a convolution has no pixels left to work on)")
        untouched = type(self).model_fields["input_standardise"].default
        if self.input_pca is not None and self.input_standardise != untouched:
            raise ValueError(
                "input_standardise is for inputs without input_pca, whose components are always centred; leave one of "
                "the two out (input_whiten: false keeps the components' proportions)"
            )
        return self


class ModelSpec(NetworkSpec):
    """Fields every latent model has."""

    latent_dim: int = Field(11, ge=1, le=4096, description="size of the latent space, d_v + d_i")
    likelihood: Literal["mse", "nb"] = Field(
        "mse",
        description="mse: Gaussian on transformed inputs; nb: negative-binomial counts, given each cell's library size",
    )
    likelihood_variance: float = Field(0.01, gt=0, description="mse: fixed, on standardised or whitened inputs")
    kl_warmup: float = Field(0.1, ge=0, le=1, description="fraction of the epochs with a rising KL weight")

    @model_validator(mode="after")
    def _counts_have_no_fixed_variance(self) -> ModelSpec:
        if self.likelihood == "mse":
            return self
        if self.likelihood_variance != type(self).model_fields["likelihood_variance"].default:
            raise ValueError(
                "likelihood_variance belongs to likelihood: mse; with nb each gene's dispersion is fitted: leave it out"
            )
        if self.network in IMAGE_NETWORKS:
            raise ValueError("likelihood: nb is one of counts of genes, and images have none; use likelihood: mse")
        return self


class CausalModelSpec(ModelSpec):
    """Fields of the models with a responsive and an invariant block."""

    responsive_dim: int | float = Field(4, description="d_v: an integer, or a fraction of latent_dim")
    mechanisms: Literal["free", "diagonal", "targeted", "group_sparse"] = Field(
        "targeted",
        description="what perturbations change: free: everything, as published; diagonal: the same without edges among "
        "responsive latents; targeted: the rows of their targets; group_sparse: few rows, by a penalty",
    )
    targets: Literal["auto", "known", "known_unordered", "learned"] = Field(
        "auto",
        description="targeted: known (an oracle for labels and causal order), known_unordered (orders searched by "
        "loss), learned; auto: known where the data know them, else learned",
    )
    targets_per_perturbation: int = Field(1, ge=1, description="targeted, learned: most targets of a perturbation")
    intervention: Literal["cut", "soft"] = Field(
        "cut", description="targeted: a target's incoming edges vanish (cut) or change freely (soft)"
    )
    posterior: Literal["unmixed", "noise"] = Field(
        "unmixed", description="unmixed: rotation on the side of the prior; noise: as published"
    )
    covariance: Literal["full", "diagonal"] = Field(
        "full", description="posterior: unmixed; diagonal bends latents where the decoder's Jacobian is not orthogonal"
    )
    sparsity: float = Field(
        0.0,
        ge=0,
        description="weight of the L1 penalty on graph and perturbation effects; group_sparse: of the norms of whole "
        "row changes; 0 is none",
    )
    kl_responsive: float = Field(1.0, ge=0)
    kl_invariant: float = Field(1.0, ge=0)
    alignment: AlignmentSpec = AlignmentSpec()
    pairing: Pairing = Field("auto", description="auto: what the data offer, see data.pairs")

    @property
    def d_v(self) -> int:
        """Size of the responsive block."""
        if isinstance(self.responsive_dim, int):
            return self.responsive_dim
        return max(1, round(self.responsive_dim * self.latent_dim))

    @property
    def d_i(self) -> int:
        """Size of the invariant block."""
        return self.latent_dim - self.d_v

    @model_validator(mode="after")
    def _both_blocks_exist(self) -> CausalModelSpec:
        if isinstance(self.responsive_dim, float) and not 0 < self.responsive_dim < 1:
            raise ValueError("responsive_dim as a fraction lies strictly between 0 and 1")
        if not 1 <= self.d_v < self.latent_dim:
            raise ValueError(f"responsive_dim {self.responsive_dim} leaves no room in latent_dim {self.latent_dim}")
        return self

    @model_validator(mode="after")
    def _only_targeted_mechanisms_have_targets(self) -> CausalModelSpec:
        if self.mechanisms == "targeted":
            return self
        for key, value, without in (("targets", self.targets, "auto"), ("intervention", self.intervention, "cut")):
            if value != without:
                raise ValueError(
                    f"{key}: {value} needs mechanisms: targeted, since {self.mechanisms} mechanisms know no targets; "
                    f"leave {key} out, or set mechanisms: targeted"
                )
        return self


class PerturbedVAESpec(CausalModelSpec):
    """PerturbedVAE: one snapshot under u, paired with a control."""

    kind: Literal["perturbed_vae"] = "perturbed_vae"


class CiteVAESpec(CausalModelSpec):
    """CITE-VAE: a trajectory under u; a snapshot is two frames, control then perturbed."""

    kind: Literal["cite_vae"] = "cite_vae"
    lagged: Literal["none", "diagonal", "dense", "nonlinear"] = Field(
        "diagonal",
        description="lagged matrix B; nonlinear: dense, and a small network beside it; none where the frame before is "
        "another cell's",
    )

    @model_validator(mode="after")
    def _needs_a_first_frame(self) -> CiteVAESpec:
        if self.pairing == "none":
            raise ValueError("cite_vae starts from a control frame: pairing: none is not possible, random is")
        return self


class BetaVAESpec(ModelSpec):
    """β-VAE without u: the control that must fail to identify."""

    kind: Literal["beta_vae"] = "beta_vae"
    kl: float = Field(1.0, ge=0, description="weight of the KL term")


class DiscrepancyVAESpec(ModelSpec):
    """Discrepancy-VAE (Zhang et al. 2023), the published predecessor; the defaults are its published settings."""

    kind: Literal["discrepancy_vae"] = "discrepancy_vae"
    layers: int = Field(1, ge=1, le=16, description="hidden layers of encoder and decoder")
    input_standardise: bool = Field(
        False, description="without input_pca: centre and scale each feature; false: leave it alone, as published"
    )
    likelihood_variance: float = Field(
        0.5, gt=0, description="squared errors, a mean over features, are divided by twice this; 0.5 as published"
    )
    kl_warmup: float = Field(0.1, ge=0, le=1, description="fraction of the epochs before the KL weight starts to rise")
    kl: float = Field(2.0, ge=0, description="weight of the KL term at the end of training, to which it rises linearly")
    discrepancy: float = Field(
        10.0,
        ge=0,
        description="α, weight of the MMD between generated and perturbed cells; rises from 0 over 5 % to 50 % of the "
        "epochs",
    )
    discrepancy_over: Literal["perturbation", "batch"] = Field(
        "perturbation", description="cells compared with each other: those of one perturbation, or a whole mini-batch"
    )
    bandwidth: float = Field(
        1000.0, gt=0, description="σ of the MMD, in squared units of the transformed inputs: widths σ/32 · 2^k, k = 0…9"
    )
    temperature: float = Field(
        5.0, gt=0, description="factor on the logits of the targets at the end of training; it starts at 1"
    )
    prediction_temperature: float | None = Field(
        None,
        gt=0,
        description="factor on the logits where cells are predicted; default: as training ended; the published "
        "notebook predicts at 1",
    )
    sparsity: float = Field(1e-3, ge=0, description="weight of the L1 penalty on the latent graph; 0 is none")
    pairing: Pairing = Field("auto", description="auto: what the data offer, see data.pairs")

    @model_validator(mode="after")
    def _compares_no_counts(self) -> DiscrepancyVAESpec:
        if self.likelihood != "mse":
            raise ValueError("discrepancy_vae compares cells as published, without counts: leave likelihood out")
        return self

    @model_validator(mode="after")
    def _needs_a_control(self) -> DiscrepancyVAESpec:
        if self.pairing == "none":
            raise ValueError("discrepancy_vae generates from control cells: pairing: none is not possible, random is")
        return self


class SupervisedSpec(NetworkSpec):
    """A regressor from frames to their true latents: an oracle, the ceiling for models that see no truth."""

    kind: Literal["supervised"] = "supervised"


AnyModelSpec = Annotated[
    PerturbedVAESpec | CiteVAESpec | BetaVAESpec | DiscrepancyVAESpec | SupervisedSpec, Field(discriminator="kind")
]
