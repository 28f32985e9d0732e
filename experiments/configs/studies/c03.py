"""C3, the entropy of masks: the networks of C7, weighed."""

from ml_collections import ConfigDict

from experiments.configs.studies import c07


def get_config(size: str = "laptop") -> ConfigDict:
    """C7's ladders to density .13, whose networks are shared with it.

    Args:
      size: `"smoke"`, `"laptop"` or `"full"`.
    """
    config = c07.get_config(size)
    config.study = ConfigDict(
        {
            "delta": 3.0,  # per cent of a mask's bytes
            "rates": config.study.rates,
            "pilot_seeds": config.study.pilot_seeds,
            "control_seeds": 48,
        }
    )
    return config
