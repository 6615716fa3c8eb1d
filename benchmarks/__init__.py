"""Measurements of hdtree-sc and its peers; each command is run as ``python -m benchmarks.<name> --data DIR``."""
