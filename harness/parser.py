"""The command line's grammar: commands, options and the examples that teach them. Light, so that help is instant."""

from __future__ import annotations

import argparse
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
  harness resume quickstart                                  go on after an interruption
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
    launch.add_argument("--dry-run", action="store_true", help="count trials and estimate their cost; run nothing")
    for name, does in (
        ("resume", "go on with the last launch of a study"),
        ("status", "say how a study stands, from its folder alone"),
        ("report", "write the tables and figures of a study, finished or not"),
        ("cancel", "end the driver of a study, or the jobs that a dead one left; what ran is kept"),
    ):
        add(name, does, rooted).add_argument("study", metavar="STUDY", help="a study or suite file, or its name")
    does = "check the theorem's conditions on a study's data, and on the models fitted to them so far"
    check = add("check", does, rooted, changed)
    check.add_argument("study", type=Path, metavar="STUDY.yaml")
    ui = add("ui", "open MLflow on this machine, until Ctrl-C", rooted)
    ui.add_argument("--port", type=int, default=5000, help="default: 5000")
    schema = add("schema", "print the JSON schema of study files, for editors", common, more=_SCHEMA_EXAMPLES)
    schema.add_argument("--out", type=Path, metavar="FILE", help="write it to a file instead")
    return parser


_LAUNCH_EXAMPLES = """\
examples:
  harness launch studies/simulation.yaml --dry-run
  harness launch studies/simulation.yaml --set seeds=5 --set 'grid.sparsity=[0, 0.01, 0.1]'
  harness launch studies/causal3dident.yaml --set compute.cluster=slurm --set compute.profile=slurm/gpu.yaml
"""
_SCHEMA_EXAMPLES = """\
example: harness schema --out study.schema.json, and as first line of a study file
  # yaml-language-server: $schema=study.schema.json
"""
