"""`python -m msearchd` and the console script `msearchd`."""

from __future__ import annotations

import sys

from msearchd.cli.daemon import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
