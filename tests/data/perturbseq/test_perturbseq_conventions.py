"""Files laid out as each public convention has them: what is found, what is read, and that nothing is written."""

import anndata
import numpy as np
import pandas as pd
import pytest
from file_order import as_filed
from scipy import sparse

from harness import cli
from harness.data import load
from harness.data.perturbseq.inspection import inspect_file
from harness.data.perturbseq.values import log_normalise
from harness.data_spec import PerturbseqData

pytestmark = pytest.mark.filterwarnings("ignore:Transforming to str index")

CELLS, SYMBOLS = 25, ("KLF1", "SET", *(f"G{k}" for k in range(13)))


def raw(cells):
    return np.random.default_rng(0).poisson(2.0, (cells, len(SYMBOLS))).astype(np.float32)


def perturbench():
    """Log-normalised X in float64 CSR, counts in a layer, many categorical columns."""
    labels = np.repeat(["control", "KLF1", "SET", "SET+KLF1"], CELLS)
    counts = raw(len(labels))
    obs = pd.DataFrame({"condition": pd.Categorical(labels), "cell_type": pd.Categorical(["K562"] * len(labels))})
    obs["perturbation_type"] = pd.Categorical(["CRISPRa"] * len(labels))
    logs = sparse.csr_matrix(log_normalise(counts).astype(np.float64))
    return anndata.AnnData(logs, obs, pd.DataFrame(index=SYMBOLS), layers={"counts": sparse.csr_matrix(counts)}), {}


def gears():
    """Ensembl names in var's index, symbols in ``gene_name``; singles written with ctrl on either side."""
    labels = np.repeat(["ctrl", "KLF1+ctrl", "ctrl+SET", "SET+KLF1"], CELLS)
    obs = pd.DataFrame({"condition": pd.Categorical(labels), "control": (labels == "ctrl").astype(int)})
    obs["dose_val"] = pd.Categorical(np.where(labels == "ctrl", "1", "1+1"))
    obs["condition_name"] = pd.Categorical([f"A549_{label}_1" for label in labels])
    var = pd.DataFrame({"gene_name": list(SYMBOLS)}, index=[f"ENSG{k:011d}" for k in range(len(SYMBOLS))]).rename_axis(
        "gene_id"
    )
    return anndata.AnnData(sparse.csr_matrix(log_normalise(raw(len(labels)))), obs, var), {"gene_names": "gene_name"}


def scperturb():
    """Integer counts in CSC, numbers of perturbed genes, other columns that look like perturbations."""
    labels = np.repeat(["control", "KLF1", "SET", "SET_KLF1"], CELLS)
    obs = pd.DataFrame({"perturbation": pd.Categorical(labels), "nperts": np.repeat([0, 1, 1, 2], CELLS)})
    obs["ncounts"], obs["percent_mito"] = 100.0, 0.5
    obs["gemgroup"] = pd.Categorical((np.arange(len(labels)) % 3).astype(str))
    return anndata.AnnData(sparse.csc_matrix(raw(len(labels)).astype(np.int64)), obs, pd.DataFrame(index=SYMBOLS)), {}


def cpa():
    """Dense log-normalised values in a file called raw, control without a label."""
    labels = np.repeat(["", "KLF1", "SET", "SET,KLF1"], CELLS)
    obs = pd.DataFrame({"guide_ids": labels, "read_count": 1})
    return anndata.AnnData(log_normalise(raw(len(labels))), obs, pd.DataFrame(index=SYMBOLS)), {}


def guide_level():
    """Two guides a gene and two non-targeting ones, counts in float64."""
    guides = ["NTg4", "NTg5", "KLF1_1", "KLF1_2", "SET_1", "SET_2", "SET_1+KLF1_2", "KLF1_1+SET_2"]
    labels = np.resize(np.repeat(guides, [13, 12] * 4), 4 * CELLS)
    obs = pd.DataFrame({"guide_identity": pd.Categorical(labels)})
    options = {"column": "guide_identity", "guides": {"pattern": "{gene}_{guide}", "control": "NTg{guide}"}}
    return anndata.AnnData(raw(len(labels)).astype(np.float64), obs, pd.DataFrame(index=SYMBOLS)), options


CONVENTIONS = [perturbench, gears, scperturb, cpa, guide_level]


def written(convention, tmp_path, shuffled=True):
    adata, options = convention()
    adata.obs.index = [f"cell{k}" for k in range(len(adata))]
    if shuffled:
        adata = adata[np.random.default_rng(2).permutation(len(adata))].copy()
    folder = tmp_path / "given"
    folder.mkdir()
    adata.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad", options


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda one: one.__name__)
def test_each_convention_gives_the_same_cells(convention, tmp_path):
    path, options = written(convention, tmp_path, shuffled=False)
    data = as_filed(load(PerturbseqData(path=str(path), **options), tmp_path / "cache"), path)
    assert data.conditions == ("control", "KLF1", "SET", "KLF1+SET")
    assert data.feature_names == SYMBOLS
    counts = raw(4 * CELLS)
    np.testing.assert_allclose(data.frames.numpy(), log_normalise(counts), rtol=1e-6)
    np.testing.assert_allclose(data.library.numpy(), counts.sum(1), rtol=1e-5)
    assert len(data.splits["double_seen2"]) == CELLS


@pytest.mark.parametrize(
    ("convention", "held", "form", "control"),
    [
        (perturbench, "log-normalised", "A+B", "'control'"),
        (gears, "log-normalised", "A+B", "'ctrl'"),
        (scperturb, "counts", "A_B", "'control'"),
        (cpa, "log-normalised", "A,B", "''"),
        (guide_level, "counts", "A+B", "'NTg4' or 'NTg5'"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_inspection_tells_each_convention(convention, held, form, control, tmp_path):
    path, options = written(convention, tmp_path)
    found = inspect_file(PerturbseqData(path=str(path), **options))
    told = dict(found.found)
    assert not found.problems
    assert told["X"].startswith(held)
    assert f"pairs written {form};" in told["perturbation"]
    assert f"25 cells labelled {control}" in told["control"]
    assert told["singles"] == "2, of 25 to 25 cells"
    assert told["doubles"] == "1, of 25 to 25 cells"


def test_symbols_are_proposed_where_the_index_holds_other_names(tmp_path):
    path, _ = written(gears, tmp_path)
    notes = inspect_file(PerturbseqData(path=str(path))).notes
    assert any("2 of 2 perturbed genes are not among the genes" in note for note in notes)
    assert any(note.endswith("gene_names: gene_name") for note in notes)
    assert not any(
        "perturbed genes" in note for note in inspect_file(PerturbseqData(path=str(path), gene_names="gene_name")).notes
    )


def test_guides_are_proposed_and_the_proposal_works_as_it_stands(tmp_path, capsys):
    path, _ = written(guide_level, tmp_path)
    assert cli.main(["data", "inspect", str(path), "--column", "guide_identity"]) == 2
    said = capsys.readouterr().out
    line = 'guides: {pattern: "{gene}_{guide}", control: "NTg{guide}"}'
    assert "no control cells" in said
    assert any(
        told.startswith("note: obs['guide_identity'] seems to name guides") and told.endswith(line)
        for told in said.splitlines()
    )
    options = ["--guides", "{gene}_{guide}", "--guide-control", "NTg{guide}"]
    assert cli.main(["data", "inspect", str(path), "--column", "guide_identity", *options]) == 0
    said = capsys.readouterr().out
    assert "guides        4 guides of 2 genes, 2 to 2 each (KLF1: KLF1_1, KLF1_2); 2 non-targeting" in said
    assert '--set \'data.guides={"pattern": ["{gene}_{guide}"], "control": ["NTg{guide}"]}\'' in said


def test_a_template_that_cannot_work_is_refused_by_name(tmp_path, capsys):
    path, _ = written(guide_level, tmp_path)
    assert cli.main(["data", "inspect", str(path), "--guides", "{gene}{guide}"]) == 2
    assert "--guides: nothing separates the parts of '{gene}{guide}'" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["time", "day"])
def test_time_points_and_batches_are_shown(column, tmp_path):
    adata, _ = scperturb()
    adata.obs[column] = np.resize([0, 2, 10], len(adata))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    told = dict(inspect_file(PerturbseqData(path=str(tmp_path / "cells.h5ad"), time=column)).found)
    assert told["time"] == f"obs[{column!r}]: 3 time points, 0 (34 cells), 2 (33 cells), 10 (33 cells)"


# ------------------------------------------------------------------------------------------ nothing is written


def state(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda one: one.__name__)
def test_nothing_is_written_next_to_or_into_the_file(convention, tmp_path):
    path, options = written(convention, tmp_path)
    before = state(path.parent)
    spec = PerturbseqData(path=str(path), preprocess={"highly_variable": {"genes": 5}}, **options)
    inspect_file(spec)
    load(spec, tmp_path / "cache")
    assert state(path.parent) == before


def test_a_folder_that_may_not_be_written_is_enough(tmp_path):
    path, options = written(scperturb, tmp_path)
    before = state(path.parent)
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        data = load(PerturbseqData(path=str(path), **options), tmp_path / "cache")
        assert not inspect_file(PerturbseqData(path=str(path))).problems
    finally:
        path.parent.chmod(0o755)
    assert len(data.frames) == 4 * CELLS
    assert state(path.parent) == before


# ---------------------------------------------------------------------------------- refusals, at the command line


def _nan(adata):
    adata.X[7, 3] = np.nan


def _negative(adata):
    adata.X -= 1.5


def _relabelled(change):
    def relabel(adata):
        adata.obs["guide_ids"] = change(adata.obs["guide_ids"])

    return relabel


FAULTS = {
    "nan": (_nan, "NaN or an infinite value at cell 'cell7', gene 'G1'"),
    "negative": (_negative, "unclear whether the file holds counts or log-normalised values"),
    "too few": (lambda adata: None, "4 conditions have fewer than 30 cells"),
    "no control": (_relabelled(lambda of: of.replace("", "safe1")), "no control cells in obs['guide_ids']"),
    "no column": (lambda adata: adata.obs.drop(columns="guide_ids", inplace=True), "no obs column names the pert"),
    "no single": (_relabelled(lambda of: of.replace(["KLF1", "SET"], "")), "no single perturbation to train on"),
    "twice": (lambda adata: setattr(adata, "var_names", ["SET", *SYMBOLS[1:]]), "occur more than once, first 'SET'"),
}
STUDY = """\
name: faulty
models:
  - {{kind: perturbed_vae, latent_dim: 4, responsive_dim: 2, hidden: 16, layers: 1}}
data: {{kind: perturbseq, path: {path}, min_cells: {cells}}}
seeds: 1
train: {{epochs: 1}}
compute: {{cluster: inline}}
"""


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_refused_by_inspection_and_launch_alike(fault, tmp_path, capsys):
    change, sentence = FAULTS[fault]
    adata, _ = cpa()
    adata.obs.index = [f"cell{k}" for k in range(len(adata))]
    change(adata)
    folder = tmp_path / "given"
    folder.mkdir()
    adata.write_h5ad(folder / "cells.h5ad")
    before, cells = state(folder), 30 if fault == "too few" else 20
    assert cli.main(["data", "inspect", str(folder / "cells.h5ad"), "--min-cells", str(cells)]) == 2
    said = capsys.readouterr()
    assert sentence in said.out + said.err
    study = tmp_path / "faulty.yaml"
    study.write_text(STUDY.format(path=folder / "cells.h5ad", cells=cells))
    assert cli.main(["launch", str(study), "--root", str(tmp_path / "runs")]) == 2
    assert sentence in capsys.readouterr().err
    assert state(folder) == before
    assert not (tmp_path / "runs").exists(), list((tmp_path / "runs").rglob("*"))
