"""What reading a screen of 110,000 cells × 5,000 genes takes: pytest tests/bench/test_perturbseq_scale.py -s

The file is written block by block. It is read in a process of its own, whose largest memory is what the system says it
was: labels, splits, choice of 2,000 highly variable genes on training cells, and log-normalised expression. Judged is
the processor's time, of one thread, for the machine may be busy.
"""

import os
import subprocess
import sys

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import write_elem

CELLS, GENES, KEPT = 110_000, 5_000, 2_000
#: Share of entries that are not zero.
DENSITY = 0.1
SINGLES, DOUBLES = 105, 112
#: What may be taken.
MOST_SECONDS, MOST_GIGABYTES = 60.0, 6.0

READ = """
import resource, sys, time
from pathlib import Path
from harness.data import load
from harness.data_spec import PerturbseqData
spec = PerturbseqData(path=sys.argv[1], preprocess={"highly_variable": {"genes": int(sys.argv[3])}})
begun, processor = time.perf_counter(), time.process_time()
data = load(spec, Path(sys.argv[2]))
seconds, processor = time.perf_counter() - begun, time.process_time() - processor
print(*data.frames.shape, seconds, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)
"""


def labels():
    """Of all cells: a tenth are control, the rest are spread over singles and doubles."""
    singles = [f"GENE{k}" for k in range(SINGLES)]
    doubles = [f"GENE{k % SINGLES}+GENE{(k + 1 + k // SINGLES) % SINGLES}" for k in range(DOUBLES)]
    conditions = np.array(["control", *singles, *doubles])
    rng = np.random.default_rng(1)
    drawn = 1 + rng.integers(0, len(conditions) - 1, CELLS)
    return pd.Categorical(conditions[np.where(rng.random(CELLS) < 0.1, 0, drawn)])


def write(path, block=2_000):
    """Counts with a mean of each gene's own, in blocks of cells."""
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.5, 1.0, GENES)
    probability = np.minimum(0.95, DENSITY * mean / mean.mean())
    with h5py.File(path, "w") as file:
        empty = anndata.AnnData(
            obs=pd.DataFrame({"condition": labels()}, index=[f"cell{k}" for k in range(CELLS)]),
            var=pd.DataFrame(index=[f"GENE{k}" for k in range(GENES)]),
        )
        for name in ("obs", "var"):
            write_elem(file, name, getattr(empty, name))
        for name in ("obsm", "varm", "layers", "uns", "obsp", "varp"):
            write_elem(file, name, {})
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (CELLS, GENES)})
        parts = {
            "data": group.create_dataset("data", (0,), "f4", maxshape=(None,), chunks=(1 << 18,)),
            "indices": group.create_dataset("indices", (0,), "i4", maxshape=(None,), chunks=(1 << 18,)),
        }
        lengths = [np.zeros(1, dtype=np.int64)]
        for start in range(0, CELLS, block):
            rows, columns = np.nonzero(rng.random((min(block, CELLS - start), GENES), dtype=np.float32) < probability)
            counts = 1 + rng.poisson(mean[columns])
            for part, values in (("data", counts), ("indices", columns)):
                stored = parts[part]
                stored.resize((len(stored) + len(values),))
                stored[-len(values) :] = values
            lengths.append(np.bincount(rows, minlength=min(block, CELLS - start)))
        group["indptr"] = np.cumsum(np.concatenate(lengths))
    return path


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    return write(tmp_path_factory.mktemp("large") / "screen.h5ad")


def test_reading_and_preparing_a_large_screen(screen, benchmark, tmp_path):
    load_before = os.getloadavg()[0]
    command = [sys.executable, "-c", READ, str(screen), str(tmp_path), str(KEPT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells, genes, seconds, processor, gigabytes = map(float, done.stdout.split())
    print(
        f"{cells:.0f} cells × {genes:.0f} genes of {GENES}, from {screen.stat().st_size / 1e9:.2f} GB: {seconds:.1f} s "
        f"({processor:.1f} s of CPU), {gigabytes:.2f} GB at most; load of the machine {load_before:.1f}"
    )
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(seconds=seconds, processor_seconds=processor, gigabytes=gigabytes)
    assert cells == CELLS
    assert KEPT <= genes <= KEPT + SINGLES
    assert processor < MOST_SECONDS
    assert gigabytes < MOST_GIGABYTES
