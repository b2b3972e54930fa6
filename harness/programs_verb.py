"""The verb ``harness programs``."""

from __future__ import annotations

import argparse


def programs(options: argparse.Namespace) -> int:
    """Write the latent programs of a finished trial into a new folder; gives the exit status."""
    from harness.api import write_programs

    files = write_programs(options.run, options.out, top=options.top, threshold=options.edge, root=options.root)
    print(f"wrote {options.out}: {', '.join(path.name for path in files)}")
    return 0
