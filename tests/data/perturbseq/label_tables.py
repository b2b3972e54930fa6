"""Tables of obs for tests of labels, and what is read from them."""

from collections import Counter

import pandas as pd
import yaml

from harness.data.perturbseq.labels import read_labels
from harness.data_spec import PerturbseqData


def cells(counts, column="perturbation", **columns):
    """A table with some cells of each label; more columns give a value for each label."""
    table = pd.DataFrame({column: [label for label, number in counts.items() for _ in range(number)]}, dtype=object)
    for name, of in columns.items():
        table[name] = [value for value, number in zip(of, counts.values(), strict=True) for _ in range(number)]
    return table


def read(counts, column="perturbation", genes=(), columns=None, **options):
    """Labels of a table of `cells`."""
    table = cells(counts, column, **(columns or {}))
    return read_labels(table, "file", PerturbseqData(path="cells.h5ad", **{"column": column, **options}), genes)


def sizes(labels):
    """Number of cells of each condition; of those left out under the empty string."""
    return dict(Counter(labels.conditions.tolist()))


def applied(note):
    """The keys of a study file's data that a note proposes."""
    lines = note.split("put under data: in the study file   ")[1]
    return {
        key: value for line in lines.split("   and   ") for key, value in yaml.safe_load(line.split("   ")[0]).items()
    }
