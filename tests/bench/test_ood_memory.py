"""Peak memory of OOD scores on 100,000 cells of 5,000 genes: pytest tests/bench/test_ood_memory.py -s

In a process of its own, the cells themselves (2 GB of float32) counted; a few minutes.
"""

import subprocess
import sys

import pytest

CELLS, GENES = 100_000, 5_000
#: Bytes that the whole process may hold at once.
MOST = 4 * 1024**3

PROGRAM = """
import resource, sys, time
import torch
from harness.data.batch import PerturbationData
from harness import scoring

cells, genes = int(sys.argv[1]), int(sys.argv[2])
singles = [f"g{k}" for k in range(90)]
doubles = [f"g{k}+g{k + 1}" for k in range(0, 20, 2)]
names = ["control", *singles, *doubles]
random = torch.Generator().manual_seed(0)
frames = torch.empty(cells, genes)
for part in frames.split(2_000):
    part.normal_(generator=random).clamp_(min=0)
condition = torch.arange(cells) % len(names)
u = torch.zeros(cells, len(singles))
for k, name in enumerate(names[1:], 1):
    for member in name.split("+"):
        u[condition == k, singles.index(member)] = 1.0
is_double = condition > len(singles)
seen, unseen = torch.nonzero(~is_double)[:, 0], torch.nonzero(is_double)[:, 0]
control = torch.nonzero(condition == 0)[:, 0]
index = torch.stack([control[torch.arange(cells) % len(control)], torch.arange(cells)], dim=1)
splits = {"train": seen[:-200], "validation": seen[-200:-100], "test": seen[-100:], "double": unseen}
data = PerturbationData(
    frames=frames, index=index, u=u, condition=condition, conditions=tuple(names), perturbations=tuple(singles),
    splits=splits, ood=("double",), pairs="random", fingerprint="", feature_names=tuple(f"g{k}" for k in range(genes)),
)
class Moved:
    def __init__(self, *_):
        pass

    def within(self, stratum):
        return lambda condition, control: control + 0.1


scoring.Predictor = Moved
scoring.score_latents = lambda *_: {}
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
scored = scoring.score_ood(torch.nn.Linear(1, 1), data, None, 500, 0)
assert len(scored.ood["double"].conditions) == len(doubles), scored.excluded
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(before * 1024, after * 1024, time.process_time() - began)
"""


@pytest.mark.timeout(1800)
def test_scores_of_many_cells_stay_below_four_gigabytes(benchmark):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(CELLS), str(GENES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before, after, seconds = map(float, done.stdout.split())
    print(f"{CELLS} x {GENES}: {after / 1024**3:.2f} GB at most, {before / 1024**3:.2f} before scores; {seconds:.0f} s")
    benchmark.extra_info |= {"peak GB": after / 1024**3, "before GB": before / 1024**3, "CPU s": seconds}
    benchmark.pedantic(lambda: None, rounds=1)
    assert after < MOST
