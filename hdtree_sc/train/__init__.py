"""Training plans, runners and checkpoints."""

from hdtree_sc.train._autoencoder import train_autoencoder
from hdtree_sc.train._checkpoint import ResumeCheckpoint, written_or_warned
from hdtree_sc.train._diffusion_plan import DiffusionPlan
from hdtree_sc.train._diffusion_run import run_diffusion
from hdtree_sc.train._facts import check_training, facts_of, resumed_run
from hdtree_sc.train._pairs import train_on_pairs
from hdtree_sc.train._plan import GrowingPlan, OneCyclePlan, TreeTrainingPlan
from hdtree_sc.train._resume import read_run
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
    "check_training",
    "facts_of",
    "read_run",
    "resumed_run",
    "run_diffusion",
    "train_autoencoder",
    "train_on_pairs",
    "with_own_settings",
    "written_or_warned",
]
