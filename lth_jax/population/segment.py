"""Training of one member: a step, a segment of steps with validation, and evaluation.

Functions take a single member; `placement.map_members` vectorises them. A step returns `(state,
info)`: the state is carried, the info is logged.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lth_jax import keys, text, trees
from lth_jax.population.losses import PerExample
from lth_jax.pruning.events import guarded
from lth_jax.pruning.masks import apply_mask
from lth_jax.pruning.methods import Inputs, Method
from lth_jax.pruning.transforms import masked
from lth_jax.types import Batch, Count, Info, Key, Mask, Model, Params

MakeModel = Callable[[Mapping[str, Any]], Model]
MakeOptimizer = Callable[[Mapping[str, Any]], optax.GradientTransformationExtraArgs]
Order = Callable[[Key, Any, int], jax.Array]
Constants: TypeAlias = Any
"""A pytree of arrays that `Trainer.transform_batch` reads, usually a dictionary of names."""

TransformBatch = Callable[[Key, Batch, jax.Array, "Member", Constants], Batch]
EvalMember = Callable[["Member", Batch], "Member"]


class Member(NamedTuple):
    """One network of a population; in a population every leaf has the member axis first.

    Attributes:
      params: parameters, exactly 0 where `mask` is False.
      state: the model's state that is not trained (BatchNorm statistics).
      opt_state: the optimizer's state.
      mask: boolean leaves like `params`, True = kept; with a method that changes its mask, the
        initial one.
      init_key: the key of its initialisation, threefry2x32.
      data_key: the key of data order, dropout and augmentation, threefry2x32.
      count: the final number of weights for `Trainer.method`; `()` without a method.
      hyper: scalars that may differ between members. `learning_rate` is the peak; `schedule_offset`
        and `data_offset` are added to the step for the learning-rate schedule and the data order;
        `replicate` is the index of its seed; further ones are for the optimizer, the model or
        `transform_batch`.
      alive: False once its loss was not finite; parameters and state then no longer change.
    """

    params: Params
    state: Any
    opt_state: Any
    mask: Mask
    init_key: Key
    data_key: Key
    hyper: Mapping[str, Any]
    alive: jax.Array
    count: Count = ()

    def __repr__(self) -> str:
        shape = getattr(self.alive, "shape", ())
        return f"Member({shape[0]} members)" if shape else "Member(one)"


@text.with_short_repr
class Record(NamedTuple):
    """Best validation result and divergence of a member.

    Attributes:
      best_loss: the smallest validation loss so far, float32.
      best_step: the step of that loss (the early-stop step), int32.
      best_params: the parameters there.
      best_state: the model state there.
      diverged_at: the first step whose loss was not finite, int32; -1 if there is none.
    """

    best_loss: jax.Array
    best_step: jax.Array
    best_params: Params
    best_state: Any
    diverged_at: jax.Array


class Block(NamedTuple):
    """Some examples of a data set on the host; see `streaming`.

    Attributes:
      rows: their indices, int32, ascending.
      examples: the examples.
    """

    rows: jax.Array
    examples: Batch


def take(
    key: Key, data: Batch | Block, rows: jax.Array, member: Member, constants: Constants
) -> Batch:
    """The examples `rows` of a data set in one batch; the default `Trainer.transform_batch`."""
    del key, member, constants
    if isinstance(data, Block):
        rows = jnp.searchsorted(data.rows, rows, method="scan_unrolled")
        data = data.examples
    examples: Batch = trees.index(data, rows)
    return examples


def unchanged(member: Member, train: Batch) -> Member:
    """The member itself; the default `Trainer.eval_member`."""
    del train
    return member


@text.with_short_repr
class Trainer(NamedTuple):
    """Everything that the members of a population have in common; static except for `constants`.

    Compiled programs take `constants` as an argument, so trainers that differ only in them share
    programs.

    Attributes:
      model: the network.
      make_optimizer: `hyper -> optax transformation`, called inside the trace, so that
        hyperparameters may be traced. `optimizer_of` adds the mask.
      loss: per-example training loss `(outputs, targets) -> (n,)`.
      metrics: per-example metrics by name, evaluated on validation and test data; must contain
        `"loss"`, which determines the early-stop step.
      schedule: `step -> factor` on the peak learning rate (an optax schedule of peak 1).
      order: `(key, step, n) -> int32[n, batch]`: the indices of the training examples in the
        batches of steps step … step+n−1; a pure function of key and step, so resuming needs only
        the step.
      eval_every: the evaluation interval in steps, which is the longest segment.
      eval_batch_size: evaluation runs over at most this many examples at once.
      train_eval_examples: if above 0, results on training data are those of the first examples, at
        most this many; if 0, of all.
      transform_batch: `(key, data, rows, member, constants) -> batch`: makes a training batch from
        rows of a data set; see `augment`. `take` selects the rows, from resident data or a `Block`.
      objective: the loss minimised on transformed batches; `loss` by default. Criteria and
        curvature use `loss` on untransformed data.
      examples_per_replicate: if above 0, each replicate trains on its own share of this many
        consecutive training examples, and `order` draws from that number; if 0, on all.
      eval_member: `(member, training data) -> member` that is validated, tested, stored and pruned
        instead, for example with mean weights.
      make_model: `hyper -> model` for training, called inside the trace, for example with a traced
        dropout rate; `model` by default.
      method: the sparse training method (`lth_jax.pruning.methods`); None for a fixed mask.
      constants: arrays for `transform_batch`, such as teachers' logits.
    """

    model: Model
    make_optimizer: MakeOptimizer
    loss: PerExample
    metrics: dict[str, PerExample]
    schedule: Callable[[Any], Any]
    order: Order
    eval_every: int
    eval_batch_size: int = 256
    train_eval_examples: int = 0
    transform_batch: TransformBatch = take
    objective: PerExample | None = None
    examples_per_replicate: int = 0
    eval_member: EvalMember = unchanged
    make_model: MakeModel | None = None
    method: Method | None = None
    constants: Constants = ()


def optimizer_of(trainer: Trainer, member: Member, hyper: Mapping[str, Any] | None = None) -> Any:
    """A member's optimizer under its mask or the trainer's method.

    Args:
      trainer: the static part.
      member: one member; its mask, count and data key are read.
      hyper: replaces the hyperparameters of the member.
    """
    inner = trainer.make_optimizer(member.hyper if hyper is None else hyper)
    if trainer.method is None:
        return masked(inner)
    key = keys.stream(member.data_key, "method")
    return trainer.method.transform(inner, Inputs(member.mask, member.count, key))


def init_member(
    trainer: Trainer,
    init_key: Key,
    data_key: Key,
    hyper: Mapping[str, Any],
    example: Any,
    replicate: Any = 0,
) -> Member:
    """A dense member at step 0: parameters drawn from `init_key`, a mask of all True.

    Args:
      trainer: the static part.
      init_key: a typed key for the initial parameters only.
      data_key: a typed key for data order, dropout and augmentation only.
      hyper: the member's scalars; must contain `learning_rate`.
      example: inputs of any batch size, for their shape.
      replicate: the index of its seed, int32.

    Returns:
      The member, without a member axis; `schedule_offset` and `data_offset` are 0.

    Raises:
      TypeError: if a key is not a typed key.

    >>> import flax.linen as nn, numpy as np
    >>> from lth_jax.population.task import Task
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> init_key, data_key = jax.random.split(jax.random.key(0))
    >>> member = init_member(task.trainer, init_key, data_key, task.hyper, task.example)
    >>> member.params["kernel"].shape, bool(member.mask["kernel"].all()), sorted(member.hyper)
    ((4, 2), True, ['data_offset', 'learning_rate', 'replicate', 'schedule_offset'])
    """
    # Other key implementations draw other numbers under vmap than for a single member.
    init_key = keys.as_threefry(init_key, "init_key")
    data_key = keys.as_threefry(data_key, "data_key")
    params, state = trainer.model.init(init_key, example)
    mask = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    offsets = {
        "schedule_offset": jnp.int32(0),
        "data_offset": jnp.int32(0),
        "replicate": jnp.asarray(replicate, jnp.int32),
    }
    return Member(
        params=params,
        state=state,
        opt_state=masked(trainer.make_optimizer(hyper)).init(params),
        mask=mask,
        init_key=init_key,
        data_key=data_key,
        hyper=offsets | {name: jnp.asarray(value) for name, value in hyper.items()},
        alive=jnp.array(True),
    )


def init_record(member: Member) -> Record:
    """The record of a member before training.

    Args:
      member: one member, no member axis.

    Returns:
      The record: `best_loss` inf, `best_step` and `diverged_at` −1, and copies of the member's
      parameters and state.

    >>> key, params = jax.random.key(0), {"w": jnp.ones(2)}
    >>> mask, alive = {"w": jnp.ones(2, bool)}, jnp.array(True)
    >>> record = init_record(Member(params, {}, (), mask, key, key, {}, alive))
    >>> float(record.best_loss), int(record.best_step), record.best_params["w"].tolist()
    (inf, -1, [1.0, 1.0])
    """
    return Record(
        best_loss=jnp.float32(jnp.inf),
        best_step=jnp.int32(-1),
        best_params=jax.tree.map(jnp.copy, member.params),  # separate buffers: both are donated
        best_state=jax.tree.map(jnp.copy, member.state),
        diverged_at=jnp.int32(-1),
    )


init_records = jax.jit(jax.vmap(init_record))


def train_step(trainer: Trainer, member: Member, batch: Batch, step: Any) -> tuple[Member, Info]:
    """One optimizer step on one batch; a member whose loss is not finite no longer changes.

    The gradient is taken at the masked parameters and masked by the optimizer, so pruned weights
    and their optimizer slots are exactly 0.

    Args:
      trainer: the static part.
      member: one member, no member axis.
      batch: `(batch, ...)` inputs and targets.
      step: int32 scalar, may be traced; the same for all members of a population.

    Returns:
      The member after the step and `{"train_loss": float32}` (of the batch, before the step).
    """
    noise = jax.random.fold_in(keys.stream(member.data_key, "noise"), step)

    per_example = trainer.objective or trainer.loss
    model = trainer.make_model(member.hyper) if trainer.make_model else trainer.model

    used = member.params
    if trainer.method is not None:
        used = trainer.method.effective(used, member.opt_state)

    def mean_loss(params: Params) -> tuple[jax.Array, Any]:
        out, state = model.apply(params, member.state, batch.x, key=noise, train=True)
        return jnp.mean(per_example(out, batch.y)), state

    (loss, state), grads = jax.value_and_grad(mean_loss, has_aux=True)(used)
    alive = member.alive & jnp.isfinite(loss)
    factor = jnp.asarray(trainer.schedule(step + member.hyper["schedule_offset"]), jnp.float32)
    hyper = {**member.hyper, "learning_rate": member.hyper["learning_rate"] * factor}
    # The state of a method holds its own mask and step.
    given = {"mask": member.mask, "step": step} if trainer.method is None else {}

    def updated(before: Any, member: Member, hyper: Any, grads: Any, state: Any, given: Any) -> Any:
        params, _, opt_state = before
        optimizer = optimizer_of(trainer, member, hyper)
        updates, opt_state = optimizer.update(grads, opt_state, params, **given)
        return optax.apply_updates(params, updates), state, opt_state

    before = (member.params, member.state, member.opt_state)
    params, state, opt_state = guarded(alive, updated, before, member, hyper, grads, state, given)
    member = member._replace(params=params, state=state, opt_state=opt_state, alive=alive)
    return member, {"train_loss": loss}


def evaluate(trainer: Trainer, params: Params, state: Any, data: Batch) -> Info:
    """Means of all metrics over a data set, in blocks of `trainer.eval_batch_size` examples.

    Args:
      trainer: the static part.
      params: the parameters of one member.
      state: its model state.
      data: inputs and targets; every leaf has the examples first.

    Returns:
      `{metric: float32}`; NaN without examples.

    >>> import flax.linen as nn, numpy as np
    >>> from lth_jax.population.task import Task
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> params = {"bias": jnp.zeros(2), "kernel": jnp.zeros((4, 2))}
    >>> four = Batch(jnp.zeros((4, 4)), jnp.array([0, 0, 0, 1]))
    >>> means = evaluate(task.trainer, params, {}, four)
    >>> f"{means['loss']:.3f}", float(means["accuracy"])  # ln 2, and three of four
    ('0.693', 0.75)
    """
    n = len(jax.tree.leaves(data)[0])
    if n == 0:
        return dict.fromkeys(trainer.metrics, jnp.float32(jnp.nan))
    block = min(trainer.eval_batch_size, n)
    whole = n - n % block

    def sums(part: Batch) -> Info:
        return metric_sums(trainer, params, state, part)

    head = jax.tree.map(lambda a: a[:whole].reshape(-1, block, *a.shape[1:]), data)
    total = jax.tree.map(lambda s: jnp.sum(s, axis=0), lax.map(sums, head))
    if whole < n:
        total = jax.tree.map(jnp.add, total, sums(jax.tree.map(lambda a: a[whole:], data)))
    return {name: value / n for name, value in total.items()}


def metric_sums(trainer: Trainer, params: Params, state: Any, part: Batch) -> Info:
    """The sums of all metrics over some examples: `{metric: float32}`."""
    out, _ = trainer.model.apply(params, state, part.x, train=False)
    return {name: jnp.sum(f(out, part.y)) for name, f in trainer.metrics.items()}


def evaluated_member(trainer: Trainer, member: Member, train: Batch) -> Member:
    """The member that is evaluated and stored.

    `Trainer.method` gives its final parameters and mask; `Trainer.eval_member` is then applied with
    the training examples of its replicate.
    """
    if trainer.method is not None:
        params, mask = trainer.method.final(member.params, member.opt_state)
        member = member._replace(params=params, mask=mask)
    return trainer.eval_member(member, own_share(trainer, member, train))


def observe(
    trainer: Trainer, member: Member, record: Record, validation: Batch, step: Any
) -> tuple[Record, Info]:
    """Validates a member after `step` steps and updates its best parameters.

    Returns:
      `(record, {"validation_<metric>": float32})`; metrics of a diverged member are NaN.
    """
    metrics = evaluate(trainer, member.params, member.state, validation)
    better = member.alive & (metrics["loss"] < record.best_loss)
    best = (metrics["loss"], jnp.asarray(step, jnp.int32), member.params, member.state)
    kept = (record.best_loss, record.best_step, record.best_params, record.best_state)
    loss, at, params, model_state = trees.where(better, best, kept)
    record = Record(loss, at, params, model_state, record.diverged_at)
    info = {f"validation_{name}": value for name, value in metrics.items()}
    return record, {k: jnp.where(member.alive, v, jnp.nan) for k, v in info.items()}


def record_divergence(record: Record, losses: jax.Array, step: Any) -> Record:
    """Records the first step whose loss was not finite, unless one is recorded already."""
    bad = ~jnp.isfinite(losses)
    first = jnp.asarray(step, jnp.int32) + jnp.argmax(bad).astype(jnp.int32)
    fresh = jnp.any(bad) & (record.diverged_at < 0)
    return record._replace(diverged_at=jnp.where(fresh, first, record.diverged_at))


def one_member(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, for arguments without a member axis; in place of `jax.vmap`."""
    return f


def train_segment(
    trainer: Trainer,
    member: Member,
    record: Record,
    train: Batch,
    validation: Batch,
    step: Any,
    n: Any,
    vectorize: Callable[[Callable[..., Any]], Callable[..., Any]] = one_member,
) -> tuple[Member, Record, Info]:
    """Trains one member, or a population, for `n` steps from `step` and validates it once.

    One loop in one program; pruning, checkpoints and logging happen between segments. `step` and
    `n` are shared by all members. Both may be traced, so that one program serves segments of any
    length.

    Args:
      trainer: the static part.
      member: one member, or members with the member axis first.
      record: its record.
      train: training data, or a block with the examples of the segment.
      validation: validation data.
      step: the current step of the member, int32.
      n: steps to train, int32, 1 … `trainer.eval_every`.
      vectorize: `jax.vmap` for members with a member axis. It is applied to the body of the loop,
        which is then traced once; `jax.vmap` of the loop would trace it again for each part of the
        state that comes to differ between members.

    Returns:
      `(member, record, info)`; info holds the segment's mean `train_loss` and the validation
      metrics after its last step.
    """

    def first_rows(member: Member) -> jax.Array:
        return batch_rows(trainer, member, step)

    def end(member: Member, record: Record, losses: jax.Array) -> tuple[Member, Record, Info]:
        return close_segment(trainer, member, record, losses, train, validation, step, n)

    rows = vectorize(first_rows)(member)

    def body(i: Any, carry: tuple[Member, jax.Array]) -> tuple[Member, jax.Array]:
        def one(member: Member, losses: jax.Array, rows: jax.Array) -> tuple[Member, jax.Array]:
            batch = training_batch(trainer, member, train, rows[i], step + i)
            member, info = train_step(trainer, member, batch, step + i)
            return member, losses.at[i].set(info["train_loss"])

        trained: tuple[Member, jax.Array] = vectorize(one)(*carry, rows)
        return trained

    losses = jnp.zeros(rows.shape[:-1], jnp.float32)
    member, losses = lax.fori_loop(jnp.int32(0), n, body, (member, losses))
    closed: tuple[Member, Record, Info] = vectorize(end)(member, record, losses)
    return closed


def training_batch(
    trainer: Trainer, member: Member, data: Batch, rows: jax.Array, step: Any
) -> Batch:
    """The member's training batch at a step, from rows of a data set."""
    key = jax.random.fold_in(keys.stream(member.data_key, "shown"), step)
    return trainer.transform_batch(key, data, rows, member, trainer.constants)


def batch_rows(trainer: Trainer, member: Member, step: Any) -> jax.Array:
    """The example indices of the segment that begins at `step`: int32[steps, batch]."""
    return rows_of(trainer, member.data_key, member.hyper, step)


def rows_of(trainer: Trainer, data_key: Key, hyper: Mapping[str, Any], step: Any) -> jax.Array:
    """`batch_rows` for a data key and the hyperparameters `data_offset` and `replicate`."""
    rows = trainer.order(
        keys.stream(data_key, "order"), step + hyper["data_offset"], trainer.eval_every
    )
    array: jax.Array = rows + hyper["replicate"] * trainer.examples_per_replicate
    return array


def own_share(trainer: Trainer, member: Member, data: Batch) -> Batch:
    """The training examples of the member: its share, or all."""
    if not trainer.examples_per_replicate:
        return data
    first = member.hyper["replicate"] * trainer.examples_per_replicate
    batch: Batch = jax.tree.map(
        lambda a: lax.dynamic_slice_in_dim(a, first, trainer.examples_per_replicate), data
    )
    return batch


def training_sample(trainer: Trainer, data: Batch) -> Batch:
    """The training examples on which results are computed: the first ones, or all."""
    if not trainer.train_eval_examples:
        return data
    batch: Batch = jax.tree.map(lambda leaf: leaf[: trainer.train_eval_examples], data)
    return batch


def close_segment(
    trainer: Trainer,
    member: Member,
    record: Record,
    losses: jax.Array,
    train: Batch,
    validation: Batch,
    step: Any,
    n: Any,
) -> tuple[Member, Record, Info]:
    """Validates at the end of a segment of `n` steps; `losses` are 0 beyond its last step."""
    record = record_divergence(record, losses, step)
    record, info = observe(
        trainer, evaluated_member(trainer, member, train), record, validation, step + n
    )
    return member, record, info | {"train_loss": jnp.sum(losses) / jnp.asarray(n, jnp.float32)}


def masked_start(member: Member) -> Member:
    """The member with masked parameters."""
    return member._replace(params=apply_mask(member.mask, member.params))
