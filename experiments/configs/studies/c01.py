"""C1, the lottery of biology: families in an environment that may change."""

from ml_collections import ConfigDict

from experiments.configs.studies import common


def get_config(size: str = "laptop") -> ConfigDict:
    """A hundred types, a hundred clones against fifty varied offspring, nine changes in ten."""
    common.check_size(size)
    config = ConfigDict()
    config.study = ConfigDict(
        {
            "delta": 0.01,  # nats of survival per generation
            "seeds": 48,
            "families": 100_000,  # simulated for each number
            "types": 100,
            "clones": 100,
            "repeats": 0.1,
            "grid_types": (10, 100, 1000),
            "grid_clones": (10, 100, 1000, 10_000),
            "grid_repeats": (0.0, 0.1, 0.3, 0.6, 0.9),
            "grid_families": 10_000,
            "control_seeds": 64,
        }
    )
    if size == "full":
        config.study.grid_families = 100_000
    return config
