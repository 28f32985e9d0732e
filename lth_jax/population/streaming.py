"""Streaming of training data from the host: each segment gets a block with its examples.

The examples of a segment are a pure function of the members' data keys and of its first step, so
resuming needs only the step. Results are equal, bit for bit, to those of data on the device. While
one segment trains, a thread reads the examples of the next.
"""

import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.population.placement import Plan, free_bytes, map_members
from lth_jax.population.segment import Block, Member, Trainer, metric_sums, rows_of, unchanged
from lth_jax.store import to_host
from lth_jax.types import Batch, Info, Key

_NO_ROW = np.iinfo(np.int32).max


class OnHost(Batch):
    """A data set that stays on the host.

    Its leaves are NumPy arrays, or objects for which `leaf[rows]` is one.
    """


Serve = Callable[[Member, Batch, Sequence[int]], Iterable[Batch | Block]]


def compile_serving(trainer: Trainer) -> Serve:
    """Makes the iterator over the training data of a chunk's segments.

    Args:
      trainer: the static part.

    Returns:
      `(members, train, starts) -> iterator`, with an item for each segment; the segments begin at
      the steps `starts`. Resident data are passed on unchanged. For data `OnHost` an item is a
      block of the members' examples, read while the previous segment trains; the function raises
      `ValueError` if the trainer uses all data at once, or if the examples of two segments do not
      fit on the device.
    """

    @jax.jit
    def rows_at(orders: tuple[Key, Any], step: Any) -> jax.Array:
        rows = jax.vmap(lambda key, scalars: rows_of(trainer, key, scalars, step))(*orders)
        return rows.reshape(len(rows), -1)

    def serve(members: Member, train: Batch, starts: Sequence[int]) -> Iterable[Batch | Block]:
        if not isinstance(train, OnHost):
            return itertools.repeat(train, len(starts))
        if trainer.examples_per_replicate or trainer.eval_member is not unchanged:
            raise ValueError(
                "`examples_per_replicate` and `eval_member` need training data on the device, not "
                "the host."
            )
        keys, scalars = _orders(members)
        seen = jax.eval_shape(rows_at, (keys, scalars), np.int32(0)).shape[1]
        size = min(len(train.y), _power_of_2(len(keys)) * seen)
        _check_fits(train, size)

        def reading(start: int) -> Callable[[], Block]:
            # Computed before the next segment is dispatched, which would delay it.
            rows = rows_at((keys, scalars), np.int32(start))
            return lambda: _block(train, np.unique(rows), size)

        return _ahead(map(reading, starts))

    return serve


def _ahead(tasks: Iterable[Callable[[], Any]]) -> Iterator[Any]:
    """The results of tasks; each task runs while the caller uses the previous result."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        ready: concurrent.futures.Future[Any] | None = None
        for task in tasks:
            coming = thread.submit(task)
            if ready is not None:
                yield ready.result()
            ready = coming
        if ready is not None:
            yield ready.result()


def _orders(members: Member) -> tuple[Key, dict[str, np.ndarray]]:
    """The distinct data orders of a chunk; members that share one share its examples."""
    scalars = {name: members.hyper[name] for name in ("data_offset", "replicate")}
    keys, scalars = to_host((jax.random.key_data(members.data_key), scalars))
    table = np.column_stack([keys.reshape(len(keys), -1), *scalars.values()])
    first = np.unique(table, axis=0, return_index=True)[1]
    impl = jax.random.key_impl(members.data_key)
    return jax.random.wrap_key_data(keys[first], impl=impl), trees.index(scalars, first)


def _power_of_2(n: int) -> int:
    """The smallest power of 2 that is at least n, so that few block sizes occur."""
    return 1 << (n - 1).bit_length()


def _block(train: OnHost, rows: np.ndarray, size: int) -> Block:
    """The examples `rows` on the device, padded to `size`."""

    def padded(leaf: Any) -> np.ndarray:
        read = leaf[rows]
        return np.concatenate([read, np.zeros((size - len(rows), *read.shape[1:]), read.dtype)])

    ascending = np.full(size, _NO_ROW, np.int32)
    ascending[: len(rows)] = rows
    return Block(*jax.device_put((ascending, Batch(*map(padded, train)))))


def _check_fits(train: OnHost, size: int) -> None:
    example = sum(leaf.dtype.itemsize * int(np.prod(leaf.shape[1:])) for leaf in train)
    needed, free = 2 * size * example, free_bytes()  # one block in use, one being read
    if free is not None and needed > free:
        raise ValueError(
            f"two segments, of {size} examples each, need {needed / 2**20:,.0f} MiB on a device, "
            f"but {free / 2**20:,.0f} MiB are free; reduce `eval_every`."
        )


def compile_streamed_evaluation(
    trainer: Trainer, plan: Plan
) -> Callable[..., dict[str, jax.Array]]:
    """`evaluate` of a chunk's members on training data on the host, read block by block.

    Returns:
      `(members, data, on_block) -> means`; `on_block()` is called after each block.
    """

    def sums(member: Member, part: Batch) -> Info:
        return metric_sums(trainer, member.params, member.state, part)

    sums_of = jax.jit(map_members(sums, plan, (True, False)))

    def evaluation(
        members: Member, data: OnHost, on_block: Callable[[], None] = lambda: None
    ) -> Info:
        n = min(trainer.train_eval_examples or len(data.y), len(data.y))
        places = [
            slice(first, min(first + trainer.eval_batch_size, n))
            for first in range(0, n, trainer.eval_batch_size)
        ]
        parts = _ahead(functools.partial(_part, data, place) for place in places)
        found = []
        for part in parts:
            found.append(sums_of(members, part))
            on_block()
        tail = [found.pop()] if n % trainer.eval_batch_size else []
        head = (
            [jax.tree.map(lambda *each: jnp.sum(jnp.stack(each), axis=0), *found)] if found else []
        )
        total = jax.tree.map(lambda *each: functools.reduce(jnp.add, each), *head, *tail)
        return {name: value / n for name, value in total.items()}

    return evaluation


def _part(data: OnHost, place: slice) -> Batch:
    rows = np.arange(len(data.y), dtype=np.int32)[place]
    batch: Batch = jax.device_put(Batch(*(leaf[rows] for leaf in data)))
    return batch
