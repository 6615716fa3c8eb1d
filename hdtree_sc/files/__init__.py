"""Files of models: plain values, checksums, and writing that leaves a whole file at any time."""

from hdtree_sc.files._atomic_save import STAGED, full_disk_named, locked, staged
from hdtree_sc.files._file_format import PLAIN_PICKLE, SavedModel, damage_named, digest_of, read_model, seal

__all__ = [
    "PLAIN_PICKLE",
    "STAGED",
    "SavedModel",
    "damage_named",
    "digest_of",
    "full_disk_named",
    "locked",
    "read_model",
    "seal",
    "staged",
]
