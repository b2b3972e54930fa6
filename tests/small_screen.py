"""A small screen of known counts, and lines for a shell taken from sentences and run, for tests of anybody's files."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

LABELS = ("control", "KLF1", "SET", "SET+KLF1")
CELLS, GENES = 30, 60  # cells of each condition


def counts(library=400, genes=GENES, seed=0):
    """Poisson counts of genes and cells of very different sizes, (120, genes) float64; no cell is empty."""
    rng = np.random.default_rng(seed)
    share = rng.gamma(0.7, 1.0, genes)
    size = library * rng.lognormal(0, 0.5, (len(LABELS) * CELLS, 1))
    drawn = rng.poisson(size * share / share.sum()).astype(np.float64)
    drawn[:, 0] += 1
    return drawn


def per_cell(raw, target=1e4):
    """Counts scaled to one sum a cell, in float64."""
    return raw * target / raw.sum(axis=1, keepdims=True)


def screen(x, names=None, **more):
    """An AnnData of these values (None: no X), its conditions one after the other."""
    names = [f"G{k}" for k in range(GENES if x is None else x.shape[1])] if names is None else names
    labels = np.repeat(LABELS, CELLS)
    obs = pd.DataFrame({"condition": pd.Categorical(labels)}, index=[f"c{k}" for k in range(len(labels))])
    x = x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype == np.float64 else x
    return anndata.AnnData(x, obs, pd.DataFrame(index=names), **more)


def csr(x):
    return sparse.csr_matrix(x.astype(np.float32))


def notes(data):
    """What is to be said of data that were read, one sentence a line."""
    return "\n".join(data.notes)


def lines_of(sentence):
    """The lines for a shell that a sentence gives."""
    return re.findall(r"   ((?:python -c |gunzip |bunzip2 |xz |unzip ).*?)(?:   |$)", sentence)


def run_line(sentence, folder, shell=False):
    """Run the one line that a sentence gives, by a shell or, faster, its Python alone; the .h5ad that it made."""
    (line,) = lines_of(sentence)
    before = set(folder.iterdir())
    if shell:
        paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"PATH": paths}
        subprocess.run(line, check=True, shell=True, cwd=folder, env=environment, capture_output=True)
    else:
        _, _, code = shlex.split(line)
        exec(code, {})
    (made,) = set(folder.iterdir()) - before
    return made


def study_lines(sentence):
    """The lines of the study file that a sentence gives, as (key, value)."""
    return re.findall(r"under data: in the study file   (\w+): (.+?)(?=   |, and|$)", sentence)
