"""Training of populations in chunks of a fixed width by one compiled program.

A member's bits depend on the plan (number of vectorised members, devices), so a plan is chosen
once, recorded, and used for every level. The last chunk is padded to the width.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.population.placement import (
    Placed,
    Plan,
    check_plan,
    map_groups,
    map_members,
    over_members,
)
from lth_jax.population.segment import (
    Block,
    Constants,
    Member,
    Record,
    Trainer,
    batch_rows,
    close_segment,
    init_records,
    one_member,
    train_segment,
    train_step,
    training_batch,
)
from lth_jax.population.streaming import compile_serving
from lth_jax.store import to_host
from lth_jax.types import Batch, Info

Segment = Callable[
    [Member, Record, Batch | Block, Batch, Constants, Any, Any], tuple[Member, Record, Info]
]
OnSegment = Callable[[int, Member, Record, Info], None]


def compile_segment(trainer: Trainer, plan: Plan) -> Segment:
    """The program that trains one chunk for one segment; compiled at its first call.

    Args:
      trainer: the static part of the training; its `constants` are not used.
      plan: the plan.

    Returns:
      `(members, records, train, validation, constants, step, n) -> (members, records, info)`, where
      the leading axis of members, records and info is `plan.chunk`, `constants` are those of a
      `Trainer`, and n ≤ `trainer.eval_every` is the number of steps. Members and records are
      donated.

    Raises:
      ValueError: the plan is invalid, or needs more devices than there are.
    """
    check_plan(plan)
    segment = (_scan_segment if plan.driver == "scan" else _host_segment)(trainer, plan)
    return segment if plan.devices == 1 else Placed(segment, plan.devices)


def _scan_segment(trainer: Trainer, plan: Plan) -> Segment:
    """The segment as one program."""
    alone = plan.width == 1
    trains = functools.partial(train_segment, vectorize=one_member if alone else jax.vmap)

    def segment(
        member: Member, record: Record, train: Any, validation: Batch, constants: Any, *steps: Any
    ) -> Any:
        own = trainer._replace(constants=constants)
        return trains(own, member, record, train, validation, *steps)

    batched = (True, True) + (False,) * 5
    group = over_members(segment, 1, batched) if alone else segment
    whole = map_groups(group, plan, batched)
    return jax.jit(whole, donate_argnums=(0, 1))


def _host_segment(trainer: Trainer, plan: Plan) -> Segment:
    """The segment as a Python loop over one compiled step."""

    def step_i(
        member: Member, rows: jax.Array, i: Any, train: Batch, constants: Any, step: Any
    ) -> Any:
        own = trainer._replace(constants=constants)
        batch = training_batch(own, member, train, rows[i], step + i)
        member, info = train_step(own, member, batch, step + i)
        return member, info["train_loss"]

    def end(*args: Any) -> Any:
        return close_segment(trainer, *args)

    def first_rows(member: Member, step: Any) -> jax.Array:
        return batch_rows(trainer, member, step)

    def compiled(f: Any, batched: Sequence[bool], donated: Sequence[int] = ()) -> Any:
        return jax.jit(map_members(f, plan, batched), donate_argnums=donated)

    rows_of = compiled(first_rows, (True, False))
    one_step = compiled(step_i, (True, True, False, False, False, False), (0,))
    close = compiled(end, (True,) * 3 + (False,) * 4, (0, 1))

    def segment(
        members: Member, records: Record, train: Any, validation: Batch, constants: Any, *at: Any
    ) -> tuple[Member, Record, Info]:
        step, n = at
        rows = rows_of(members, step)
        losses = []
        for i in range(n):
            members, loss = one_step(members, rows, np.int32(i), train, constants, step)
            losses.append(loss)
        losses += [jnp.zeros_like(losses[0])] * (trainer.eval_every - n)
        ended = close(members, records, jnp.stack(losses, axis=1), train, validation, step, n)
        members, records, info = ended
        return members, records, info

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
    constants: Constants,
    *,
    start: int,
    ends: Sequence[int],
    on_segment: OnSegment | None = None,
    blocks: Iterable[Block | Batch] | None = None,
) -> tuple[Member, Record]:
    """Trains one chunk from step `start` to the last of `ends`, segment by segment.

    Args:
      segment: from `compile_segment`; its width is the members' leading axis.
      members: the chunk, donated.
      records: the chunk's records, donated.
      train: training data on the device.
      validation: validation data, likewise.
      constants: constants of the trainer.
      start: the current step of the members.
      ends: the steps at which the segments end, ascending; from `segment_ends`.
      on_segment: called as `(step, members, records, info)` after each segment, on the host. It
        must copy arrays that it keeps, since the buffers are donated to the next segment.
      blocks: the training data of each segment, if `train` is on the host (see `streaming`).

    Returns:
      `(members, records)` at the last end.
    """
    steps = itertools.pairwise([start, *ends])
    for (step, end), given in zip(steps, blocks or itertools.repeat(train)):  # noqa: B905, infinite
        members, records, info = segment(
            members, records, given, validation, constants, np.int32(step), np.int32(end - step)
        )
        if on_segment is not None:
            on_segment(end, members, records, info)
    return members, records


def chunks(n: int, width: int) -> Iterator[np.ndarray]:
    """Member indices of each chunk; the last chunk is padded by repeating its last member.

    Args:
      n: the number of members.
      width: members of a chunk.

    Yields:
      int `[width]`.

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
    segment: Segment | None = None,
    on_segment: OnSegment | None = None,
) -> tuple[Member, Record, Info]:
    """Trains members chunk by chunk, with one compiled program for all chunks.

    Args:
      trainer: the static part.
      members: a population; every leaf has the member axis first.
      train: training data shared by all members, resident or `streaming.OnHost`.
      validation: validation data shared by all members.
      plan: the plan, for example from `choose_plan`.
      stop: the step to train to.
      start: the current step of the members.
      segment: the compiled program of the plan, if there is one.
      on_segment: see `train_chunk`.

    Returns:
      `(members, records, history)`; history holds `"step"` int32[E] and float32[E, n] per entry
      of the segments' info.
    """
    n = members.alive.shape[0]
    segment = segment or compile_segment(trainer, plan)
    ends = segment_ends(start, stop, trainer.eval_every)
    serve = compile_serving(trainer)
    done, history = [], []
    for rows in chunks(n, plan.chunk):
        chunk = jax.tree.map(lambda leaf, rows=rows: leaf[rows], members)
        infos: list[Info] = []

        def keep(step: int, m: Member, r: Record, info: Info, infos: list[Info] = infos) -> None:
            infos.append(to_host(info))
            if on_segment is not None:
                on_segment(step, m, r, info)

        records = init_records(chunk)
        chunk_args = (segment, chunk, records, train, validation, trainer.constants)
        blocks = serve(chunk, train, [start, *ends][:-1])
        trained = train_chunk(*chunk_args, start=start, ends=ends, on_segment=keep, blocks=blocks)
        done.append(_together(trained) if plan.devices > 1 else trained)
        history.append(jax.tree.map(lambda *rows: np.stack(rows), *infos))
    members, records = jax.tree.map(lambda *a: jnp.concatenate(a)[:n], *done)
    merged = jax.tree.map(lambda *h: np.concatenate(h, axis=1)[:, :n], *history)
    return members, records, {"step": np.array(ends, np.int32)} | merged


def _together(trained: Any) -> Any:
    """A trained chunk copied through the host, not committed to devices.

    Concatenating or indexing distributed arrays uses collectives. On the virtual devices of a busy
    CPU these can time out, and XLA then terminates the process.
    """

    def one(leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.asarray(to_host(leaf))
        numbers = jnp.asarray(to_host(jax.random.key_data(leaf)))
        array: jax.Array = jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))
        return array

    return jax.tree.map(one, trained)
