"""Frames lie in the order of a hash of the cells' names; here they are put back into the order of a file."""

from dataclasses import replace

import anndata
import torch

from harness.data.perturbseq.cells_in_use import in_order_of_names
from harness.data.perturbseq.replay import cell_names


def as_filed(data, path):
    """The same data with its frames in the order of the file they were read from."""
    filed = anndata.read_h5ad(path, backed="r")
    names = cell_names(filed.obs.index)
    filed.file.close()
    used = {name for own in data.split_record["cells"].values() for cells in own.values() for name in cells}
    names = names[[name in used for name in names]]
    order = torch.from_numpy(in_order_of_names(names))
    back = order.argsort()
    library = None if data.library is None else data.library[back]
    return replace(data, frames=data.frames[back], library=library, index=order[data.index])
