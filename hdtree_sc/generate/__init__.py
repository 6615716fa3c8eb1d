"""The generator of a trained model: places, fit, sampling, transport, hybrids and extension; arrays in and out."""

from hdtree_sc.generate._arrays import DecoderInputs, GeneratedArrays, seeded
from hdtree_sc.generate._cells import CellWriter
from hdtree_sc.generate._class_generator import ClassGenerator
from hdtree_sc.generate._class_tree import CRITERIA, ClassTreeFit, Criterion
from hdtree_sc.generate._extension import ClassExtension
from hdtree_sc.generate._fit import (
    MIN_HEIGHT,
    ClassFit,
    GeneratorFit,
    JointFit,
    LatentTreeFit,
    LearnedCells,
    conditions_of,
)
from hdtree_sc.generate._from_root import LatentTreeGenerator
from hdtree_sc.generate._generator import SAMPLING_BATCH, EncodedCells, Generator, Route, Sampling
from hdtree_sc.generate._places import ClassPlaces, LatentTreePlaces, Place, Places

__all__ = [
    "CRITERIA",
    "CellWriter",
    "ClassExtension",
    "ClassFit",
    "ClassGenerator",
    "ClassPlaces",
    "ClassTreeFit",
    "Criterion",
    "DecoderInputs",
    "EncodedCells",
    "GeneratedArrays",
    "Generator",
    "GeneratorFit",
    "MIN_HEIGHT",
    "JointFit",
    "LatentTreeFit",
    "LatentTreeGenerator",
    "LatentTreePlaces",
    "LearnedCells",
    "Place",
    "Places",
    "Route",
    "SAMPLING_BATCH",
    "Sampling",
    "seeded",
    "conditions_of",
]
