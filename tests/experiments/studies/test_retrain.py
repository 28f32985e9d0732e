"""Networks retrained from the ladder's starts are equal to the ladder's networks."""

import numpy as np
import pytest

from experiments.studies import common
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.slow
def test_a_retrained_dense_network_is_the_ladders(tmp_path):
    config = tiny(common.mnist1d(seeds=3), replicates=3)
    config.experiment.prune.levels = 0
    with runner_in(tmp_path) as runner:
        found = runner.ladders("study", {"only": config})
        dense = runner.networks("study", config, "dense")
        starts = runner.origins("study", config)
        again = runner.retrain("study", config, starts)
    for i, one in enumerate(dense):
        for name, leaf in one.params.items():
            np.testing.assert_allclose(again.params[name][i], leaf, atol=1e-5)
    for metric in ("test_accuracy_final", "train_loss_final", "validation_loss_best"):
        ladder = found.of("only", "dense", metric)
        np.testing.assert_allclose(again.results[metric], ladder, atol=1e-5)


@pytest.mark.slow
def test_plans_of_more_devices_are_fitted_to_those_here(tmp_path):
    config = tiny(common.mnist1d(seeds=2), replicates=2)
    config.experiment.prune.levels = 0
    with runner_in(tmp_path) as runner:
        runner.ladders("study", {"only": config})
        starts = runner.origins("study", config)
        here = runner.retrain("study", config, starts)
        [plan] = runner._plans.values()  # as recorded where there are 16 devices
        plan |= {"chunk": 16, "devices": 16, "vmapped": 1}
        there = runner.retrain("study", config, starts)
    for metric, values in here.results.items():
        np.testing.assert_allclose(there.results[metric], values, atol=1e-4, err_msg=metric)
