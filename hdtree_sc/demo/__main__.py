"""Entry point of ``python -m hdtree_sc.demo``."""

from __future__ import annotations

import os
import sys

from hdtree_sc.demo._main import main

if __name__ == "__main__":
    # Read when torch is loaded, which is later: its threads would else spin while they wait for one another, and where
    # another program wants a core too, that makes training many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
