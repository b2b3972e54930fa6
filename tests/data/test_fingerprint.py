"""A dataset's name changes with what it holds and with nothing else."""

import shutil

import numpy as np
import pytest

from harness.data.fingerprint import fingerprint
from harness.data.seeding import derive
from harness.data_spec import Causal3DIdentData, PerturbseqData, SimulationData
from harness.errors import UserError
from harness.process_spec import PROCESS_PRESETS
from harness.reading_spec import MinCells

anndata = pytest.importorskip("anndata")


def _write(path, counts):
    table = anndata.AnnData(counts.astype(np.float32))
    table.obs["condition"] = ["control", "A"] * (len(counts) // 2)
    table.write_h5ad(path)


def test_generated_data_are_named_by_their_fields():
    spec = SimulationData(preset="tiny")
    assert fingerprint(spec) == fingerprint(SimulationData(**{**spec.model_dump(), "preset": None}))
    assert fingerprint(spec) == fingerprint(spec.model_copy(update={"cache_dir": "elsewhere"}))
    for change in ({"seed": 1}, {"noise": 0.1}, {"environments": 5}):
        assert fingerprint(spec) != fingerprint(spec.model_copy(update=change))


def test_two_ways_to_write_a_process_have_one_name():
    def named(**process):
        return fingerprint(SimulationData.model_validate({"preset": "published_sizes", "process": process}))

    assert named() == named(preset="targeted") == named(responsive=4)
    assert named(preset="soft") == named(intervention="soft") == named(preset="uncut", intervention="soft")
    names = [named(preset=name) for name in PROCESS_PRESETS]
    assert len(set(names)) == len(names)


def test_every_knob_counts():
    spec = SimulationData(preset="tiny")
    changed = [{"pairs": "random"}, {"pairs": "none"}, {"injective": False}]
    for knob, value in (("changes", "mean"), ("interaction", 1.0), ("lagged", "nonlinear"), ("untargeted", 1)):
        changed.append({"process": spec.process.model_copy(update={knob: value})})
    names = {fingerprint(spec.model_copy(update=change)) for change in ({}, *changed)}
    assert len(names) == 8


def test_images_are_named_by_what_determines_their_pixels():
    spec = Causal3DIdentData()
    assert fingerprint(spec) != fingerprint(spec.model_copy(update={"samples": 4}))
    assert fingerprint(spec) != fingerprint(spec.model_copy(update={"classes": (1,)}))


def test_a_file_is_named_by_its_content_and_not_its_path(tmp_path):
    first, copy, other = (tmp_path / name for name in ("a.h5ad", "b.h5ad", "c.h5ad"))
    _write(first, np.ones((4, 3)))
    shutil.copy(first, copy)
    _write(other, np.full((4, 3), 2.0))
    names = [fingerprint(PerturbseqData(path=str(path))) for path in (first, copy, other)]
    assert names[0] == names[1] != names[2]


def test_sizes_of_the_simulator_do_not_name_a_file(tmp_path):
    _write(tmp_path / "a.h5ad", np.ones((4, 3)))
    spec = PerturbseqData(path=str(tmp_path / "a.h5ad"))
    assert fingerprint(spec) == fingerprint(spec.model_copy(update={"genes": 77, "cells": 99}))
    for change in ({"min_cells": MinCells(least=3)}, {"pairs": "none"}):
        assert fingerprint(spec) != fingerprint(spec.model_copy(update=change))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.h5ad"):
        fingerprint(PerturbseqData(path=str(tmp_path / "nowhere.h5ad")))


def test_streams_differ_by_seed_and_purpose_and_stay():
    streams = {derive(seed, *purpose) for seed in (0, 1) for purpose in (("a",), ("b",), ("a", 1), ("a", 2))}
    assert len(streams) == 8
    assert derive(0, "batches", 3) == 6366262660794213022
    assert all(0 <= stream < 2**63 for stream in streams)
