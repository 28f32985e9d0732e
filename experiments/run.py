r"""Runs one experiment from one config.

    python -m experiments.run --config=experiments/configs/mnist1d_ladder.py
    python -m experiments.run --config=experiments/configs/mnist1d_ladder.py:smoke \
        --config.experiment.replicates=8

Without `--config` it runs the first of these. The first line of the output is the config; the
second, once plans are measured, the expected time of training. The same command continues an
interrupted run, or shows the finished result. `--dry_run` prints members, memory and time without
training; `--help` lists all fields.
"""

import sys

from experiments import sweep
from experiments.commands import DEFAULT, DRY_RUN, config_of
from experiments.flags import given_config
from experiments.runner import run
from lth_jax.cli.programs import run_main


def main() -> None:
    argv = [argument for argument in sys.argv if argument != DRY_RUN]
    config = config_of(argv, DEFAULT, str(__doc__), [DRY_RUN])
    usual = f"{DEFAULT} (the default; `--config=FILE` chooses another)"
    print(f"config: {given_config(argv, '') or usual}", flush=True)
    if DRY_RUN in sys.argv:
        sweep.check_and_plan(config)
    else:
        run(config, ["python", "-m", "experiments.run", *sys.argv[1:]])


if __name__ == "__main__":
    run_main(main)
