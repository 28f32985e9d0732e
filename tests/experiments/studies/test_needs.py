"""A bound of a study grows with its work, and a chip that is too small does not fit."""

from experiments.configs import base
from experiments.studies import STUDIES
from experiments.studies.needs import needs
from lth_jax.analysis.roofline import A100


def bounds_of(claim, member_steps, chip=A100):
    whole, laptop = (STUDIES[claim].get_config(size) for size in ("full", "laptop"))
    whole.machine = base.ladder().machine
    return needs(whole, laptop, member_steps, chip)


def test_time_grows_with_the_steps_and_memory_does_not():
    once, twice = (bounds_of("C7", steps) for steps in (10**6, 2 * 10**6))
    assert twice.hours == 2 * once.hours > 0
    assert twice.member_steps == 2 * once.member_steps > 2 * 10**6
    assert twice.memory == once.memory > 266_610 * 4


def test_a_step_takes_the_longer_of_its_operations_and_its_traffic():
    slow = bounds_of("C7", 10**6, A100._replace(flops=A100.flops / 1000))
    narrow = bounds_of("C7", 10**6, A100._replace(bandwidth=A100.bandwidth / 10))
    assert min(slow.hours, narrow.hours) > bounds_of("C7", 10**6).hours


def test_bounds_decide_whether_a_study_fits():
    one = bounds_of("C7", 10**6)
    assert one.fit(A100) and "it fits an A100" in one.described(A100)
    assert not one.fit(A100._replace(memory=one.memory - 1))
    assert "it does not fit" in one._replace(hours=9.0).described(A100)


def test_a_study_without_networks_needs_nothing():
    assert bounds_of("C1", 0) == (0, 0, 0)
