"""The verbs of ``harness data``: looks into files of cells, and images that our renderer makes."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.data_spec import Causal3DIdentData
    from harness.reading_spec import GuideRule


def data(options: argparse.Namespace) -> int:
    """Carry out the command chosen under ``harness data``; gives the exit status."""
    if options.data_verb is None:
        options.print_help()
        return 2
    verbs: dict[str, Callable[[argparse.Namespace], int | None]] = {
        "inspect": _inspect,
        "make causal3dident": _make_static,
        "make temporal_causal3dident": _make_temporal,
        "sheet": _sheet,
    }
    return verbs[options.data_verb](options) or 0


def _inspect(options: argparse.Namespace) -> int:
    from harness.data.perturbseq.guides import as_written
    from harness.data.perturbseq.inspection import inspect_file
    from harness.data.progress import ProgressLine
    from harness.data_spec import PerturbseqData

    rule = _guide_rule(options)
    stated = {
        "path": str(options.file),
        "column": options.column,
        "control": tuple(options.control or ()),
        "min_cells": options.min_cells,
        "guides": rule,
        "values": options.values,
        "layer": options.layer,
        "features": tuple(options.features or ()),
        "gene_names": options.gene_names,
    }
    spec = PerturbseqData.model_validate({key: value for key, value in stated.items() if value not in (None, ())})
    found = inspect_file(spec, ProgressLine("reading cells"))
    print("\n".join(found.lines()))
    if found.problems:
        return 2
    given: dict[str, object] = {"path": spec.path, "column": spec.column}
    given["control"] = _listed(spec.control)
    given["min_cells"] = None if options.min_cells == 20 else options.min_cells
    given["guides"] = None if rule is None else as_written(rule).removeprefix("guides: ")
    given["values"] = None if options.values == "auto" else options.values
    given |= {"layer": options.layer, "features": _listed(spec.features), "gene_names": options.gene_names}
    _say_how_to_use("perturbseq", [f"data.{key}={value}" for key, value in given.items() if value is not None])
    return 0


def _listed(words: Sequence[str]) -> str | None:
    """Words as YAML on one line; None where there are none."""
    import json

    return json.dumps(list(words), ensure_ascii=False) if len(words) > 1 else next(iter(words), None)


def _guide_rule(options: argparse.Namespace) -> GuideRule | None:
    """The rule that options give, as a study file would; none where they give none."""
    from pydantic import ValidationError

    from harness.reading_spec import GuideRule

    given = {"pattern": options.guides, "control": options.guide_control}
    stated = {key: tuple(templates) for key, templates in given.items() if templates}
    try:
        return GuideRule.model_validate(stated) if stated else None
    except ValidationError as error:
        fault = error.errors()[0]
        option = "--guides" if fault["loc"][0] == "pattern" else "--guide-control"
        raise UserError(f"{option}: {fault['msg'].removeprefix('Value error, ')}") from error


def _make_static(options: argparse.Namespace) -> None:
    from harness.data.causal3dident.static_writer import write_static
    from harness.data.progress import ProgressLine

    counts = {"trainset": options.images, "testset": options.test_images}
    write_static(options.out, _drawn(options), counts, ProgressLine("rendering images"))
    _say_it_is_made(options)


def _make_temporal(options: argparse.Namespace) -> None:
    from harness.data.causal3dident.temporal_writer import Sizes, write_temporal
    from harness.data.progress import ProgressLine

    write_temporal(
        options.out,
        _drawn(options),
        Sizes(options.images, options.test_images, options.triplets or options.test_images),
        coarse=options.coarse,
        raw_columns=options.raw_columns,
        progress=ProgressLine("rendering images"),
    )
    _say_it_is_made(options, *(["data.process.grouped=true"] if options.coarse else []))


def _say_it_is_made(options: argparse.Namespace, *more: str) -> None:
    classes = ", ".join(str(class_id) for class_id in sorted(set(options.classes)))
    print(f"made {options.out}")
    changes = [f"data.path={options.out}", f"data.classes=[{classes}]", *more]
    _say_how_to_use(options.data_verb.split()[-1], changes)


def _say_how_to_use(study: str, changes: Sequence[str]) -> None:
    said = " ".join(f"--set {shlex.quote(change)}" for change in changes)
    print(f"use it: harness launch studies/{study}.yaml {said}")


def _sheet(options: argparse.Namespace) -> None:
    from harness.data.causal3dident.contact_sheet import contact_sheet
    from harness.data.progress import ProgressLine

    contact_sheet(
        options.out,
        meshes=options.meshes,
        mesh_up=_mesh_up(options),
        image_size=options.size,
        samples=options.samples,
        progress=ProgressLine("rendering images"),
    )
    print(f"wrote {options.out}")


def _drawn(options: argparse.Namespace) -> Causal3DIdentData:
    """How images are drawn, as a study file would say it."""
    from harness.data_spec import Causal3DIdentData

    return Causal3DIdentData.model_validate(
        {
            "classes": tuple(sorted(set(options.classes))),
            "image_size": options.size,
            "samples": options.samples,
            "seed": options.seed,
            "meshes": None if options.meshes is None else str(options.meshes),
            "mesh_up": _mesh_up(options),
        }
    )


def _mesh_up(options: argparse.Namespace) -> str | dict[str, str]:
    """The axis that points up in all meshes, or in those of the classes named.

    Raises
    ------
    UserError
        If a word names no axis or class, or there are no meshes to turn.
    """
    from typing import get_args

    from harness.data_spec import Axis, ObjectClass

    words: list[str] = options.mesh_up
    if not words:
        return "z"
    if options.meshes is None:
        raise UserError("--mesh-up turns the meshes of a folder; name the folder with --meshes, or leave --mesh-up out")
    if len(words) == 1 and words[0] in get_args(Axis):
        return words[0]
    found: dict[str, str] = {}
    for word in words:
        name, _, axis = word.partition("=")
        if name not in get_args(ObjectClass) or axis not in get_args(Axis):
            raise UserError(
                f"--mesh-up {word}: is no axis ({', '.join(get_args(Axis))}) and no CLASS=AXIS; classes are "
                f"{', '.join(get_args(ObjectClass))}"
            )
        found[name] = axis
    return found
