"""Training plans, runners and checkpoints."""

from hdtree_sc.train._checkpoint import ResumeCheckpoint
from hdtree_sc.train._diffusion_plan import DiffusionPlan
from hdtree_sc.train._plan import GrowingPlan, OneCyclePlan, TreeTrainingPlan
from hdtree_sc.train._runner import TreeTrainRunner

__all__ = ["DiffusionPlan", "GrowingPlan", "OneCyclePlan", "ResumeCheckpoint", "TreeTrainRunner", "TreeTrainingPlan"]
