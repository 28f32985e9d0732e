"""The laboratory for the Lottery Ticket Hypothesis in JAX and Flax.

Every public name is imported when it is first used, so that `import lth_jax` and the command `lth`
start at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lth_jax import (
        analysis,
        coding,
        data,
        distributed,
        exchange,
        landscape,
        layouts,
        lottery,
        measures,
        models,
        population,
        reconstruct,
        report,
        structure,
        sweeps,
    )
    from lth_jax.coding import load as load_ticket
    from lth_jax.coding import save as save_ticket
    from lth_jax.lottery import load_atlas, load_run, load_sweep
    from lth_jax.pruning import criteria, granularity, methods, schedules, supermask, transforms
    from lth_jax.pruning.criteria import magnitude, random
    from lth_jax.pruning.iterative import iterate
    from lth_jax.pruning.masks import (
        apply_mask,
        collapsed,
        count_kept,
        density,
        density_per_leaf,
        ones_like,
        prunable_leaves,
        shuffle,
        shuffle_globally,
    )
    from lth_jax.pruning.prune import prune
    from lth_jax.pruning.scopes import erk, globally, layerwise, per_leaf
    from lth_jax.pruning.summary import summary
    from lth_jax.pruning.transforms import (
        Events,
        effective_params,
        gradual,
        mask_slots,
        mask_updates,
        masked,
        rigl,
        sparse_evolution,
        static_sparse,
        straight_through,
    )

    __version__: str

_PACKAGES = (
    "analysis coding data distributed exchange landscape layouts lottery measures models "
    "population reconstruct report structure sweeps"
)
_PRUNING = {
    "criteria": "magnitude random",
    "iterative": "iterate",
    "masks": "apply_mask collapsed count_kept density density_per_leaf ones_like prunable_leaves "
    "shuffle shuffle_globally",
    "prune": "prune",
    "scopes": "erk globally layerwise per_leaf",
    "summary": "summary",
    "transforms": "Events effective_params gradual mask_slots mask_updates masked rigl "
    "sparse_evolution static_sparse straight_through",
}
_MODULES = "criteria granularity methods schedules supermask transforms"
_LATER: dict[str, tuple[str, str | None]] = {
    **{name: (f"lth_jax.{name}", None) for name in _PACKAGES.split()},
    **{name: (f"lth_jax.pruning.{name}", None) for name in _MODULES.split()},
    **{
        name: (f"lth_jax.pruning.{module}", name)
        for module, names in _PRUNING.items()
        for name in names.split()
    },
    "save_ticket": ("lth_jax.coding", "save"),
    "load_ticket": ("lth_jax.coding", "load"),
    **{name: ("lth_jax.lottery", name) for name in ("load_atlas", "load_run", "load_sweep")},
}


def __getattr__(name: str) -> Any:
    """The public names that are imported when they are first used."""
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("lth-jax")
        except metadata.PackageNotFoundError:  # a source tree that is not installed
            return "0+unknown"
    if name not in _LATER:
        raise AttributeError(f"module 'lth_jax' has no attribute '{name}'")
    module, attribute = _LATER[name]
    found = importlib.import_module(module)
    globals()[name] = found if attribute is None else getattr(found, attribute)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LATER})


__all__ = [
    "Events",
    "__version__",
    "analysis",
    "apply_mask",
    "coding",
    "collapsed",
    "count_kept",
    "criteria",
    "data",
    "density",
    "density_per_leaf",
    "distributed",
    "effective_params",
    "erk",
    "exchange",
    "globally",
    "gradual",
    "granularity",
    "iterate",
    "landscape",
    "layerwise",
    "layouts",
    "load_atlas",
    "load_run",
    "load_sweep",
    "load_ticket",
    "lottery",
    "magnitude",
    "mask_slots",
    "mask_updates",
    "masked",
    "measures",
    "methods",
    "models",
    "ones_like",
    "per_leaf",
    "population",
    "prunable_leaves",
    "prune",
    "random",
    "reconstruct",
    "report",
    "rigl",
    "save_ticket",
    "schedules",
    "shuffle",
    "shuffle_globally",
    "sparse_evolution",
    "static_sparse",
    "straight_through",
    "structure",
    "summary",
    "supermask",
    "sweeps",
    "transforms",
]
