"""Each method finds a planted ticket better than chance: its mask overlaps the teacher's."""

import numpy as np
import optax
import pytest

from lth_jax import lottery
from lth_jax.data import planted
from lth_jax.measures import recovery
from lth_jax.measures.intervals import student_t
from lth_jax.models import MLP
from lth_jax.population import Plan
from lth_jax.pruning import methods, scopes
from tests.thinning import sampled

SHAPE = {"inputs": 20, "hidden": 4, "classes": 2, "density": 0.15}
SEEDS = 24


def kernels(mask):
    first, second = (np.asarray(mask[name]["kernel"]) for name in ("Dense_0", "Dense_1"))
    return first, second


@pytest.fixture(scope="module")
def task():
    made = planted.planted(**SHAPE, train=2000, test=200)
    data = {"train": (made.train.x, made.train.y), "test": (made.test.x, made.test.y)}
    optimizer = optax.adam(3e-2)
    return lottery.Task(
        MLP((8, 2)), data, optimizer=optimizer, batch_size=50, steps=2000, eval_every=500
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")  # one, so that the dense networks are trained once


@pytest.mark.parametrize("name", sampled(sorted(set(methods.METHODS) - {"static"}), 5))
def test_a_method_finds_more_of_a_planted_ticket_than_chance(task, folder, name):
    spec = lottery.sparse_training(methods.METHODS[name], 0.2, scope=scopes.globally(minimum=1))
    options = {"replicates": SEEDS, "plan": Plan(SEEDS), "progress": False, "store": folder}
    there = kernels(planted.teacher(**SHAPE).mask)
    gains = []
    for ticket in lottery.run(task, spec, **options).tickets(1):
        found = kernels(ticket.mask)
        by_chance = recovery.chance(found, there, seed=ticket.replicate, draws=50).mean()
        gains.append(recovery.recovered(found, there) - by_chance)
    assert len(gains) == SEEDS and student_t(gains).low > 0
