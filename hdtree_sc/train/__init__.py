"""Training plans, runners and checkpoints."""

from hdtree_sc.train._checkpoint import ResumeCheckpoint, written_or_warned
from hdtree_sc.train._diffusion_plan import DiffusionPlan
from hdtree_sc.train._plan import GrowingPlan, OneCyclePlan, TreeTrainingPlan
from hdtree_sc.train._resume import read_run, refuse_other_run, release_of
from hdtree_sc.train._runner import TreeTrainRunner
from hdtree_sc.train._settings import with_own_settings
from hdtree_sc.train._trainer import TreeTrainer

__all__ = [
    "DiffusionPlan",
    "GrowingPlan",
    "OneCyclePlan",
    "ResumeCheckpoint",
    "TreeTrainRunner",
    "TreeTrainer",
    "TreeTrainingPlan",
    "read_run",
    "refuse_other_run",
    "release_of",
    "with_own_settings",
    "written_or_warned",
]
