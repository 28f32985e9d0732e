"""The task and the seeds of an experiment, for the tests of ladders."""

from typing import NamedTuple

from lth_jax.lottery import Seeds, Task


class Setup(NamedTuple):
    """A task and the seeds."""

    task: Task
    seeds: Seeds

    def with_task(self, **parts):
        return self._replace(task=self.task.replace(**parts))

    def with_trainer(self, **changes):
        return self.with_task(trainer=self.task.trainer._replace(**changes))

    def with_seeds(self, **changes):
        return self._replace(seeds=self.seeds._replace(**changes))
