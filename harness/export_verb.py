"""The verb ``harness export``."""

from __future__ import annotations

import argparse


def export(options: argparse.Namespace) -> int:
    """Put the model of a finished trial into MLflow, or into a folder; gives the exit status."""
    from harness.api import export_model

    print(f"wrote {export_model(options.run, options.out, root=options.root)}")
    return 0
