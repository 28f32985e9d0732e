"""Structured pruning: finds the removable units of any JAX function and removes them exactly."""

from lth_jax.registry import import_modules
from lth_jax.structure.allocation import Problem, greedy, milp
from lth_jax.structure.budget_scope import by_budget
from lth_jax.structure.coarsen import random_units, refill
from lth_jax.structure.compact import compact, take
from lth_jax.structure.constraints import major, minor
from lth_jax.structure.costs import costs
from lth_jax.structure.counts import across_groups, by_group, kept_weights, unit_counts
from lth_jax.structure.depth import blocks, remove_blocks
from lth_jax.structure.explain import Equation, Member, Pinned, Tied, Why
from lth_jax.structure.fit import Share, Spent, fit
from lth_jax.structure.groups import Group, Slot, Structure, find_groups
from lth_jax.structure.latency import Latency, measure_latency
from lth_jax.structure.live import effective_density, live_mask, live_units
from lth_jax.structure.modules import check_fits, check_same, rebuild
from lth_jax.structure.nnx_modules import refit
from lth_jax.structure.regroup import regroup, shuffle_blocks
from lth_jax.structure.rescale import Fan, fan_average, fan_in, fan_of, rescale
from lth_jax.structure.rules import register
from lth_jax.structure.scorers import norm_scales
from lth_jax.structure.symmetry import align, match, match_across, permute, transplant
from lth_jax.structure.units import expand, granularity, members, prunable, score_units, units_of

import_modules(__name__, __path__)  # every module registers its rules

__all__ = [
    "Equation",
    "Fan",
    "Group",
    "Latency",
    "Member",
    "Pinned",
    "Problem",
    "Share",
    "Slot",
    "Spent",
    "Structure",
    "Tied",
    "Why",
    "across_groups",
    "align",
    "blocks",
    "by_budget",
    "by_group",
    "check_fits",
    "check_same",
    "compact",
    "costs",
    "effective_density",
    "expand",
    "fan_average",
    "fan_in",
    "fan_of",
    "find_groups",
    "fit",
    "granularity",
    "greedy",
    "kept_weights",
    "live_mask",
    "live_units",
    "major",
    "match",
    "match_across",
    "measure_latency",
    "members",
    "milp",
    "minor",
    "norm_scales",
    "permute",
    "prunable",
    "random_units",
    "rebuild",
    "refill",
    "refit",
    "register",
    "regroup",
    "remove_blocks",
    "rescale",
    "score_units",
    "shuffle_blocks",
    "take",
    "transplant",
    "unit_counts",
    "units_of",
]
