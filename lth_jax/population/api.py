"""Populations of members that differ in seeds, masks or hyperparameters, trained together."""

import numbers
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import keys as key_streams
from lth_jax import trees
from lth_jax.data.checks import check_integer
from lth_jax.legal import shown
from lth_jax.population.placement import Plan
from lth_jax.population.planning import AUTO, plan_for_level
from lth_jax.population.segment import Member, evaluate, evaluated_member, init_member
from lth_jax.population.task import Task
from lth_jax.population.train_chunks import OnSegment, Segment, compile_segment, train_population
from lth_jax.pruning.checks import check_mask
from lth_jax.pruning.masks import apply_mask
from lth_jax.pruning.transforms import mask_slots, masked
from lth_jax.types import Info, Key, Mask, Params

OFFSETS = ("schedule_offset", "data_offset", "replicate")
"""The hyperparameters that every member has; see `segment.Member`."""


def initial(
    task: Task,
    keys: Key | int,
    *,
    hyper: Mapping[str, Any] | None = None,
    masks: Mask | None = None,
    params: Params | None = None,
    data_keys: Key | None = None,
) -> Member:
    """Initialises the members of a population.

    Args:
      task: network, data and training.
      keys: `[n]` typed keys, one per member, for initial weights and data order; or n, for keys
        derived from seed 0.
      hyper: hyperparameters that replace those of the task, `{name: [n]}` or scalars; finite.
      masks: a tree like the parameters with boolean leaves, one mask for all, or stacked, `[n, …]`.
        Initial weights are 0 where the mask is False.
      params: initial weights, one tree for all, or stacked; drawn from `keys` by default.
      data_keys: `[n]` keys for data order, dropout and augmentation; derived from `keys` by
        default. Members with equal keys get the same batches.

    Returns:
      The members; every leaf has the member axis first.

    Raises:
      TypeError, ValueError: an argument has the wrong type, structure or length, or a number is
        not finite.

    >>> import flax.linen as nn, optax
    >>> data = (np.zeros((40, 4)), np.arange(40) % 2)
    >>> task = Task(
    ...     nn.Dense(2),
    ...     data,
    ...     optimizer=lambda h: optax.sgd(h["learning_rate"]),
    ...     batch_size=4,
    ...     steps=20,
    ... )
    >>> members = initial(task, 3, hyper={"learning_rate": [0.1, 0.2, 0.3]})
    >>> members.params["kernel"].shape
    (3, 4, 2)
    """
    task.check()
    roots = _member_keys(keys)
    n, hyper = len(roots), {} if hyper is None else hyper
    _check_hyper(task, hyper)
    scalars = {name: _scalars(name, value, n) for name, value in {**task.hyper, **hyper}.items()}
    drawn = jax.vmap(lambda key: key_streams.stream(key, "init"))(roots)
    own = data_keys
    if own is None:
        own = jax.vmap(lambda key: key_streams.stream(key, "data"))(roots)
    key_streams.check_key(own, "data_keys")
    if own.shape != (n,):
        raise ValueError(f"`data_keys` has shape {own.shape}; it must be ({n},), like `keys`.")

    def begin(key: Key, data_key: Key, hyper: Mapping[str, Any]) -> Member:
        return init_member(task.trainer, key, data_key, hyper, task.example)

    begun = task.program("initial", lambda: jax.jit(jax.vmap(begin)))
    members: Member = begun(drawn, own, scalars)
    if params is not None:
        own_params = _stacked("params", params, members.params, n)
        _check_dtypes(own_params, members.params)
        members = members._replace(params=own_params)
    if masks is None:
        return members
    stacked = _stacked("masks", masks, members.params, n)
    check_mask(trees.index(stacked, 0), trees.index(members.params, 0))

    def under(member: Member, mask: Mask) -> Member:
        optimizer = masked(task.trainer.make_optimizer(member.hyper))
        params = apply_mask(mask, member.params)
        slots = mask_slots(optimizer, optimizer.init(params), mask)
        return member._replace(mask=mask, params=params, opt_state=slots)

    masked_members: Member = task.program("masked", lambda: jax.jit(jax.vmap(under)))(
        members, stacked
    )
    return masked_members


def train(
    task: Task,
    members: Member,
    *,
    steps: int | None = None,
    start: int = 0,
    plan: Plan | str = AUTO,
    on_segment: OnSegment | None = None,
) -> tuple[Member, Info]:
    """Trains a population under one compiled program.

    Args:
      task: network, data and training.
      members: from `initial`, or from an earlier call that ended at step `start`.
      steps: the step to train to; the task's by default.
      start: the current step of the members.
      plan: a `Plan`, or `"auto"` to measure candidates on the members.
      on_segment: called as `(step, members, records, info)` after each evaluation interval. Chunks
        train one after the other: first `plan.chunk` members to their last step, then the next.

    Returns:
      `(members, history)`. History holds `"step"`, int32 `[E]`, and `"train_loss"` and
      `"validation_<metric>"`, float32 `[E, n]`, NaN from where a member diverged.

    Raises:
      TypeError, ValueError: the plan is invalid, the steps are out of range, or the members do not
        fit the task's network.

    >>> import flax.linen as nn, optax
    >>> data = (np.zeros((40, 4)), np.arange(40) % 2)
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> members, history = train(task, initial(task, 3), plan=Plan(3))
    >>> history["validation_loss"].shape
    (20, 3)
    """
    task.check()
    stop, n = task.steps if steps is None else steps, _population_size(task, members)
    check_integer("steps", stop, 1)
    check_integer("start", start, 0, stop - 1)
    train_data, validation = task.data.train, task.data.validation
    given = n, task.trainer, lambda: members, train_data, validation

    def segment(plan: Plan) -> Segment:
        made: Segment = task.program(plan, lambda: compile_segment(task.trainer, plan))
        return made

    def measured() -> Plan:
        return plan_for_level(plan, *given, steps=stop - start, segments=segment)

    chosen = task.program((AUTO, n, stop - start), measured) if plan == AUTO else measured()
    trained, _, history = train_population(
        task.trainer,
        members,
        train_data,
        validation,
        plan=chosen,
        segment=segment(chosen),
        stop=stop,
        start=start,
        on_segment=on_segment,
    )
    return trained, history


def measure(task: Task, members: Member) -> dict[str, np.ndarray]:
    """Evaluates all metrics of members on the test data.

    Args:
      task: network and data.
      members: from `initial` or `train`.

    Returns:
      `{metric: float32[n]}`.

    Raises:
      TypeError, ValueError: the members do not fit the task's network.

    >>> import flax.linen as nn, optax
    >>> data = (np.zeros((40, 4)), np.arange(40) % 2)
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> measure(task, initial(task, 3))["accuracy"].shape
    (3,)
    """
    _population_size(task, members)

    def one(member: Member) -> Info:
        seen = evaluated_member(task.trainer, member, task.data.train)
        return evaluate(task.trainer, seen.params, seen.state, task.data.test)

    over_members = task.program("measure", lambda: jax.jit(lambda m: jax.lax.map(one, m)))
    return {name: np.asarray(value) for name, value in over_members(members).items()}


def _member_keys(keys: Any) -> Any:
    """One key per member: those given, or that number of keys from seed 0."""
    if isinstance(keys, numbers.Number):
        check_integer("keys", keys, 1)
        return jax.random.split(key_streams.from_seed(0), int(keys))  # type: ignore[call-overload]
    key_streams.check_key(keys, "keys")
    if keys.ndim != 1 or not len(keys):
        raise ValueError(f"`keys` has shape {keys.shape}; one key for each of n members is needed.")
    return keys


def _check_dtypes(params: Params, like: Params) -> None:
    for name, a, b in zip(
        trees.names(params), jax.tree.leaves(params), jax.tree.leaves(like), strict=True
    ):
        if a.dtype != b.dtype:
            raise TypeError(f"`params` at '{name}' has dtype {a.dtype}; it must have {b.dtype}.")


def _population_size(task: Task, members: Member) -> int:
    """The number of members; raises unless they fit the task's network."""
    if not isinstance(members, Member):
        raise TypeError(
            f"`members` is a {type(members).__name__}; it must be a population, as from `initial`."
        )
    if not jnp.ndim(members.alive):
        raise ValueError("`members` is one member; it must be a population, as from `initial`.")
    n = len(members.alive)
    like = jax.tree.map(lambda p: jax.ShapeDtypeStruct((n, *p.shape), p.dtype), task.shapes[0])
    trees.check_same_structure("members.params", members.params, "params of the task", like)
    return n


def _check_hyper(task: Task, hyper: Mapping[str, Any]) -> None:
    """Raises unless `hyper` is a mapping of hyperparameters that the task has."""
    if not isinstance(hyper, Mapping):
        raise TypeError(
            f"`hyper` is {shown(hyper)}; it must be a mapping of names to numbers, such as "
            "`{'learning_rate': [0.1, 0.2]}`."
        )
    unknown = [name for name in hyper if name not in {*task.hyper, *OFFSETS}]
    if unknown:
        raise ValueError(
            f"`hyper` includes {unknown[0]!r}; the task has {', '.join(task.hyper)}; add further "
            "names to the task's `hyper`."
        )
    task.check_rate(hyper)


def _scalars(name: str, value: Any, n: int) -> jax.Array:
    whole = name in OFFSETS
    try:
        kind = jnp.result_type(*jax.tree.leaves(value), jnp.bool_)  # raises for text
        if jnp.issubdtype(kind, jnp.complexfloating):
            raise TypeError("complex")
        with np.errstate(over="ignore"):
            given = jnp.asarray(value, jnp.float32)
        array = jnp.asarray(value, jnp.int32) if whole else given
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"`hyper[{name!r}]` is {shown(value)}; it must hold "
            f"{'integers that fit into int32' if whole else 'numbers'}."
        ) from None
    if not isinstance(given, jax.core.Tracer) and not np.isfinite(given).all():
        raise ValueError(f"`hyper[{name!r}]` is {shown(value)}; its numbers must be finite.")
    if array.shape not in ((), (n,)):
        raise ValueError(
            f"`hyper[{name!r}]` has shape {array.shape}; it must be a scalar or have one entry for "
            f"each of the {n} members."
        )
    return jnp.broadcast_to(array, (n,))


def _stacked(name: str, tree: Any, like: Any, n: int) -> Any:
    """A stacked tree: the given one, or one for all members broadcast."""
    one = trees.index(like, 0)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    if shapes == [leaf.shape for leaf in jax.tree.leaves(one)]:
        tree = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n, *jnp.shape(leaf))), tree)
    trees.check_same_structure(name, tree, "params of all members", like)
    return jax.tree.map(jnp.asarray, tree)
