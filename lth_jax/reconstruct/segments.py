"""Splits a function into consecutive segments, each of which ends before a given product."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax.reconstruct.layers import Layers
from lth_jax.reconstruct.views import View
from lth_jax.reconstruct.walk import Site, walk
from lth_jax.structure import graph
from lth_jax.structure.graph import Block, Op, Value, trace


class Flat(NamedTuple):
    """A program without loops over leaves, and where its products begin.

    Attributes:
      leaves: the values of the parameters' leaves.
      data: the values of the batch's leaves.
      outs: the results.
      ops: all operations.
      sites: for each product, in the order of `Layers.order`, the position of its first operation.
    """

    leaves: tuple[Value, ...]
    data: tuple[Value, ...]
    outs: tuple[Value, ...]
    ops: tuple[Op, ...]
    sites: tuple[int, ...]


class Segment(NamedTuple):
    """Consecutive operations.

    Attributes:
      leaves: the values of the parameters' leaves.
      ops: the operations.
      reads: earlier values that this or a later segment reads, without leaves.
      writes: the values that later segments read, or that the function returns: results of this
        segment and earlier values.
    """

    leaves: tuple[Value, ...]
    ops: tuple[Op, ...]
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]

    def run(self, leaves: Sequence[Any], carried: Sequence[Any]) -> list[Any]:
        """The values of `writes`, from the parameters' leaves and the values of `reads`."""
        block = Block((*self.leaves, *self.reads), self.writes, self.ops)
        return graph.run(block, (*leaves, *carried))

    @property
    def results(self) -> list[int]:
        """The positions in `writes` of the floating-point results of this segment."""
        return [
            k
            for k, value in enumerate(self.writes)
            if value not in self.reads and jnp.issubdtype(value.aval.dtype, jnp.floating)
        ]


def flatten(found: Layers, leaves: Sequence[Any], batch: Any) -> Flat:
    """The program of a function with each loop that reads a leaf unrolled."""

    def run(leaves: list[Any], data: list[Any]) -> tuple[list[Any], list[Any]]:
        program = walk(found.block, [*map(View, range(len(leaves))), *data], leaves)
        marks = []
        while True:
            try:
                event = next(program)
            except StopIteration as end:
                outs = end.value
                break
            if isinstance(event, Site):  # an operation that marks the position of the product
                marks.append(jax.lax.optimization_barrier(leaves[0]))
        return [x.read(leaves[x.leaf]) if isinstance(x, View) else x for x in outs], marks

    data = [jnp.asarray(x) for x in jax.tree.leaves(batch)]
    block, _ = trace(run, list(leaves), data)
    number = len(block.outs) - len(found.order)
    marks, sites, ops = set(block.outs[number:]), [], list[Op]()
    for op in block.ops:
        if marks.intersection(op.outs):
            sites.append(len(ops))
        else:
            ops.append(op)
    first = len(leaves)
    return Flat(block.ins[:first], block.ins[first:], block.outs[:number], tuple(ops), tuple(sites))


def split(flat: Flat, cuts: Sequence[int]) -> list[Segment]:
    """The segments before the first cut, between cuts, and after the last."""
    ends = [0, *cuts, len(flat.ops)]
    live = [_live(flat, end) for end in ends]
    return [
        Segment(flat.leaves, flat.ops[start:end], reads, writes)
        for start, end, reads, writes in zip(ends, ends[1:], live, live[1:], strict=False)
    ]


def _live(flat: Flat, position: int) -> tuple[Value, ...]:
    """The values made before a position that are read after it, in the order of the program."""
    made = [*flat.data, *(value for op in flat.ops[:position] for value in op.outs)]
    read = {value for op in flat.ops[position:] for value in op.ins} | set(flat.outs)
    return tuple(value for value in made if value in read)
