"""The command line's grammar: commands, options and the examples that teach them. Light, so that help is instant."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from harness import __version__

#: Carries a command out; gives the exit status.
Verb = Callable[[argparse.Namespace], int]

_EXAMPLES = """\
examples:
  harness launch studies/quickstart.yaml                     run what is missing of a study
  harness launch studies/quickstart.yaml --dry-run           count trials and estimate their cost
  harness launch studies/perturbseq.yaml --set data.path=cells.h5ad --set train.epochs=50
  harness launch studies/conditions/all.yaml                 run a suite of studies, one after another
  harness launch studies/quickstart.yaml --detach            leave it to itself
  harness watch quickstart                                   see it run, from any shell or node
  harness resume quickstart                                  go on after an interruption
  harness retry quickstart --failed                          run again what failed
  harness ui                                                 browse all studies in MLflow

exit status: 0 success, 1 some trials failed (named), 2 wrong input, 130 interrupted (what ran is kept)
"""


def make_parser(verbs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    """The parser of the whole command line.

    Parameters
    ----------
    verbs
        What carries each command out, by the command's name; chosen as ``verb`` among the parsed options.
    """
    raw = argparse.RawDescriptionHelpFormatter
    from harness.study.folder import default_root

    parser = argparse.ArgumentParser(
        prog="harness",
        description="Find out, by experiment, when a latent causal model recovers the truth.",
        epilog=_EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"harness {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    rooted = argparse.ArgumentParser(add_help=False, parents=[common])
    rooted.add_argument(
        "--root",
        type=Path,
        default=default_root(),
        metavar="DIR",
        help="folder of all studies (default: $HARNESS_ROOT, else ./runs)",
    )
    changed = argparse.ArgumentParser(add_help=False)
    changed.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the study file, e.g. --set train.epochs=5; may be repeated",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(
        name: str,
        does: str,
        *parents: argparse.ArgumentParser,
        more: str = "",
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=does, description=does, parents=parents, epilog=more, formatter_class=raw
        )
        added.set_defaults(verb=verbs[name])
        return added

    launch = add(
        "launch",
        "run what is missing of a study, or of a suite of studies",
        rooted,
        changed,
        more=_LAUNCH_EXAMPLES,
    )
    launch.add_argument("study", type=Path, metavar="STUDY.yaml")
    either = launch.add_mutually_exclusive_group()
    either.add_argument("--dry-run", action="store_true", help="count trials and estimate their cost; run nothing")
    either.add_argument("--detach", action="store_true", help=_DETACH)
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("study", metavar="STUDY", help="a study or suite file, or its name")
    celled = argparse.ArgumentParser(add_help=False)
    celled.add_argument(
        "--cell", metavar="WORDS", help='only cells with all these words in their name, e.g. "sparsity=0.1 cite_vae"'
    )
    does = "go on with the last launch of a study; what failed is left to retry"
    resume = add("resume", does, rooted, named)
    resume.add_argument("--detach", action="store_true", help=_DETACH)
    resume.add_argument("--as-job", action="store_true", help=argparse.SUPPRESS)  # what --detach has a job run
    add("status", "say how a study stands, from its folder alone", rooted, named)
    watch = add("watch", "show a study as it runs, until it is over or Ctrl-C", rooted, named, more=_WATCH_EXAMPLES)
    watch.add_argument("--once", action="store_true", help="show it once and end")
    watch.add_argument("--follow", metavar="TRIAL", help="show the logs of one trial: its id, or its cell and seed")
    add("report", "write the tables and figures of a study, finished or not", rooted, named)
    does = "end the driver of a study, or the jobs that a dead one left, or drop single cells; what ran is kept"
    add("cancel", does, rooted, named, celled, more=_CANCEL_EXAMPLES)
    does = "run again the trials of the last launch that failed or were cancelled, and only those"
    retry = add("retry", does, rooted, named, celled, more=_RETRY_EXAMPLES)
    retry.add_argument("--failed", action="store_true", required=True, help="which trials: those without a result")
    does = "try a cluster profile with one small job, and say what is right, what is wrong, and what would do"
    _add_doctor_options(add("doctor", does, rooted, more=_DOCTOR_EXAMPLES))
    _add_data_commands(add("data", "look into files of cells, and make images", common, more=_DATA_EXAMPLES), common)
    for name, (does, options, examples) in _of_a_trial().items():
        options(add(name, does, rooted, more=examples))
    does = "check the theorem's conditions on a study's data, and on the models fitted to them so far"
    check = add("check", does, rooted, changed)
    check.add_argument("study", type=Path, metavar="STUDY.yaml")
    ui = add("ui", "open MLflow on this machine, until Ctrl-C", rooted)
    ui.add_argument("--port", type=int, default=5000, help="default: 5000")
    schema = add("schema", "print the JSON schema of study files, for editors", common, more=_SCHEMA_EXAMPLES)
    schema.add_argument("--out", type=Path, metavar="FILE", help="write it to a new file instead")
    return parser


def _add_doctor_options(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument("--profile", type=Path, required=True, metavar="slurm/NAME.yaml")
    doctor.add_argument("--tracking", metavar="URI", help="MLflow tracking URI to try (default: a database in --root)")
    does = "seconds the job may wait in the queue, and then again take (default: 300)"
    doctor.add_argument("--patience", type=float, default=300.0, metavar="SECONDS", help=does)


def _of_a_trial() -> dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], str]]:
    """The commands on the model of a finished trial: what each does, its options and its examples."""
    predicts = "predict cells of perturbations, seen or not, with the model of a finished trial"
    means = "write what a finished trial's latents mean: genes, perturbations that act on them, the graph as a drawing"
    exports = "put the model of a finished trial into its run in MLflow, or into a folder, as a pyfunc model"
    return {
        "predict": (predicts, _add_predict_options, _PREDICT_EXAMPLES),
        "programs": (means, _add_programs_options, _PROGRAMS_EXAMPLES),
        "export": (exports, _add_export_options, _EXPORT_EXAMPLES),
    }


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a trial's id or folder, or the id of its run in MLflow")


def _add_programs_options(programs: argparse.ArgumentParser) -> None:
    _add_run(programs)
    programs.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    does = "genes listed of each latent, of those that rise and of those that fall (default: 50)"
    programs.add_argument("--top", type=_at_least(1), default=50, metavar="N", help=does)
    does = "least weight of an edge, in sds of the latents (default: 0.25, as published)"
    programs.add_argument("--edge", type=_positive, default=0.25, metavar="W", help=does)


def _add_export_options(export: argparse.ArgumentParser) -> None:
    _add_run(export)
    export.add_argument("--out", type=Path, metavar="DIR", help="a new folder, instead of the run in MLflow")


def _add_predict_options(predict: argparse.ArgumentParser) -> None:
    _add_run(predict)
    does = "a perturbation, a combination A+B, or control; may be repeated"
    predict.add_argument("--perturb", action="append", required=True, metavar="NAME", help=does)
    does = "cells of each (default: 500)"
    predict.add_argument("--cells", type=_at_least(1), default=500, metavar="N", help=does)
    does = "governs control cells and noise (default: 0)"
    predict.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help=does)
    predict.add_argument("--out", type=Path, required=True, metavar="FILE.h5ad", help="a new file")


def _add_inspect_options(look: argparse.ArgumentParser) -> None:
    look.add_argument("file", type=Path, metavar="FILE.h5ad", help="the file, which is only read")
    look.add_argument("--column", metavar="NAME", help="obs column of the perturbation (default: detected)")
    does = "its label for control cells; may be repeated (default: detected)"
    look.add_argument("--control", action="append", metavar="LABEL", help=does)
    does = "what joins the members of a pair in a label, such as + or |; none: no label is a pair (default: detected)"
    look.add_argument("--pair-mark", default="auto", metavar="MARK", help=does)
    does = "cells a condition must have (default: 20)"
    look.add_argument("--min-cells", type=_at_least(2), default=20, metavar="N", help=does)
    look.add_argument("--drop-small", action="store_true", help="leave out conditions with fewer, by name")
    does = "read only cells with this value in a column of obs, e.g. cell_line=K562; may be repeated"
    look.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help=does)
    does = "obs column within whose values controls are drawn and scores taken, e.g. cell_line (default: none)"
    look.add_argument("--strata", metavar="COLUMN", help=does)
    does = "obs column of times, or none (default: one that perturbations begin in the course of)"
    look.add_argument("--time", metavar="COLUMN", help=does)
    does = "labels name guides, and how: {gene}_{guide} merges LCK_1 and LCK_2; of several the first that fits"
    look.add_argument("--guides", nargs="+", action="extend", metavar="TEMPLATE", help=does)
    does = "how non-targeting guides are named, which all are control: NTg{guide}"
    look.add_argument("--guide-control", nargs="+", action="extend", metavar="TEMPLATE", help=does)
    does = "what the matrix holds (default: seen from its values)"
    look.add_argument("--values", choices=["auto", "counts", "lognorm"], default="auto", help=does)
    does = "matrix to read: a layer, raw or X (default: X, or the layer counts where X is unclear)"
    look.add_argument("--layer", metavar="NAME", help=does)
    does = (
        "kind of features to read, as var['feature_types'] has it, or all; may be repeated (default: gene expression)"
    )
    look.add_argument("--features", action="append", metavar="KIND", help=does)
    look.add_argument("--gene-names", metavar="NAME", help="var column of gene names (default: the index of var)")


def _add_data_commands(data: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """The commands of ``harness data``, each chosen as ``data_verb``."""
    raw = argparse.RawDescriptionHelpFormatter

    def has_none(parser: argparse.ArgumentParser) -> None:
        parser.set_defaults(data_verb=None, print_help=parser.print_help)

    def add(
        commands: argparse._SubParsersAction[argparse.ArgumentParser],  # argparse has no public name for it
        name: str,
        does: str,
        more: str = "",
    ) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=does, description=does, parents=[common], epilog=more, formatter_class=raw
        )

    has_none(data)
    commands = data.add_subparsers(title="commands", metavar="COMMAND")
    look = add(commands, "inspect", "say what a file of perturbed cells holds, and what to mend", _INSPECT_EXAMPLES)
    look.set_defaults(data_verb="inspect")
    _add_inspect_options(look)
    make = add(commands, "make", "write images of our renderer in the layout of a published data set", _MAKE_EXAMPLES)
    has_none(make)
    layouts = make.add_subparsers(title="layouts", metavar="LAYOUT")
    static = add(layouts, "causal3dident", "single images in the layout of Causal3DIdent", _MAKE_STATIC)
    static.set_defaults(data_verb="make causal3dident")
    static.add_argument(
        "--images", type=_at_least(2), default=5000, metavar="N", help="training images of each class (default: 5000)"
    )
    does = "test images of each class (default: 500)"
    static.add_argument("--test-images", type=_at_least(1), default=500, metavar="N", help=does)
    temporal = add(layouts, "temporal_causal3dident", "sequences in the layout of CITRIS", _MAKE_TEMPORAL)
    temporal.set_defaults(data_verb="make temporal_causal3dident")
    does = "images of the training sequence (default: 10000)"
    temporal.add_argument("--images", type=_at_least(2), default=10_000, metavar="N", help=does)
    does = "images of val_indep and of test_indep (default: 1000)"
    temporal.add_argument("--test-images", type=_at_least(2), default=1000, metavar="N", help=does)
    does = "triplets of val_triplets and of test_triplets, three images each (default: as --test-images)"
    temporal.add_argument("--triplets", type=_at_least(2), metavar="N", help=does)
    does = "position and rotation are each one variable, as in the published experiments"
    temporal.add_argument("--coarse", action="store_true", help=does)
    does = (
        "columns of raw_latents; the published loader wants 10, and takes the others from shape_latents (default: 12)"
    )
    temporal.add_argument("--raw-columns", type=int, choices=(10, 12), default=12, help=does)
    for layout in (static, temporal):
        layout.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
        does = "0 teapot, 1 hare, 2 dragon, 3 cow, 4 armadillo, 5 horse, 6 head (default: all)"
        layout.add_argument(
            "--classes", type=int, nargs="+", choices=range(7), default=list(range(7)), metavar="C", help=does
        )
        layout.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="default: 0")
        _add_drawing_options(layout, size=64, samples=16)
    sheet = add(commands, "sheet", "draw what each latent does to each class, as one picture", _SHEET_EXAMPLES)
    sheet.set_defaults(data_verb="sheet")
    sheet.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="a new file")
    _add_drawing_options(sheet, size=80, samples=64)


def _add_drawing_options(parser: argparse.ArgumentParser, *, size: int, samples: int) -> None:
    does = f"pixels a side (default: {size})"
    parser.add_argument("--size", type=_at_least(8, 1024), default=size, metavar="N", help=does)
    does = f"light samples a pixel (default: {samples})"
    parser.add_argument("--samples", type=_at_least(1), default=samples, metavar="N", help=does)
    does = "folder of .obj, .off or .ply files to draw instead of our shapes"
    parser.add_argument("--meshes", type=Path, metavar="DIR", help=does)
    does = "axis of the files that points up, or CLASS=AXIS where they differ (default: z); -y is given as --mesh-up=-y"
    parser.add_argument("--mesh-up", nargs="+", default=[], metavar="AXIS", help=does)


def _at_least(low: int, high: int | None = None) -> Callable[[str], int]:
    """A whole number in a range, for argparse."""

    def number(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            wanted = f"at least {low:,}" if high is None else f"between {low:,} and {high:,}"
            raise argparse.ArgumentTypeError(f"{value} is not {wanted}")
        return value

    return number


def _positive(text: str) -> float:
    """A number above zero, for argparse."""
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


_DETACH = "come back at once: a SLURM job of its own drives the study, or a process in the background"
_LAUNCH_EXAMPLES = """\
examples:
  harness launch studies/simulation.yaml --dry-run
  harness launch studies/simulation.yaml --set seeds=5 --set 'grid.sparsity=[0, 0.01, 0.1]'
  harness launch studies/causal3dident.yaml --set compute.cluster=slurm --set compute.profile=slurm/gpu.yaml
  harness launch studies/causal3dident.yaml --set compute.cluster=slurm --set compute.profile=slurm/gpu.yaml --detach
"""
_WATCH_EXAMPLES = """\
examples:
  harness watch simulation                                   a table, drawn again every two seconds
  harness watch simulation --once                            one look
  harness watch simulation > watched.txt                     plain lines, where there is no terminal
  harness watch simulation --follow 3f09                     epochs and output of the trial whose id begins so
  harness watch simulation --follow "perturbed_vae · sparsity=0.1 · seed 2"
"""
_CANCEL_EXAMPLES = """\
examples:
  harness cancel simulation                                  end it; harness resume goes on
  harness cancel simulation --cell sparsity=0.1              drop the cells with this setting, the rest goes on
  harness cancel simulation --cell "cite_vae latent_dim=8"   drop those that have both words
"""
_RETRY_EXAMPLES = """\
examples:
  harness retry simulation --failed                          all that failed or were cancelled
  harness retry simulation --failed --cell sparsity=0.1      those of the cells with this setting
"""
_DOCTOR_EXAMPLES = """\
examples:
  harness doctor --profile slurm/gpu.yaml
  harness doctor --profile slurm/gpu.yaml --root /shared/runs --tracking http://127.0.0.1:5000 --patience 1800

exit status: 0 all is right, 1 something is wrong, 2 wrong input
"""
_DATA_EXAMPLES = """\
examples:
  harness data inspect cells.h5ad                            what a file of cells holds, and what to mend
  harness data make causal3dident --out images               a release of our own, for any code that reads Causal3DIdent
  harness data make temporal_causal3dident --out sequences   the same for Temporal Causal3DIdent
  harness data sheet --out sheet.png                         what each latent does to each class
"""
_MAKE_EXAMPLES = """\
examples:
  harness data make causal3dident --out images --images 1000 --test-images 100 --classes 0 1
  harness data make temporal_causal3dident --out sequences --images 5000 --classes 0

an interrupted command, given again, goes on where it stopped
"""
_MAKE_STATIC = """\
writes DIR/{trainset,testset}/raw_latents_C.npy and images_C/I.png; latents follow the released graph

examples:
  harness data make causal3dident --out images
  harness data make causal3dident --out images --images 1000 --test-images 100 --classes 0 1 --size 128
  harness data make causal3dident --out images --meshes shapes --mesh-up y
  harness data make causal3dident --out images --meshes shapes --mesh-up cow=y horse=y
  harness launch studies/causal3dident.yaml --set data.path=images
"""
_MAKE_TEMPORAL = """\
writes DIR/{train,val_indep,test_indep,val_triplets,test_triplets}.npz

examples:
  harness data make temporal_causal3dident --out sequences
  harness data make temporal_causal3dident --out sequences --images 5000 --classes 0    one shape, which stays
  harness data make temporal_causal3dident --out sequences --coarse --raw-columns 10    for the published code
"""
_TRIAL_ID = """\
A trial's id is the name of its folder in ROOT/STUDY/trials, and stands beside its cell and seed in the report's table
ROOT/STUDY/report/trials.csv; of 3f09a1c2... the beginning, 3f09, will do.
"""
_PREDICT_EXAMPLES = f"""\
examples:
  harness predict 3f09 --perturb KLF1+MAP2K6 --out predicted.h5ad
  harness predict 3f09 --perturb KLF1+MAP2K6 --perturb SET --cells 1000 --out predicted.h5ad

{_TRIAL_ID}"""
_INSPECT_EXAMPLES = """\
examples:
  harness data inspect cells.h5ad
  harness data inspect cells.h5ad --column guide_target --control NTC
  harness data inspect cells.h5ad --guides '{gene}_{guide}' --guide-control 'NTg{guide}'

exit status: 0 if a study can use the file, 2 if not
"""
_SHEET_EXAMPLES = """\
examples:
  harness data sheet --out sheet.png
  harness data sheet --out sheet.png --meshes shapes --mesh-up y --size 120
"""
_PROGRAMS_EXAMPLES = f"""\
examples:
  harness programs 3f09 --out programs
  harness programs 3f09 --out programs --top 20 --edge 0.5

The folder then holds, for pandas or R: top_genes.csv, loadings_control.csv, loadings_perturbed.csv, effects.csv and
graph.csv; graph.png and graph.svg, the drawing; and about.json, which says what is in them and in what units.

{_TRIAL_ID}"""
_EXPORT_EXAMPLES = f"""\
examples:
  harness export 3f09                                        into the run, for runs:/RUN_ID/model
  harness export 3f09 --out model                            into a folder, to be taken elsewhere

from Python, where this package is installed (the data file is not needed):
  model = mlflow.pyfunc.load_model("runs:/RUN_ID/model")
  model.predict(pandas.DataFrame({{"perturbation": ["KLF1+MAP2K6", "SET"], "cells": [500, 500]}}), params={{"seed": 0}})

A launch exports the best trial of each model by itself.
{_TRIAL_ID}"""
_SCHEMA_EXAMPLES = """\
example: harness schema --out study.schema.json, and as first line of a study file
  # yaml-language-server: $schema=study.schema.json
"""
