"""Networks retrained at several learning rates, of which every seed has one that others chose."""

from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import Start, Task
from lth_jax.report.cells import Cost, Tuned

StartsAt = Callable[[float], Mapping[str, Sequence[Start]]]
"""`learning rate -> starts by arm`, which may depend on the rate that found a mask."""


def retrained(
    runner: StudyRunner,
    name: str,
    config: ConfigDict,
    starts_at: StartsAt,
    *,
    rates: Sequence[float] = (),
    task: Task | None = None,
) -> Tuned:
    """Trains the starts of all arms at every rate, as one population; the rates are cross-fitted.

    The rates are those of the config's `study`, unless given. `task` replaces the config's task,
    for example with another objective.
    """
    arms = {
        (arm, rate): [one._replace(hyper={**one.hyper, "learning_rate": rate}) for one in starts]
        for rate in rates or config.study.rates
        for arm, starts in starts_at(rate).items()
    }
    trained = runner.retrain_arms(name, config, arms, task=task)
    train = config.experiment.train
    results = {place: found.results for place, found in trained.items()}
    return Tuned.of_results(results, Cost(train.steps, train.batch_size, 0))
