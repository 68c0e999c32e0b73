"""`vsphere-simulator` and `python -m vsphere_simulator`: Ctrl-C is one line also while modules load."""

from __future__ import annotations

import importlib
import sys


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        program = importlib.import_module("vsphere_simulator.cli")
    except KeyboardInterrupt:
        print("vsphere-simulator: interrupted", file=sys.stderr)
        return 130
    return int(program.main())


if __name__ == "__main__":
    sys.exit(main())
