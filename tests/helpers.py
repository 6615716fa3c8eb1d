"""What tests call; fixtures are in conftest.py."""

QUIET = {"enable_progress_bar": False}
"""Trainer arguments of every test."""
