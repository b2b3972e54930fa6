"""The verbs of ``harness data``: looks into files of cells, and images that our renderer makes."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.words import flow

if TYPE_CHECKING:
    from harness.data_spec import Causal3DIdentData
    from harness.reading_spec import GuideRule

#: Fewest images of a training sequence that the temporal study can be made small enough for, and with doubles.
_FEWEST_OF_SEQUENCE, _FEWEST_FOR_DOUBLES = 200, 3000


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
    from harness.data.perturbseq.inspection import inspect_file
    from harness.data.progress import ProgressLine
    from harness.data_spec import PerturbseqData

    if not options.pair_mark:
        raise UserError("--pair-mark is empty; give the mark that joins two names in a label, or none, or leave it out")
    stated = {
        "path": str(options.file),
        "column": options.column,
        "control": tuple(options.control or ()),
        "pair_mark": options.pair_mark,
        "min_cells": {"least": options.min_cells, "drop": options.drop_small},
        "guides": _guide_rule(options),
        "values": options.values,
        "layer": options.layer,
        "features": tuple(options.features or ()),
        "gene_names": options.gene_names,
        "where": _where(options.where),
        "strata": options.strata,
        "time": options.time,
    }
    spec = PerturbseqData.model_validate({key: value for key, value in stated.items() if value not in (None, ())})
    found = inspect_file(spec, ProgressLine("reading cells"))
    print("\n".join(found.lines()))
    if found.problems:
        return 2
    fields, dumped = type(spec).model_fields, spec.model_dump(mode="json")
    given = {key: dumped[key] for key in stated if getattr(spec, key) != fields[key].default}
    if "min_cells" in given and not options.drop_small:
        given["min_cells"] = options.min_cells
    _say_how_to_use("perturbseq", [f"data.{key}={_flow(value)}" for key, value in given.items()])
    return 0


def _where(asked: Sequence[str]) -> dict[str, tuple[str, ...]] | None:
    """Values to read by column; None where none are asked for."""
    found: dict[str, tuple[str, ...]] = {}
    for one in asked:
        column, equals, value = one.partition("=")
        if not equals:
            raise UserError(f"--where {one}: names no value; write COLUMN=VALUE, such as cell_line=K562")
        found[column] = (*found.get(column, ()), value)
    return found or None


def _flow(value: object) -> str:
    """A value as YAML on one line, which `--set` takes."""
    import json

    words = [value] if isinstance(value, str) else value
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return flow(words)
    return json.dumps(value, ensure_ascii=False)


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
    if options.images < _FEWEST_OF_SEQUENCE:
        print(
            f"made {options.out}, too short for studies/temporal_causal3dident.yaml, which needs {_FEWEST_OF_SEQUENCE}"
        )
        return
    _say_it_is_made(options, *_fitting_study(options.images, coarse=options.coarse))


def _fitting_study(images: int, *, coarse: bool) -> list[str]:
    """What makes the temporal study fit a sequence of ours, in which all nine latents move and none is held.

    Transitions with at most one intervention, some seven in ten, train, validate and test; the held-out doubles need
    those with two, of which each pair has a few in a thousand.
    """
    from harness.process_spec import MOVING

    sizes = {"cells": max(50, images // 3), "test_cells": max(50, images // 10), "doubles": 0}
    if images >= _FEWEST_FOR_DOUBLES:
        sizes |= {"doubles": 4, "double_cells": 10}
    return [
        *(["data.process.grouped=true"] if coarse else []),
        "data.invariant=[]",
        *(f"models.{number}.responsive_dim={len(MOVING)}" for number in (0, 1)),
        "grid.latent_dim=[10, 12, 16]",
        *(f"data.{name}={size}" for name, size in sizes.items()),
    ]


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
