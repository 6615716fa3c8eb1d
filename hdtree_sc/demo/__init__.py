"""The program behind ``make demo``: ``python -m hdtree_sc.demo``."""

from hdtree_sc.demo._main import main

__all__ = ["main"]
