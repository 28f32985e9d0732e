"""One-shot pruning with weight updates, for any function of matrix products."""

from lth_jax.reconstruct.keep import Pattern
from lth_jax.reconstruct.layers import Layer, Layers, find_layers
from lth_jax.reconstruct.levels import Reconstruction
from lth_jax.reconstruct.methods import (
    LayerMethod,
    alps,
    layer_error,
    magnitude,
    obs,
    refit,
    sparse_gpt,
    wanda,
)
from lth_jax.reconstruct.products import RULES, Product
from lth_jax.reconstruct.prune import prune
from lth_jax.reconstruct.refine import refine
from lth_jax.reconstruct.report import PrunedLayer, PruneReport, RefinedBlock, RefineReport
from lth_jax.reconstruct.stream import grams
from lth_jax.reconstruct.wood_fisher import wood_fisher

__all__ = [
    "RULES",
    "Layer",
    "LayerMethod",
    "Layers",
    "Pattern",
    "Product",
    "PruneReport",
    "PrunedLayer",
    "Reconstruction",
    "RefineReport",
    "RefinedBlock",
    "alps",
    "find_layers",
    "grams",
    "layer_error",
    "magnitude",
    "obs",
    "prune",
    "refine",
    "refit",
    "sparse_gpt",
    "wanda",
    "wood_fisher",
]
