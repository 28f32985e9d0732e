"""Depth: residual blocks that can be removed from a function as a whole."""

import dataclasses
import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lth_jax import legal, trees
from lth_jax.structure.constraints import FINITE, ZERO
from lth_jax.structure.graph import Block, Op, Value, run, trace
from lth_jax.structure.groups import Structure
from lth_jax.structure.identity import CALLS, PASS, SUMS, analyse, stacked
from lth_jax.structure.sharding import abstract


class _Branch(NamedTuple):
    """`value = start + branch`, and the positions of the leaves that only the branch reads."""

    value: Value
    start: Value
    leaves: frozenset[int]


def blocks(structure: Structure) -> dict[str, tuple[str, ...]]:
    """The residual blocks of a function that runs them one after the other, without a loop.

    A block is the `f` of a sum `x + f(x)`, or a rematerialised call that contains such sums, if it
    has leaves that nothing else reads and is zero when these are zero. The function without the
    block then equals the masked one. Layers that run in a `lax.scan` are units of a group instead,
    along the first axis of their stacked leaves.

    Args:
      structure: from `find_groups`.

    Returns:
      For each block, by the name of its first leaf, the names of its leaves. Blocks may contain
      each other; of those with the same first leaf, the largest is named.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> def net(p, x):
    ...     for name in ("a", "b"):
    ...         x = x + jnp.tanh(x @ p[name]["up"]) @ p[name]["down"]
    ...     return x
    >>> layer = {"up": jnp.ones((2, 3)), "down": jnp.ones((3, 2))}
    >>> blocks(find_groups(net, {"a": layer, "b": layer}, jnp.ones((1, 2))))
    {'a/down': ('a/down', 'a/up'), 'b/down': ('b/down', 'b/up')}
    """
    names = trees.names(structure.params)
    return {
        names[min(leaves)]: tuple(names[k] for k in sorted(leaves)) for leaves in _proven(structure)
    }


def remove_blocks(
    structure: Structure, params: Any, names: Collection[str]
) -> tuple[Any, Callable[..., Any]]:
    """The function without some residual blocks, and its parameters.

    `apply(smaller, x) = original(masked, x)`, where the leaves of the blocks are zero in `masked`;
    the gradients are equal, too. `find_groups` and `compact` accept the new function.

    Args:
      structure: from `find_groups`.
      params: the parameters.
      names: blocks, as named by `blocks`.

    Returns:
      `(smaller, apply)`: the parameters with None in place of the blocks' leaves, and
      `apply(smaller, *args)`.

    Raises:
      ValueError: a name is not a block, or `params` does not fit the structure.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> def net(p, x):
    ...     for layer in p:
    ...         x = x + jnp.tanh(x @ layer["up"]) @ layer["down"]
    ...     return x
    >>> params = [{"up": jnp.ones((2, 3)), "down": jnp.ones((3, 2))} for _ in range(2)]
    >>> found = find_groups(net, params, jnp.ones((1, 2)))
    >>> smaller, apply = remove_blocks(found, params, ["1/down"])
    >>> smaller[1], apply(smaller, jnp.ones((1, 2))).shape
    ({'down': None, 'up': None}, (1, 2))
    """
    trees.check_same_structure("params", params, "the analysed parameters", structure.params)
    known = {min(leaves): leaves for leaves in _proven(structure)}
    leaves = trees.names(params)
    for name in names:
        legal.check_name("names", name, [leaves[k] for k in known])
    chosen = [known[leaves.index(name)] for name in names]
    gone: frozenset[int] = frozenset().union(*chosen)
    flat, tree = jax.tree.flatten(params)
    left = [None if k in gone else leaf for k, leaf in enumerate(flat)]
    smaller = jax.tree.unflatten(tree, left)
    return smaller, _function(structure, chosen, gone, jax.tree.structure(smaller))


def _function(
    structure: Structure, chosen: Sequence[frozenset[int]], gone: frozenset[int], tree: Any
) -> Callable[..., Any]:
    program, leaves = structure.program, jax.tree.leaves(structure.params)

    @functools.lru_cache(maxsize=16)
    def at(mesh: Any, types: tuple[Any, ...]) -> Block:
        del mesh  # part of the types, for the cache
        rest = iter(types)
        full = [leaf if k in gone else next(rest) for k, leaf in enumerate(leaves)]
        block, _ = trace(program.apply, *program.in_tree.unflatten([*full, *rest]))
        found = {branch.leaves: branch for branch in _branches(block, len(leaves))}
        skipped = {found[leaves].value: found[leaves].start for leaves in chosen}
        return Block(
            tuple(v for k, v in enumerate(block.ins) if k not in gone),
            tuple(_through(skipped, v) for v in block.outs),
            tuple(_needed(block, skipped)),
        )

    def apply(params: Any, *args: Any) -> Any:
        flat, found = jax.tree.flatten(params)
        if found != tree:
            raise ValueError(f"`params` must have the structure {tree}, not {found}.")
        flat += jax.tree.leaves(args)
        types = tuple(abstract(jax.typeof(x)) for x in flat)
        block = at(jax.sharding.get_abstract_mesh(), types)
        return program.out_tree.unflatten(run(block, flat))

    return apply


@functools.lru_cache(maxsize=16)
def _proven(structure: Structure) -> tuple[frozenset[int], ...]:
    """The leaves of the blocks that are zero if these are, in the order of the program."""
    program, leaves = structure.program, jax.tree.leaves(structure.params)
    found = Counter(branch.leaves for branch in _branches(program.block, len(leaves)))
    avals = [v.aval for v in program.block.ins]

    def flat(*ins: Any) -> list[Any]:
        return jax.tree.leaves(program.apply(*program.in_tree.unflatten(ins)))

    # At least two steps: an axis of length 1 is not followed through reshapes.
    masked = [*found, frozenset()]
    wide = stacked(flat, [0] * len(avals), avals, len(masked))
    if wide is None:
        return ()
    contents = [
        np.array([ZERO if k in gone else FINITE for gone in masked], np.int8)
        for k in range(len(avals))
    ]
    steps = analyse(wide, contents)
    again: defaultdict[frozenset[int], list[np.ndarray]] = defaultdict(list)
    for branch in _branches(wide, len(leaves)):
        again[branch.leaves].append(steps.unchanged(branch.value, branch.start))
    # Several sums may lose the same leaves: then each of them must be unchanged.
    return tuple(
        gone
        for k, gone in enumerate(found)
        if len(again[gone]) == found[gone] and all(flags[k] for flags in again[gone])
    )


def _branches(block: Block, leaves: int) -> Iterator[_Branch]:
    """The sums `x + f(x)` whose branch alone reads some leaves, in the order of the program."""
    makers = {value: op for op in block.ops for value in op.outs}
    places = {value: k for k, value in enumerate(block.ins[:leaves])}

    def read(skipped: dict[Value, Value]) -> frozenset[int]:
        ends = {v for op in _needed(block, skipped) for v in op.ins} | set(block.outs)
        return frozenset(places[v] for v in ends if v in places)

    everything = read({})
    for op in block.ops:
        for value, start in _ways(op, makers):
            own = everything - read({value: start})
            if own:
                yield _Branch(value, start, own)


def _ways(op: Op, makers: dict[Value, Op]) -> Iterator[tuple[Value, Value]]:
    """The results of an operation, each with an operand that they may equal without a branch."""
    if op.name in CALLS:
        pairs = [(out, start) for out in op.outs for start in op.ins]
    elif op.name in SUMS:
        a, b = op.ins
        ways = ((a, b), (b, a))[: 1 if op.name == "sub" else 2]
        pairs = [
            (op.outs[0], x) for x, branch in ways if _depends(branch, _terms(x, makers), makers)
        ]
    else:
        return
    for value, start in pairs:
        if (value.shape, value.aval.dtype) == (start.shape, start.aval.dtype):
            yield value, start


def _terms(value: Value, makers: dict[Value, Op]) -> set[Value]:
    """The values of which `value` is the sum, and the partial sums."""
    found, todo = set(), [value]
    while todo:
        now = todo.pop()
        found.add(now)
        op = makers.get(now)
        if op is not None and op.name in ("transpose", *SUMS, *PASS):
            todo += [v for v in op.ins if v not in found and v.constant is None]
    return found


def _depends(value: Value, on: set[Value], makers: dict[Value, Op]) -> bool:
    """Whether `value` is computed from one of the values `on`."""
    seen, todo = {value}, [value]
    while todo:
        op = makers.get(todo.pop())
        for v in op.ins if op else ():
            if v in on:
                return True
            if v not in seen:
                seen.add(v)
                todo.append(v)
    return False


def _through(skipped: dict[Value, Value], value: Value) -> Value:
    while value in skipped:
        value = skipped[value]
    return value


def _needed(block: Block, skipped: dict[Value, Value]) -> list[Op]:
    """The operations that the results need if each value in `skipped` is replaced by another."""
    needed = {_through(skipped, v) for v in block.outs}
    left = []
    for op in reversed(block.ops):
        if needed.isdisjoint(op.outs):
            continue
        ins = tuple(_through(skipped, v) for v in op.ins)
        left.append(op if ins == op.ins else dataclasses.replace(op, ins=ins))
        needed.update(ins)
    return left[::-1]
