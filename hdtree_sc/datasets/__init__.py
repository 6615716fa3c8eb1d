"""Data to learn and to test with: real cells that come with the package, simulated cells with a known tree."""

from __future__ import annotations

from hdtree_sc.datasets._branching import branching
from hdtree_sc.datasets._celegans import celegans

__all__ = ["branching", "celegans"]
