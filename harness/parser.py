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
    doctor = add("doctor", does, rooted, more=_DOCTOR_EXAMPLES)
    _add_doctor_options(doctor)
    does = "check the theorem's conditions on a study's data, and on the models fitted to them so far"
    check = add("check", does, rooted, changed)
    check.add_argument("study", type=Path, metavar="STUDY.yaml")
    ui = add("ui", "open MLflow on this machine, until Ctrl-C", rooted)
    ui.add_argument("--port", type=int, default=5000, help="default: 5000")
    schema = add("schema", "print the JSON schema of study files, for editors", common, more=_SCHEMA_EXAMPLES)
    schema.add_argument("--out", type=Path, metavar="FILE", help="write it to a file instead")
    return parser


def _add_doctor_options(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument("--profile", type=Path, required=True, metavar="slurm/NAME.yaml")
    doctor.add_argument("--tracking", metavar="URI", help="MLflow tracking URI to try (default: a database in --root)")
    does = "seconds the job may wait in the queue, and then again take (default: 300)"
    doctor.add_argument("--patience", type=float, default=300.0, metavar="SECONDS", help=does)


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
_SCHEMA_EXAMPLES = """\
example: harness schema --out study.schema.json, and as first line of a study file
  # yaml-language-server: $schema=study.schema.json
"""
