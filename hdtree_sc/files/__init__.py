"""Files of models: plain values, checksums, and writing that leaves a whole file at any time."""

from hdtree_sc.files._atomic_save import full_disk_named, locked, staged
from hdtree_sc.files._cells_beside import CELLS_FILE, MODEL_FILE, backing_kept, cells_beside
from hdtree_sc.files._file_format import PLAIN_PICKLE, read_model, seal

__all__ = [
    "CELLS_FILE",
    "MODEL_FILE",
    "PLAIN_PICKLE",
    "backing_kept",
    "cells_beside",
    "full_disk_named",
    "locked",
    "read_model",
    "seal",
    "staged",
]
