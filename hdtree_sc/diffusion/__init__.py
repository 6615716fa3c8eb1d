"""One diffusion core for every model: schedule, objective and samplers; pure torch, no trees and no cells."""

from hdtree_sc.diffusion._objective import Target, diffusion_loss
from hdtree_sc.diffusion._sampler import Method, integrate
from hdtree_sc.diffusion._schedule import CLEAN, NoiseSchedule, alpha_sigma

__all__ = ["CLEAN", "Method", "NoiseSchedule", "Target", "alpha_sigma", "diffusion_loss", "integrate"]
