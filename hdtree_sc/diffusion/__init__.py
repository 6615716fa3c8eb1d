"""One diffusion core for every model: schedule, objective and samplers; pure torch, no trees and no cells."""

from hdtree_sc.diffusion._bound import variational_bound
from hdtree_sc.diffusion._objective import Target, data_and_noise, diffusion_loss
from hdtree_sc.diffusion._sampler import METHODS, Method, integrate
from hdtree_sc.diffusion._schedule import CLEAN, NoiseSchedule, alpha_sigma

__all__ = [
    "CLEAN",
    "METHODS",
    "Method",
    "NoiseSchedule",
    "Target",
    "alpha_sigma",
    "data_and_noise",
    "diffusion_loss",
    "integrate",
    "variational_bound",
]
