"""`prune.reconstruct` of configs: what it builds and refuses, and runs that it does not change."""

import pytest

from experiments import build, checks, flags
from experiments.configs import base
from lth_jax.cli.programs import UserError
from lth_jax.reconstruct import Reconstruction
from lth_jax.reconstruct.methods import METHODS


def config(**changes):
    found = base.ladder()
    found.experiment.prune.examples = 32
    found.experiment.prune.reconstruct.method = "sparse_gpt"
    found.experiment.prune.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in changes.items()}
    )
    return found


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_name(method):
    experiment = config(reconstruct__method=method, reconstruct__mask="method").experiment
    checks.check(experiment)
    found = build._reconstruction(experiment.prune.reconstruct)
    assert isinstance(found, Reconstruction) and found.method is METHODS[method]()
    assert (found.mask, found.start) == ("method", "reconstructed")


def test_configs_without_it_are_stored_as_before():
    plain, other = base.ladder().experiment, config().experiment
    assert build._reconstruction(plain.prune.reconstruct) is None
    assert "reconstruct" not in flags.recorded(plain)["prune"]
    assert flags.recorded(other)["prune"]["reconstruct"]["method"] == "sparse_gpt"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"examples": 0}, "which needs data; set `prune.examples`"),
        ({"reconstruct__method": "alp"}, "`prune.reconstruct.method` is 'alp'"),
        ({"reconstruct__start": "rewound"}, "which changes nothing"),
        ({"method": "rigl"}, "it needs `prune.method=static`"),
        ({"reconstruct__mask": "method", "granularity": "rows"}, "it must be 'weights'"),
    ],
)
def test_it_refuses(changes, words):
    with pytest.raises(UserError) as error:
        checks.check(config(**changes).experiment)
    assert words in str(error.value)
