"""Fingerprints of everything that determines an experiment's numbers.

The fingerprint of a program covers its StableHLO and the bytes of every constant that it closes
over. A changed function, or a changed array inside one, therefore gives another fingerprint.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from lth_jax.data.datasets import fingerprint as data_fingerprint
from lth_jax.lottery.initial_states import Parents, control_arm, ticket_arm
from lth_jax.lottery.node_training import measure
from lth_jax.lottery.spec import Experiment, Identity, Ladder, Seeds
from lth_jax.population.segment import (
    Member,
    Trainer,
    init_member,
    init_record,
    optimizer_of,
    train_segment,
)
from lth_jax.population.task import Task
from lth_jax.store import content_key, environment, source_fingerprint
from lth_jax.store import fingerprint as array_fingerprint
from lth_jax.types import TICKET, Batch, Count, Key, Splits, TrainState

SOURCES = (
    "lth_jax.lottery",
    "lth_jax.population",
    "lth_jax.schema",
    "lth_jax.trees",
    "lth_jax.keys",
)
"""Modules whose host code affects numbers; the programs and the data cover all else."""

MEMBERS = 2  # of lowered programs; more than one, so that the rules of `custom_vmap` apply


def fingerprint(f: Callable[..., Any], *args: Any) -> str:
    """The SHA-256 of what a function computes from arguments of these shapes.

    It covers the StableHLO of the function on the default backend, the bytes of every constant that
    it closes over, and the names, shapes and dtypes of its arguments and results. It is the same in
    every process and for every source code that lowers to the same program.

    StableHLO alone is not enough: with `jax_use_simplified_jaxpr_constants` JAX 0.10 hoists
    constants above 32 bytes out of the text, and `jit` drops arguments that are not used.

    Args:
      f: a function that `jax.jit` takes.
      *args: pytrees of arrays or `jax.ShapeDtypeStruct`s; their values do not matter.

    Returns:
      64 hexadecimal digits.

    Raises:
      ValueError: the function calls back to Python (`jax.pure_callback`, `jax.io_callback`), whose
        code is not in the program. `jax.debug` is allowed.

    >>> x = jax.ShapeDtypeStruct((3,), "float32")
    >>> ones = fingerprint(lambda x: x + np.ones(3), x)
    >>> [fingerprint(lambda x: x + table, x) == ones for table in (np.ones(3), np.arange(3.0))]
    [True, False]
    """
    traced = jax.jit(f, keep_unused=True).trace(*args)
    lowered = traced.lower()
    closed = traced.jaxpr
    constants = [array_fingerprint(c) for c in _constants(closed.jaxpr, closed.consts)]
    text = hashlib.sha256(lowered.as_text(debug_info=False).encode()).hexdigest()
    return content_key([text, constants, _signature(args), _signature(lowered.out_info)])


def _signature(tree: Any) -> list[Any]:
    def one(leaf: Any) -> Any:
        leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        return [list(leaf.shape), str(leaf.dtype)]

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [[jax.tree_util.keystr(path), *one(leaf)] for path, leaf in leaves]


def _constants(jaxpr: jex.Jaxpr, consts: Iterable[Any]) -> Iterator[Any]:
    """All arrays that a jaxpr holds, in the order of its equations; scalars are in its text."""
    yield from consts
    for eqn in jaxpr.eqns:
        _check_on_device(eqn)
        yield from _literals(eqn.invars)
        for name in sorted(eqn.params):
            for inner in _jaxprs(eqn.params[name]):
                yield from _constants(*inner)
    yield from _literals(jaxpr.outvars)


def _literals(atoms: Iterable[Any]) -> Iterator[Any]:
    return (v.val for v in atoms if isinstance(v, jex.Literal) and np.ndim(v.val))


def _jaxprs(param: Any) -> Iterator[tuple[jex.Jaxpr, Iterable[Any]]]:
    if isinstance(param, jex.ClosedJaxpr):
        yield param.jaxpr, param.consts
    elif isinstance(param, jex.Jaxpr):
        yield param, ()
    elif isinstance(param, tuple | list):
        for part in param:
            yield from _jaxprs(part)


def _check_on_device(eqn: Any) -> None:
    callback = eqn.params.get("callback")
    if callback is None or eqn.primitive.name.startswith("debug"):
        return
    function = getattr(callback, "callback_func", callback)
    if not str(getattr(function, "__module__", "")).startswith(("jax.", "jaxlib.")):
        raise ValueError(
            f"`jax.{eqn.primitive.name}` calls {function!r} on the host, which the run's key "
            "cannot include; express it in JAX, or compute it beforehand and close over the result."
        )


def training_program(
    trainer: Trainer, data: Splits, hyper: Iterable[str], root: Key, count: Count = ()
) -> str:
    """The fingerprint of the initialisation, training and evaluation of members.

    Trainers with equal fingerprints share compiled programs: they differ only in `constants` and in
    the arrays of their members. Nothing is compiled here.

    Args:
      trainer: the static part of the training.
      data: train, validation and test, as arrays or shapes; their values do not matter.
      hyper: the names of the members' scalars.
      root: a key of the implementation that the members use.
      count: final count of a member with a method; only its structure matters.
    """

    def begin(key: Any, hyper: Any, example: Any) -> Any:
        member = init_member(trainer, key, key, hyper, example)
        if trainer.method is not None:
            # Members differ in its value, which is not part of the program.
            zeros = jax.tree.map(lambda k: jnp.zeros(jnp.shape(k), jnp.int32), count)
            member = member._replace(count=zeros)
            state = optimizer_of(trainer, member).init(member.params)
            member = member._replace(opt_state=state)
        return member, init_record(member)

    trains = functools.partial(train_segment, vectorize=jax.vmap)

    def segment(constants: Any, *args: Any) -> Any:
        return trains(trainer._replace(constants=constants), *args)

    def results(*args: Any) -> Any:
        return measure(trainer, *args)

    shapes = _shapes(data)
    example = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), shapes.train)
    scalars = {name: jax.ShapeDtypeStruct((MEMBERS,), "float32") for name in hyper}
    begins = jax.vmap(begin, in_axes=(0, 0, None)), (_keys(root), scalars, example.x)
    member, record = jax.eval_shape(begins[0], *begins[1])
    step = jax.ShapeDtypeStruct((), "int32")
    constants = jax.eval_shape(lambda: trainer.constants)
    trained = (constants, member, record, shapes.train, shapes.validation, step, step)
    measures = jax.vmap(results, in_axes=(0, 0, None)), (member, record, shapes)
    return content_key(
        {
            "begin": fingerprint(begins[0], *begins[1]),
            "train": fingerprint(segment, *trained),
            "measure": fingerprint(measures[0], *measures[1]),
        }
    )


def arms_programs(
    task: Task, ladder: Ladder, root: Key, level: int | None = None
) -> dict[str, str]:
    """The fingerprints of the programs that build tickets and controls, by arm.

    They cover the criterion, scope, granularity, rewinding, and the controls; the criterion's
    batches are arguments. Nothing is compiled. Empty for a ladder without levels.

    Args:
      task: the training task.
      ladder: the levels.
      root: a key of the implementation that the experiment uses.
      level: the level, if it has a method or keeps its mask; else None.
    """
    if not ladder.counts:
        return {}
    kept = level is not None and ladder.counts[level - 1] is None
    counts = [count for count in ladder.counts if count is not None]
    trainer, example = task.trainer, jax.tree.map(lambda a: a[:1], task.data.train.x)
    keys = _keys(root)
    scalars = {name: jax.ShapeDtypeStruct((MEMBERS,), "float32") for name in task.hyper}

    def begin(key: Any, hyper: Any) -> Member:
        return init_member(trainer, key, key, hyper, example)

    dense = jax.eval_shape(jax.vmap(begin), keys, scalars)
    point = TrainState(dense.params, dense.state, dense.opt_state)
    parents = Parents(dense.mask, dense.alive, point, dense.params, point, keys, {})
    count = jax.tree.map(np.int32, counts[0])
    own = trainer._replace(method=ladder.methods.get(level) if level else None)
    held = jax.tree.map(lambda k: jax.ShapeDtypeStruct((MEMBERS, *k.shape), k.dtype), count)
    with_count = dense._replace(count=held if own.method else ())

    def ticket(*args: Any) -> Any:
        return ticket_arm(own, ladder, kept, *args)

    def control(name: str) -> str:
        def arm(*args: Any) -> Member:
            return control_arm(own, ladder, name, *args)

        return fingerprint(jax.vmap(arm), dense.mask, point, with_count, dense, keys)

    batches = jax.eval_shape(lambda: ladder.batches)
    axes = (None, None, 0, 0)
    made = fingerprint(jax.vmap(ticket, in_axes=axes), batches, count, parents, dense)
    return {TICKET: made, **{name: control(name) for name in ladder.controls}}


def methods_programs(task: Task, ladder: Ladder, root: Key) -> dict[str, Any]:
    """The fingerprints of training and arms, for each level with a method or a kept mask.

    Nothing is compiled.

    Args:
      task: the training task.
      ladder: the levels.
      root: a key of the implementation that the experiment uses.

    Returns:
      `{level: {"arms": …, "training": …}}`, ordered by level; the levels are strings, as in JSON.
      `"arms"` is the result of `arms_programs` for the level; `"training"`, at levels with a method
      only, that of `training_program`. Empty if no level has a method or keeps its mask.

    Raises:
      ValueError: a function calls back to Python (see `fingerprint`).

    >>> import flax.linen as nn, optax
    >>> from lth_jax.lottery import Spec, make_ladder
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> ladder = make_ladder(task, Spec([0.5, None]))  # level 2 keeps the mask of level 1
    >>> found = methods_programs(task, ladder, jax.random.key(0))
    >>> [(level, list(one), list(one["arms"])) for level, one in found.items()]
    [('2', ['arms'], ['ticket'])]
    """

    def of(level: int) -> dict[str, Any]:
        found: dict[str, Any] = {"arms": arms_programs(task, ladder, root, level)}
        if level in ladder.methods:
            trainer = task.trainer._replace(method=ladder.methods[level])
            count = next(count for count in ladder.counts if count is not None)
            program = training_program(trainer, task.data, task.hyper, root, count)
            found["training"] = program
        return found

    levels = {i for i, count in enumerate(ladder.counts, start=1) if count is None}
    return {str(level): of(level) for level in sorted(levels | set(ladder.methods))}


def make_experiment(
    task: Task,
    seeds: Seeds,
    ladder: Ladder,
    *,
    data: str | None = None,
    constants: str | None = None,
    training: str | None = None,
    arms: Mapping[str, str] | None = None,
    methods: Mapping[str, Any] | None = None,
    batches: str | None = None,
) -> Experiment:
    """An experiment with its identity, computed by lowering its functions.

    Args:
      task: its training task.
      seeds: its seeds.
      ladder: its levels.
      data: the fingerprint of the data; computed from their bytes by default.
      constants: the fingerprint of the trainer's constants; computed by default.
      training: the result of `training_program`; computed by default.
      arms: the result of `arms_programs`; computed by default.
      methods: the result of `methods_programs`; computed by default.
      batches: the fingerprint of the ladder's batches; computed by default.

    Raises:
      ValueError: if a function calls back to Python (see `fingerprint`).
    """
    if training is None:
        training = training_program(task.trainer, task.data, task.hyper, seeds.root)
    return Experiment(
        task,
        seeds,
        ladder,
        Identity(
            training=training,
            arms=dict(arms_programs(task, ladder, seeds.root) if arms is None else arms),
            methods=dict(
                methods_programs(task, ladder, seeds.root) if methods is None else methods
            ),
            batches=array_fingerprint(ladder.batches) if batches is None else batches,
            data=data_fingerprint(*task.data) if data is None else data,
            constants=(
                array_fingerprint(task.trainer.constants) if constants is None else constants
            ),
            root=[str(jax.random.key_impl(seeds.root)), array_fingerprint(seeds.root)],
            numbers={name: np.float32(v).tobytes().hex() for name, v in task.hyper.items()},
            shared_order=seeds.shared_order,
            environment=circumstances(),
        ),
    )


def circumstances() -> dict[str, Any]:
    """The versions, devices, flags and host code that determine the numbers of a population.

    Programs, data and keys determine them, too, but are not included.

    Returns:
      Versions of the libraries, platform and kind of the devices, numeric flags of JAX and XLA, and
      the SHA-256 of the host code. The number of devices is not included: it is part of a plan.
    """
    found = environment()
    device = {name: found["device"][name] for name in ("platform", "kind")}
    return {**found, "device": device, "source": _source()}


@functools.cache
def _source() -> str:
    return source_fingerprint(*SOURCES)


def _keys(root: Key) -> Any:
    return jax.ShapeDtypeStruct((MEMBERS, *root.shape), root.dtype)


def _shapes(data: Splits) -> Splits:
    """The shapes of data on the host or on devices."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    return Splits(*(Batch(*(jax.tree.map(shape, part) for part in split)) for split in data))
