"""Numerics on graphs of cells and of groups of them, without AnnData."""
