"""C3, the entropy of masks: the networks of C7, weighed."""

from ml_collections import ConfigDict

from experiments.configs.studies import c07


def get_config(size: str = "laptop") -> ConfigDict:
    """C7's ladders to density .13, whose networks are shared with it."""
    config = c07.get_config(size)
    asked = {
        "delta": 3.0,  # per cent of a mask's bytes
        "control_seeds": 48,
    }
    shared = ("rates", "pilot_seeds", "setup")
    config.study = ConfigDict(asked | {k: v for k, v in config.study.items() if k in shared})
    return config
