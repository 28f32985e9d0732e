"""Many members at once: one compiled program, run in chunks of one recorded width.

Two numbers decide how: `chunk`, the members vectorised together (1 = one after the other), and
`driver`, whether the steps of a segment are a `scan` inside the program or a `host` loop over a
compiled step. Which is best depends on the network, the data and the device (a stock convolution
in a scan is 40 times slower than outside on a CPU), so `choose_plan` measures.

A member's bits depend on the width it was vectorised in, so a plan is chosen once, recorded, and
used for every level; the last chunk is padded to the width.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.training.segment import (
    Member,
    Record,
    Trainer,
    batch_rows,
    close_segment,
    init_record,
    take,
    train_segment,
    train_step,
)
from lth_jax.types import Batch, Info

DRIVERS = ("scan", "host")
PROBE = 8  # steps per measurement

Segment = Callable[[Member, Record, Batch, Batch, Any, Any], tuple[Member, Record, Info]]
OnSegment = Callable[[int, Member, Record, Info], None]


class Plan(NamedTuple):
    """How a population runs: members per chunk, and what drives the steps of a segment."""

    chunk: int
    driver: str = "scan"


def check_plan(plan: Plan) -> None:
    """Raises `ValueError` unless the plan can run."""
    if plan.chunk < 1:
        raise ValueError(f"`chunk` is {plan.chunk}; at least 1 member must run at a time.")
    if plan.driver not in DRIVERS:
        raise ValueError(f"`driver` is {plan.driver!r}; it must be one of {DRIVERS}.")


def over_members(f: Callable[..., Any], chunk: int, batched: Sequence[bool]) -> Callable[..., Any]:
    """Vectorises `f` over the member axis of the arguments marked in `batched`.

    A chunk of 1 is not vmapped but squeezed: a vmapped convolution of one member is still the
    slow grouped one.
    """
    if chunk > 1:
        return jax.vmap(f, in_axes=tuple(0 if b else None for b in batched))

    def one(*args: Any) -> Any:
        inner = [trees.index(a, 0) if b else a for a, b in zip(args, batched, strict=True)]
        return jax.tree.map(lambda leaf: leaf[None], f(*inner))

    return one


def compile_segment(trainer: Trainer, plan: Plan) -> Segment:
    """The program that takes one chunk through one segment; compiled at its first call.

    Args:
      trainer: the static part of the training.
      plan: the width of the chunk and the driver.

    Returns:
      `(members, records, train, validation, step, n) -> (members, records, info)`, where the
      leading axis of members, records and info is `plan.chunk` and n ≤ `trainer.steps` is how many
      steps to train. Members and records are donated: do not use the ones passed in again.
    """
    check_plan(plan)
    if plan.driver == "scan":

        def segment(*args: Any) -> Any:
            return train_segment(trainer, *args)

        whole = over_members(segment, plan.chunk, (True, True) + (False,) * 4)
        return jax.jit(whole, donate_argnums=(0, 1))
    return _host_segment(trainer, plan.chunk)


def _host_segment(trainer: Trainer, chunk: int) -> Segment:
    """The segment as a Python loop over one compiled step."""

    def step_i(member: Member, rows: jax.Array, i: Any, train: Batch, step: Any) -> Any:
        member, info = train_step(trainer, member, take(train, rows[i]), step + i)
        return member, info["train_loss"]

    def end(*args: Any) -> Any:
        return close_segment(trainer, *args)

    rows_of = jax.jit(
        over_members(lambda m, step: batch_rows(trainer, m, step), chunk, (True, False))
    )
    one_step = jax.jit(
        over_members(step_i, chunk, (True, True, False, False, False)), donate_argnums=0
    )
    close = jax.jit(
        over_members(end, chunk, (True, True, True, False, False, False)), donate_argnums=(0, 1)
    )

    def segment(members, records, train, validation, step, n):
        rows = rows_of(members, step)
        losses = []
        for i in range(n):
            members, loss = one_step(members, rows, np.int32(i), train, step)
            losses.append(loss)
        losses += [jnp.zeros_like(losses[0])] * (trainer.steps - n)
        return close(members, records, jnp.stack(losses, axis=1), validation, step, n)

    return segment


def segment_ends(start: int, stop: int, steps: int, also: Iterable[int] = ()) -> list[int]:
    """The steps at which segments end: multiples of `steps`, `stop`, and those in `also`.

    >>> segment_ends(0, 25, 10, also=[13])
    [10, 13, 20, 25]
    """
    ends = {*range(steps, stop, steps), *also, stop}
    return sorted(end for end in ends if start < end <= stop)


def train_chunk(
    segment: Segment,
    members: Member,
    records: Record,
    train: Batch,
    validation: Batch,
    *,
    start: int,
    ends: Sequence[int],
    on_segment: OnSegment | None = None,
) -> tuple[Member, Record]:
    """Takes one chunk from step `start` to the last of `ends`, segment by segment.

    Args:
      segment: from `compile_segment`; its width is the members' leading axis.
      members: the chunk, donated.
      records: the chunk's records, donated.
      train: training data, resident on the device.
      validation: validation data, likewise.
      start: the step the members stand at.
      ends: the steps at which the segments end, ascending; from `segment_ends`.
      on_segment: called as `(step, members, records, info)` after each segment, on the host; it
        must copy what it keeps, since the buffers are donated to the next segment.

    Returns:
      `(members, records)` at the last end.
    """
    for step, end in itertools.pairwise([start, *ends]):
        members, records, info = segment(
            members, records, train, validation, np.int32(step), np.int32(end - step)
        )
        if on_segment is not None:
            on_segment(end, members, records, info)
    return members, records


def chunks(n: int, width: int) -> Iterator[np.ndarray]:
    """Member indices chunk by chunk, the last one padded by repeating its last member.

    >>> [c.tolist() for c in chunks(5, 2)]
    [[0, 1], [2, 3], [4, 4]]
    """
    for first in range(0, n, width):
        yield np.minimum(np.arange(first, first + width), n - 1)


def train_population(
    trainer: Trainer,
    members: Member,
    train: Batch,
    validation: Batch,
    *,
    plan: Plan,
    stop: int,
    start: int = 0,
    on_segment: OnSegment | None = None,
) -> tuple[Member, Record, Info]:
    """Trains any number of members under one compiled program, chunk after chunk.

    Args:
      trainer: the static part.
      members: a population; every leaf has the member axis first.
      train: training data shared by all members.
      validation: validation data shared by all members.
      plan: from `choose_plan`, or chosen by hand.
      stop: the step to train to.
      start: the step the members stand at.
      on_segment: see `train_chunk`.

    Returns:
      `(members, records, history)`; history holds `"step"` int32[E] and float32[E, n] per entry
      of the segments' info.
    """
    n = members.alive.shape[0]
    segment = compile_segment(trainer, plan)
    ends = segment_ends(start, stop, trainer.steps)
    done, history = [], []
    for rows in chunks(n, plan.chunk):
        chunk = jax.tree.map(lambda leaf, rows=rows: leaf[rows], members)
        infos: list[Info] = []

        def keep(step: int, m: Member, r: Record, info: Info, infos: list = infos) -> None:
            infos.append(jax.tree.map(np.array, info))
            if on_segment is not None:
                on_segment(step, m, r, info)

        records = jax.vmap(init_record)(chunk)
        chunk_args = (segment, chunk, records, train, validation)
        done.append(train_chunk(*chunk_args, start=start, ends=ends, on_segment=keep))
        history.append(jax.tree.map(lambda *rows: np.stack(rows), *infos))
    members, records = jax.tree.map(lambda *a: jnp.concatenate(a)[:n], *done)
    merged = jax.tree.map(lambda *h: np.concatenate(h, axis=1)[:, :n], *history)
    return members, records, {"step": np.array(ends, np.int32)} | merged


def candidate_plans(sizes: Sequence[int]) -> list[Plan]:
    """The plans worth measuring for levels of these sizes: widths by both drivers.

    >>> candidate_plans([5, 20])[:2]
    [Plan(chunk=1, driver='scan'), Plan(chunk=1, driver='host')]
    """
    widths = sorted({1, min(sizes), max(sizes)})
    return [Plan(width, driver) for width in widths for driver in DRIVERS]


def population_cost(plan: Plan, seconds_per_segment: float, sizes: Sequence[int]) -> float:
    """Seconds for one segment of every level, padding included.

    >>> population_cost(Plan(4), 2.0, [4, 6])
    6.0
    """
    return seconds_per_segment * sum(-(-n // plan.chunk) for n in sizes)


def choose_plan(
    trainer: Trainer,
    members: Member,
    train: Batch,
    validation: Batch,
    sizes: Sequence[int],
    *,
    candidates: Sequence[Plan] | None = None,
    repeats: int = 3,
    budget: float = 20.0,
) -> tuple[Plan, list[dict[str, Any]]]:
    """Measures the candidate plans on the actual network, data and device; picks the cheapest.

    Each candidate runs a few real steps on copies of the given members, the candidates in turn,
    `repeats` rounds; its figure is the smallest time. The cost counts padding: a chunk wider than
    a level trains copies for nothing.

    Args:
      trainer: the static part.
      members: at least one member; repeated to fill the wider candidates.
      train: training data.
      validation: validation data.
      sizes: how many members each level of the run will have.
      candidates: plans to compare; `candidate_plans(sizes)` by default.
      repeats: rounds of measurement.
      budget: seconds; once they are spent no further candidate is added, but every plan that
        was measured counts.

    Returns:
      The plan, and the evidence: one dict per measured candidate with its milliseconds per step
      and member.
    """
    began = time.perf_counter()
    runs: dict[Plan, Callable[[], float]] = {}
    for plan in candidates or candidate_plans(sizes):
        if runs and time.perf_counter() - began > budget:
            break
        runs[plan] = _timed_segment(trainer, plan, members, train, validation)
    times: dict[Plan, list[float]] = {plan: [] for plan in runs}
    for _ in range(repeats):
        for plan, run in runs.items():
            times[plan].append(run())
    costs = {plan: population_cost(plan, min(t), sizes) for plan, t in times.items()}
    evidence = [
        {
            "chunk": plan.chunk,
            "driver": plan.driver,
            "ms_per_member_step": 1e3 * min(times[plan]) / (plan.chunk * min(PROBE, trainer.steps)),
            "relative_cost": costs[plan] / min(costs.values()),
        }
        for plan in runs
    ]
    return min(costs, key=lambda plan: costs[plan]), evidence


def _timed_segment(trainer, plan, members, train, validation) -> Callable[[], float]:
    """Compiles a plan's segment (by calling it once) and returns a function that times it."""
    segment = compile_segment(trainer, plan)
    rows = np.arange(plan.chunk) % members.alive.shape[0]
    n = np.int32(min(PROBE, trainer.steps))

    def run() -> float:
        chunk = jax.tree.map(lambda leaf: leaf[rows], members)
        records = jax.vmap(init_record)(chunk)
        jax.block_until_ready((chunk, records))
        start = time.perf_counter()
        jax.block_until_ready(segment(chunk, records, train, validation, np.int32(0), n))
        return time.perf_counter() - start

    run()
    return run
