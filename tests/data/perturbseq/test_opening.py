"""Files that cannot be opened as they are: locked, compressed with a filter that is not installed, or not permitted."""

import errno
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from small_screen import counts, csr, screen

from harness.data import load
from harness.data.perturbseq import opening
from harness.data.perturbseq.cell_file import CellFile
from harness.data.perturbseq.opening import open_hdf5
from harness.data_spec import PerturbseqData
from harness.errors import UserError

#: A filter of the package hdf5plugin, and one that nobody has.
ZSTD, NOBODYS = 32015, 40999
INSPECT = "import sys{}; from harness import cli; sys.exit(cli.main(['data', 'inspect', sys.argv[1]]))"


def inspected(path, before="", **environment):
    """What ``harness data inspect`` says in a process of its own, which has loaded no filter yet."""
    command = [sys.executable, "-c", INSPECT.format(before), str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | environment)
    assert done.stderr.count("\n") <= 1, done.stderr
    return done.returncode, done.stdout + done.stderr


def written(path):
    screen(csr(counts())).write_h5ad(path)
    return path


# ------------------------------------------------------------------------------------------------------- locks


@pytest.fixture
def locked(tmp_path):
    """A file that another process has open for writing, and the means to close it there."""
    path = written(tmp_path / "cells.h5ad")
    code = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=pipe, stdout=pipe) as other:
        assert other.stdout.readline() == b"open\n"

        def close():
            other.stdin.close()
            other.wait()

        yield path, close
        close()


def test_a_file_open_for_writing_elsewhere_is_locked_and_not_broken(locked):
    path, close = locked
    with pytest.raises(
        UserError, match=r"is open for writing elsewhere, such as in a notebook .*; close it there"
    ) as said:
        open_hdf5(path)
    assert "download" not in str(said.value)
    status, out = inspected(path, HDF5_USE_FILE_LOCKING="FALSE")  # the second thing that would do
    assert status == 0, out
    close()  # the first
    assert len(load(PerturbseqData(path=str(path)), path.parent / "cache").frames) == 120


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOLCK, "Unable to open file (unable to lock file, errno = 37, error message = 'No locks')"),
            "lies on a file system without file locks; set HDF5_USE_FILE_LOCKING=FALSE in the environment",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), "you may not read this file; let its owner permit it"),
    ],
)
def test_what_the_system_answers_is_told(tmp_path, monkeypatch, error, words):
    path = written(tmp_path / "cells.h5ad")

    def refuse(*_):
        raise error

    monkeypatch.setattr(opening.h5py, "File", refuse)
    with pytest.raises(UserError, match=words):
        open_hdf5(path)


# ----------------------------------------------------------------------------------------------------- filters


def compressed_with(path, number, name="X/data"):
    """Let a file say that a part of it is compressed with a filter, whether that is installed or not."""
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        attributes = dict(file[name].attrs)
        del file[name]
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk(values.shape)
        made.set_filter(number, h5py.h5z.FLAG_OPTIONAL, ())
        kind = h5py.h5t.py_create(values.dtype)
        part = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(values.shape), made)
        part.write_direct_chunk((0,) * values.ndim, values.tobytes(), filter_mask=0)
        file[name].attrs.update(attributes)
    return path


def test_a_filter_that_is_not_installed_is_named_with_the_package_that_has_it(tmp_path):
    path = compressed_with(written(tmp_path / "cells.h5ad"), ZSTD)
    status, out = inspected(path, before="; sys.modules['hdf5plugin'] = None")
    assert status == 2
    assert out.endswith(
        f"{path}: X/data is compressed with zstd (HDF5 filter {ZSTD}), which is not installed here; install what reads "
        "it: pip install hdf5plugin\n"
    )


@pytest.mark.parametrize("part", ["X/data", "obs/condition/codes"])
def test_a_filter_that_no_package_has_is_told_by_its_number(tmp_path, part):
    path = compressed_with(written(tmp_path / "cells.h5ad"), NOBODYS, part)
    with pytest.raises(UserError) as said:
        CellFile(path)
    assert str(said.value) == (
        f"{path}: {part} is compressed with the HDF5 filter {NOBODYS}, which is not installed here; write the file "
        "again with AnnData.write_h5ad(..., compression='gzip') where it can be read"
    )


def test_what_is_not_read_may_be_compressed_in_any_way(tmp_path):
    data = screen(csr(counts()), layers={"other": csr(counts())})
    data.write_h5ad(tmp_path / "cells.h5ad")
    path = compressed_with(tmp_path / "cells.h5ad", NOBODYS, "layers/other/data")
    assert len(load(PerturbseqData(path=str(path)), tmp_path / "cache").frames) == 120
    with pytest.raises(UserError, match="layers/other/data is compressed with the HDF5 filter"):
        CellFile(path, layer="other")


@pytest.mark.parametrize("name", ["Zstd", "Blosc"])
def test_the_package_is_used_where_it_is_installed(tmp_path, name):
    """In a process that has not imported it."""
    pytest.importorskip("hdf5plugin", reason="hdf5plugin is not installed; the sentence without it is tested above")
    path = written(tmp_path / "cells.h5ad")
    code = f"""
import h5py, hdf5plugin, sys
with h5py.File(sys.argv[1], "r+") as file:
    for name in ("X/data", "X/indices", "obs/condition/codes"):
        values, attributes = file[name][:], dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=values, compression=hdf5plugin.{name}()).attrs.update(attributes)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    status, out = inspected(path)
    assert status == 0, out
    assert "X             counts" in out
    data = load(PerturbseqData(path=str(path)), tmp_path / "cache")
    np.testing.assert_array_equal(data.library.numpy(), counts().sum(1))
