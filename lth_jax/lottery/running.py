"""Trains one experiment as a run of the store: plan, progress and manifest."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from lth_jax import store as stores
from lth_jax.lottery.initial_states import InitialStates
from lth_jax.lottery.ladder import Hooks, run_ladder
from lth_jax.lottery.member_table import Plans, what_is_kept
from lth_jax.lottery.node_training import Progress
from lth_jax.lottery.programs import Programs
from lth_jax.lottery.progress import Display, print_line
from lth_jax.lottery.spec import Experiment, level_sizes
from lth_jax.population.placement import Plan, fitted, level_plans, read_plan
from lth_jax.population.planning import choose_plan
from lth_jax.population.streaming import OnHost
from lth_jax.population.task import Task
from lth_jax.report.run_summary import summarize_run
from lth_jax.schema import LevelEntry
from lth_jax.store import SAVE_SECONDS


def recorded_plans(
    experiment: Experiment,
    run: stores.Run,
    candidates: Sequence[Plan],
    plan_cache: Path | None = None,
    *,
    narrow: bool = True,
    programs: Programs | None = None,
    progress: bool = False,
) -> Plans:
    """The plans of a run: chosen and recorded at the first start, with later changes.

    Args:
      experiment: the experiment.
      run: from `store.open_run`.
      candidates: plans to measure; a single one is not measured.
      plan_cache: a folder that caches choices of plans for later runs.
      narrow: whether smaller levels use smaller chunks.
      programs: the programs that will train.
      progress: whether to print a line before plans are measured.

    Raises:
      ValueError: no plan fits the devices or the memory.
    """
    if run.plan is None:
        plan, evidence = candidates[0], list[dict[str, Any]]()
        sizes = level_sizes(experiment.seeds, experiment.ladder)
        if len(candidates) > 1:
            note = f"measuring which of {len(candidates)} plans is fastest …"
            plan, evidence = measure_plans(
                experiment,
                sizes,
                candidates,
                plan_cache,
                programs,
                on_start=lambda: print_line(note) if progress and stores.everyone().first else None,
            )
        record = {**plan._asdict(), "evidence": evidence, "data": data_placement(experiment.task)}
        run.record_plan(with_widths(record, sizes if narrow else []))
    plans = read_plans(run.plan, run.replans)
    device_notes(plans)  # raises if a plan cannot run here
    return plans


def with_widths(record: Mapping[str, Any], sizes: Sequence[int]) -> dict[str, Any]:
    """The record of a plan with `[level, chunk from that level on]` for levels of these sizes."""
    plans = level_plans(read_plan(record), sizes) or [(0, read_plan(record))]
    return {**record, "widths": [[level, plan.chunk] for level, plan in plans]}


def read_plans(record: Mapping[str, Any], replans: Sequence[Mapping[str, Any]]) -> Plans:
    """The plans by level, from a record of `with_widths` and later changes."""
    plan = read_plan(record)
    widths = [(level, plan._replace(chunk=chunk)) for level, chunk in record["widths"]]
    return [*widths, *((change["level"], read_plan(change)) for change in replans)]


def train_run(
    experiment: Experiment,
    run: stores.Run,
    store: stores.Store,
    plans: Plans,
    *,
    programs: Programs | None = None,
    progress: bool = True,
    save_seconds: float = SAVE_SECONDS,
    note: Callable[[], str] | None = None,
) -> None:
    """Trains an experiment in a run that this process holds, and marks the run finished.

    Args:
      experiment: the experiment.
      run: from `store.open_run`.
      store: holds the nodes.
      plans: from `recorded_plans`.
      programs: the programs of the trainer, if shared.
      progress: whether to show a progress bar.
      save_seconds: seconds of training that a kill may repeat.
      note: text for the final line, after the number of members and the time.

    Raises:
      store.Interrupted: a signal arrived; progress is saved.
    """
    seeds, ladder = experiment.seeds, experiment.ladder
    sizes = level_sizes(seeds, ladder)
    lengths = [ladder.stop] + [ladder.stop - ladder.rewind.step] * len(ladder.counts)
    work = [n * steps for n, steps in zip(sizes, lengths, strict=True)]
    with Display(run.path.name, work, progress and store.team.first) as display:
        for line in device_notes(plans):
            display.say(line)
        run.restart()
        with _stop_on_signals() as stop:
            hooks = _hooks(run, display, stop, store.team)
            run_ladder(
                [experiment],
                store=store,
                plans=plans,
                hooks=hooks,
                programs=programs,
                save_seconds=save_seconds,
            )
        more = f"; {note()}" if note else ""
        display.say(f"{sum(sizes)} members in {display.spent()}{more}")
    run.finish(store.team.on_leader(lambda: summarize_run(store, run.path)))


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[stores.Stop]:
    """`store.on_signals` in the main thread; in others, which get no signals, a plain `Stop`."""
    if threading.current_thread() is not threading.main_thread():
        yield stores.Stop()
        return
    with stores.on_signals() as stop:
        yield stop


def _hooks(run: stores.Run, display: Display, stop: stores.Stop, team: stores.Team) -> Hooks:
    def on_progress(progress: Progress) -> None:
        run.log(_record(progress) | display.advance(progress))
        if progress.step < progress.stop:
            stop.check(team)

    def on_node(i: int, entry: LevelEntry) -> None:
        run.add(**entry._asdict())
        display.node(entry)
        stop.check(team)

    def on_replan(level: int, plan: Plan) -> None:
        run.add_replan({"level": level, **plan._asdict()})
        display.done(-sum(LevelEntry(**entry).member_steps for entry in run.drop(level=level)))
        display.say(f"Out of memory: level {level} starts again with {plan.chunk} at a time.")

    return Hooks(
        on_progress, lambda: stop.check(team), on_node, on_replan, lambda level: display.level()
    )


def _record(progress: Progress) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    n = len(progress.specs)
    return {
        "level": progress.level,
        "density": progress.densities[0],
        "step": progress.step,
        "seconds": progress.seconds,
        "members": [list(spec.label) for spec in progress.specs],
        **{name: value[:n].tolist() for name, value in progress.info.items()},
    }


def measure_plans(
    experiment: Experiment,
    sizes: Sequence[int],
    candidates: Sequence[Plan],
    plan_cache: Path | None = None,
    programs: Programs | None = None,
    *,
    on_start: Callable[[], None] | None = None,
) -> tuple[Plan, list[dict[str, Any]]]:
    """The fastest plan for levels of these sizes, measured on an experiment's dense networks.

    `on_start` is called before the measurement; not if the choice is cached.
    """
    task = experiment.task
    programs = programs or Programs(task.trainer)
    members = InitialStates([experiment], programs).dense()
    return choose_plan(
        task.trainer,
        members,
        task.data.train,
        task.data.validation,
        sizes,
        candidates=candidates,
        steps=experiment.ladder.stop,
        plan_cache=plan_cache,
        program=experiment.identity.training,
        segments=programs.segment,
        team=stores.everyone(),
        on_start=on_start,
    )


def device_notes(plans: Plans) -> list[str]:
    """A message for each plan that was made for other devices.

    Raises:
      ValueError: a plan cannot run on the available devices.
    """
    notes = []
    for level, plan in plans:
        here = fitted(plan, jax.device_count(), jax.process_count())
        if here != plan:
            notes.append(
                f"From level {level} on the plan has {plan.devices} devices; here its members "
                f"train on {here.devices}, {here.vmapped} at once on each."
            )
    return notes


def data_placement(task: Task) -> str:
    """The placement of the training data: `"host"` or `"device"`."""
    return "host" if isinstance(task.data.train, OnHost) else "device"


def run_identity(experiment: Experiment) -> dict[str, Any]:
    """The part of a run's identity that its config does not cover.

    It consists of programs, data, numeric flags, and the number of weights kept at each level.

    Versions, devices and the library's code are excluded: a run may continue after an upgrade or on
    another machine, where its new nodes get other keys.
    """
    found, ladder = experiment.identity, experiment.ladder
    levels = range(1, len(ladder.counts) + 1)
    return {
        "training": found.training,
        "arms": found.arms,
        "methods": found.methods,
        "batches": found.batches,
        "data": found.data,
        "constants": found.constants,
        "numerics": found.environment["numerics"],
        "counts": stores.content_key([what_is_kept(ladder, level) for level in levels]),
    }
