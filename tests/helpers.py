"""What tests call; fixtures are in conftest.py."""

import os
from pathlib import Path

DATA = Path(os.environ.get("HDTREE_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Real data beside the repository; tests that need it skip without it."""

QUIET = {"enable_progress_bar": False}
"""Trainer arguments of every test."""
