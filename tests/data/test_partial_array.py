"""An array file filled in chunks: what is whole is kept, what is not is made again."""

import numpy as np
import pytest

from harness.data.partial_array import PartialArray

SHAPE, CHUNK = (10, 2, 3), 4
CONTENT = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


def fill(path, *starts, shape=SHAPE):
    with PartialArray(path, shape, CHUNK) as array:
        for start in starts:
            array.note(start, array.write(start, CONTENT[start : start + CHUNK]))
        return array.missing


def test_chunks_in_any_order_make_the_array(tmp_path):
    with PartialArray(tmp_path / "a.npy", SHAPE, CHUNK) as array:
        assert array.missing == [0, 4, 8]
        for start in (8, 0, 4):
            array.note(start, array.write(start, CONTENT[start : start + CHUNK]))
        assert array.missing == []
        assert array.rows_there == 10
        assert len(array.finish()) == 3
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_what_is_there_is_kept(tmp_path):
    assert fill(tmp_path / "a.npy", 4) == [0, 8]
    assert fill(tmp_path / "a.npy", 0) == [8]
    with PartialArray(tmp_path / "a.npy", SHAPE, CHUNK) as array:
        assert array.rows_there == 8


def flip(path):
    content = bytearray(path.read_bytes())
    content[-30] ^= 1  # in the middle chunk: two rows of six bytes and more follow
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(("damage", "missing"), [(flip, [4]), (cut, [4, 8])])
def test_a_chunk_that_is_not_whole_is_made_again(tmp_path, damage, missing):
    assert fill(tmp_path / "a.npy", 0, 4, 8) == []
    damage(tmp_path / "a.npy")
    assert fill(tmp_path / "a.npy") == missing
    assert fill(tmp_path / "a.npy", *missing) == []
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), CONTENT)


def test_an_array_of_another_shape_is_begun_again(tmp_path):
    fill(tmp_path / "a.npy", 0, 4)
    assert fill(tmp_path / "a.npy", shape=(10, 3, 2)) == [0, 4, 8]


def test_a_line_cut_short_does_not_count(tmp_path):
    fill(tmp_path / "a.npy", 0, 4)
    record = tmp_path / "a.npy.done"
    record.write_text(record.read_text()[:-3])
    assert fill(tmp_path / "a.npy") == [4, 8]


def test_finishing_finds_what_the_disk_did_not_keep(tmp_path):
    with PartialArray(tmp_path / "a.npy", SHAPE, CHUNK) as array:
        for start in array.missing:
            array.note(start, array.write(start, CONTENT[start : start + CHUNK]))
        flip(tmp_path / "a.npy")
        with pytest.raises(OSError, match="rows from 4 on are not what was written"):
            array.finish()
