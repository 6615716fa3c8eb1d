"""Entry point of ``python -m hdtree_sc.demo``."""

from __future__ import annotations

import sys

from hdtree_sc.demo._main import main

if __name__ == "__main__":
    sys.exit(main())
