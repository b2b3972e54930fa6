"""Usual transformations of counts: what is said of each, and that what is said to mend it does."""

import anndata
import numpy as np
import pytest
from file_order import as_filed
from scipy import sparse
from small_screen import GENES, counts, csr, lines_of, notes, per_cell, run_line, screen, study_lines

from harness import cli
from harness.data import load
from harness.data.perturbseq.inspection import inspect_file
from harness.data.perturbseq.transformations import recognise
from harness.data.perturbseq.values import never_scaled, what_holds
from harness.data_spec import PerturbseqData
from harness.errors import UserError

CP10K = per_cell(counts())
LOGS = np.log1p(CP10K)
#: Values, what they are said to be, and whether counts come back or their logs.
PROVEN = {
    "log2": (np.log2(1 + CP10K), "logarithms to base 2 of one plus scaled counts", "logs"),
    "log10": (np.log10(1 + CP10K), "logarithms to base 10 of one plus scaled counts", "logs"),
    "cp10k": (CP10K, "scaled counts without logarithm", "logs"),
    "sqrt": (np.sqrt(CP10K), "square roots of scaled counts", "logs"),
    "twice": (np.log1p(LOGS), "logarithms taken twice of scaled counts", "logs"),
    "log2 of counts": (np.log2(1 + counts()), "logarithms to base 2 of one plus counts", "counts"),
    "sqrt of counts": (np.sqrt(counts()), "square roots of counts", "counts"),
    "arcsinh": (np.arcsinh(counts() / 2), "inverse hyperbolic sines of counts times 0.5", "counts"),
    "halves": (counts() * 0.3, "counts times 0.3 without logarithm", "counts"),
}
LENGTHS = np.random.default_rng(0).gamma(2, 1, GENES) + 0.1
ESTIMATED = counts() * np.random.default_rng(1).uniform(0.97, 1.03, (120, GENES))
LAYOUTS = {"dense": lambda x: x.astype(np.float32), "csr": csr, "float64 csc": sparse.csc_matrix}


def read(path, **options):
    return as_filed(load(PerturbseqData(path=str(path), **options), path.parent / "cache"), path)


def written(folder, x, base=None):
    folder.mkdir(exist_ok=True)
    data = screen(csr(x) if isinstance(x, np.ndarray) else x)
    if base is not None:
        data.uns["log1p"] = {"base": base}
    data.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"


def refusal(path, **options):
    with pytest.raises(UserError) as refused:
        read(path, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("word", ["auto", "lognorm", "counts"])
@pytest.mark.parametrize("kind", PROVEN)
def test_a_transformation_that_the_values_prove_is_refused_under_any_word(tmp_path, kind, word):
    values, words, gives = PROVEN[kind]
    said = refusal(written(tmp_path / "given", values), values=word)
    told = {
        "auto": f"neither counts nor logs of scaled counts, but {words}; ",
        "lognorm": f"data.values is lognorm, but X holds {words}; "
        if values.max() <= 16.2
        else "and no log-normalised value is above 16.2; ",
        "counts": "data.values is counts, but X holds fractions such as ",
    }
    assert told[word] in said
    assert "set data.values to lognorm" not in said
    assert f"make a file of {'counts' if gives == 'counts' else 'natural logarithms'} with   python -c " in said
    agrees = word == "auto" or (word == "counts") == (gives == "counts")
    assert said.endswith("   and read that one" + ("" if agrees else ", with data.values left out"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", PROVEN)
def test_the_line_that_is_given_brings_the_right_values_back(tmp_path, kind, layout):
    values = PROVEN[kind][0]
    path = written(tmp_path / "given", LAYOUTS[layout](values))
    made = run_line(refusal(path), tmp_path / "given", shell=kind == "log2")
    np.testing.assert_allclose(read(made).frames.numpy(), LOGS, rtol=1e-4)
    np.testing.assert_allclose(read(made).library.numpy(), counts().sum(1), rtol=1e-3)


def test_the_line_mends_raw_and_layers_too(tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    data = screen(csr(LOGS))
    data.raw = screen(csr(np.sqrt(CP10K)))
    data.layers["half's"] = csr(np.log2(1 + CP10K))
    data.write_h5ad(folder / "cells.h5ad")
    for layer in ("raw", "half's"):
        said = refusal(folder / "cells.h5ad", layer=layer)
        assert "X holds log-normalised values; to read it put" in said  # what is there is better than what can be made
        assert study_lines(said) == [("layer", "X")]
    data.X = None
    data.layers["sqrt"] = csr(np.sqrt(CP10K))
    data.write_h5ad(folder / "cells.h5ad")
    made = run_line(refusal(folder / "cells.h5ad", layer="raw"), folder)
    np.testing.assert_allclose(read(made).frames.numpy(), LOGS, rtol=1e-4)
    made = run_line(refusal(folder / "cells.h5ad", layer="half's"), folder)
    np.testing.assert_allclose(read(made, layer="half's").frames.numpy(), LOGS, rtol=1e-4)


def test_the_base_that_scanpy_notes_is_told(tmp_path):
    said = refusal(written(tmp_path / "proven", np.log2(1 + CP10K), base=2.0))
    assert "but logarithms to base 2 of one plus scaled counts, as uns['log1p'] says; make a file of natural" in said
    mended = read(run_line(said, tmp_path / "proven"))
    np.testing.assert_allclose(mended.frames.numpy(), LOGS, rtol=1e-4)
    assert "log1p" not in notes(mended)

    odd = np.log1p(CP10K / LENGTHS)
    path = written(tmp_path / "noted", odd / np.log(3), base=3.0)
    said = refusal(path)
    assert "but logarithms to base 3, as uns['log1p'] says; make a file of natural logarithms" in said
    assert said.endswith("   and read that one, with data.values: lognorm")
    made = run_line(said, tmp_path / "noted")
    mended = read(made, values="lognorm")
    np.testing.assert_allclose(mended.frames.numpy(), odd, rtol=1e-5)
    assert "base" not in notes(mended)
    told = notes(read(path, values="lognorm"))
    assert "uns['log1p'] says that logarithms were taken to base 3, and X is read as natural ones; make" in told

    wrong = read(written(tmp_path / "wrong", LOGS, base=2))
    np.testing.assert_allclose(wrong.frames.numpy(), LOGS, rtol=1e-5)
    assert "taken to base 2, but X holds natural ones, and is read as such" in notes(wrong)
    for base in (None, np.e):
        assert "log1p" not in notes(read(written(tmp_path / "natural", LOGS, base=base)))


@pytest.mark.parametrize(
    ("values", "word", "end"),
    [
        (
            np.log1p(CP10K / LENGTHS),
            "auto",
            "; set data.values to lognorm if they are log-normalised all the same, or put",
        ),
        (LOGS - LOGS.mean(0), "auto", "; give counts or log-normalised values, not scaled ones, or put counts into"),
        (LOGS - LOGS.mean(0), "lognorm", "; give counts or log-normalised values, not scaled ones"),
        (ESTIMATED, "auto", "   and read that one, or put counts into layers['counts']"),
        (ESTIMATED, "lognorm", "   and read that one, with data.values left out"),
        (ESTIMATED, "counts", "   and read that one"),
    ],
)
def test_what_nothing_proves_is_unclear_with_what_would_do(tmp_path, values, word, end):
    path = written(tmp_path / "given", values)
    said = refusal(path, values=word)
    assert end in said
    if "python" in said:
        assert "if they are estimated counts, make a file of counts with   python" in said
        made = run_line(said, tmp_path / "given")
        np.testing.assert_array_equal(read(made).library.numpy(), np.rint(values).sum(1))
    elif "set data.values to lognorm" in said:
        np.testing.assert_allclose(read(path, values="lognorm").frames.numpy(), values, rtol=1e-5)


def test_values_too_large_for_logarithms_are_refused_wherever_they_are(tmp_path):
    odd = np.log1p(CP10K / LENGTHS)
    many = anndata.concat([screen(csr(odd))] * 20, index_unique="-")
    many.X[1501, 7] = 17.0
    many.write_h5ad(tmp_path / "cells.h5ad")
    assert "X holds values up to 17, and no log-normalised value is above 16.2" in refusal(
        tmp_path / "cells.h5ad", values="lognorm"
    )


# ------------------------------------------------------------------------------------- logs of unscaled counts


@pytest.mark.parametrize("more", ["nothing", "a layer", "raw"])
def test_logs_of_unscaled_counts_are_noted_with_what_scales_them(tmp_path, more, capsys):
    folder = tmp_path / "given"
    folder.mkdir()
    data = screen(csr(np.log1p(counts())))
    if more == "a layer":
        data.layers["counts"] = csr(counts())
    if more == "raw":
        data.raw = screen(csr(counts()))
    path = folder / "cells.h5ad"
    data.write_h5ad(path)
    data = read(path)
    np.testing.assert_allclose(data.frames.numpy(), np.log1p(counts()), rtol=1e-5)
    said = "X holds logarithms of counts that were not scaled to one sum a cell, so that every gene seems to rise in a"
    assert said in notes(data)
    (note,) = [note for note in inspect_file(PerturbseqData(path=str(path))).notes if note.startswith(said)]
    if more == "nothing":
        mended = read(run_line(note, folder))
    else:
        assert not lines_of(note)
        mended = read(path, **dict(study_lines(note)))
    np.testing.assert_allclose(mended.frames.numpy(), LOGS, rtol=1e-5)
    assert cli.main(["data", "inspect", str(path)]) == 0
    assert f"note: {said}" in capsys.readouterr().out


@pytest.mark.parametrize("precision", [np.float32, np.float16, lambda x: np.round(x, 3).astype(np.float32)])
@pytest.mark.parametrize("library", [60, 160, 4000])
def test_logs_of_scaled_counts_are_not_taken_for_unscaled_ones(precision, library):
    raw = counts(library)
    for target in (1e4, 1e6, np.median(raw.sum(1))):
        assert not never_scaled(precision(np.log1p(per_cell(raw, target))).astype(np.float32))
    assert never_scaled(precision(np.log1p(raw)).astype(np.float32))


def test_logs_of_counts_drawn_to_one_sum_are_scaled():
    rng = np.random.default_rng(0)
    raw = np.stack([rng.multinomial(500, rng.dirichlet(np.full(GENES, 0.5))) for _ in range(120)])
    assert not never_scaled(np.log1p(raw).astype(np.float32))


# ---------------------------------------------------------------------------------------- no false recognition


@pytest.mark.parametrize("precision", [np.float32, np.float16, lambda x: np.round(x, 3).astype(np.float32)])
@pytest.mark.parametrize("library", [60, 160, 4000])
def test_no_transformation_is_taken_for_another(precision, library):
    raw = counts(library)
    scaled = per_cell(raw)
    kinds = {
        "natural": (np.log1p(scaled), "lognorm", None),
        "to base 2": (np.log2(1 + scaled), None, "logarithms to base 2"),
        "to base 10": (np.log10(1 + scaled), None, "logarithms to base 10"),
        "square roots": (np.sqrt(scaled), None, "square roots of scaled"),
        "sines": (np.arcsinh(raw / 2), None, "inverse hyperbolic sines of counts times 0.5"),
        "lengths": (np.log1p(scaled / LENGTHS), None, None),
        "estimated": (raw * np.random.default_rng(1).uniform(0.9, 1.1, raw.shape), None, None),
    }
    for name, (values, held, words) in kinds.items():
        sample = precision(values).astype(np.float32)
        done = None if what_holds(sample)[0] is not None else recognise(sample)
        assert what_holds(sample)[0] == held, name
        assert (done is None) == (words is None), name
        assert words is None or done.words.startswith(words), name
