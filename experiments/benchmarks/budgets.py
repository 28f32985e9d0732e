"""Test accuracy at equal measured latency: units by `structure.fit` beside uniform and global ones.

    python -m experiments.benchmarks.budgets [--quick]

An MLP on MNIST-1D and a residual network on digits train from eight seeds. Each network loses units
until its measured latency, at batch 256 on JAX's default device, is at most a share of the dense
one's: by the same fraction of every group (`by_group`), and by one ranking of all units
(`across_groups`), with densities found by bisection. As shapes are discrete, these networks may be
faster than allowed; for each of them `fit` gets a budget of its measured milliseconds. The scores
are the same, |w ∂L/∂w| on training examples. Then all networks train further as one population, and
all latencies are measured again. Differences of accuracy have 95 % intervals over seeds.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.report import main
from lth_jax import data, trees
from lth_jax import structure as st
from lth_jax.analysis.ratios import Row, row
from lth_jax.lottery import structure_of
from lth_jax.measures.intervals import paired_difference
from lth_jax.models import NETWORKS
from lth_jax.population import Plan, Task, initial, measure, train
from lth_jax.pruning.criteria import snip
from lth_jax.pruning.scopes import Scope
from lth_jax.structure.latency import relative_latencies

BATCH, EXAMPLES = 256, 512
FIT = "fit"
OTHERS: dict[str, Callable[[st.Structure], Scope]] = {
    "uniform": st.by_group,
    "global": st.across_groups,
}
Units = dict[str, np.ndarray]


class Case(NamedTuple):
    """A network, its data set, and the latencies to which it shrinks, relative to the dense one."""

    network: str
    options: dict[str, Any]
    data: str
    shares: tuple[float, ...]


CASES = (
    Case("mlp", {"features": (512, 512, 256, 10)}, "mnist1d", (0.6,)),
    Case("resnet", {"blocks": (1, 1, 1), "width": 8}, "digits", (0.6,)),
)


def task(case: Case, steps: int, loaded: data.Dataset) -> Task:
    """Training with Adam."""
    return Task(
        NETWORKS[case.network](**case.options),
        loaded,
        optimizer=optax.adam(1e-3),
        batch_size=64,
        steps=steps,
        eval_every=steps,
    )


class Chooser(NamedTuple):
    """One trained network with scored units, and the latencies of its shapes."""

    found: st.Structure
    params: Any
    scores: dict[str, jax.Array]
    latency: st.Latency
    halvings: int

    def fit(self, share: float) -> Units:
        """The units that `fit` keeps."""
        budget = {"milliseconds": st.Share(share)}
        return st.fit(self.found, self.params, budget, self.scores, latency=self.latency)[0]

    def scoped(self, make: Callable[[st.Structure], Scope], share: float) -> Units:
        """The units of the largest density, by bisection, whose latency is at most the share."""
        scope, prunable = make(self.found), st.prunable(self.found)
        ranked = jnp.concatenate([self.scores[group.name] for group in self.found.groups])
        ends = np.cumsum([group.units for group in self.found.groups])[:-1]

        def at(density: float) -> Units:
            count = scope.counts(self.params, density, prunable=prunable)
            kept = scope.select(ranked, jnp.ones(len(ranked), bool), count, prunable=True)
            parts = np.split(np.asarray(kept), ends)
            return {group.name: kept for group, kept in zip(self.found.groups, parts, strict=True)}

        low, high = 0.01, 1.0
        for _ in range(self.halvings):
            middle = (low + high) / 2
            fits = self.latency.of(counted(at(middle))) <= share * self.latency.dense
            low, high = (middle, high) if fits else (low, middle)
        return at(low)


def counted(units: Units) -> dict[str, int]:
    """The number of kept units of each group."""
    return {name: int(kept.sum()) for name, kept in units.items()}


def scored(own: Task, found: st.Structure, params: Any, state: Any) -> dict[str, jax.Array]:
    """|w ∂L/∂w| on training examples, summed over units."""
    x, y = (part[:EXAMPLES] for part in own.data.train)

    def loss(params: Any, batch: Any) -> jax.Array:
        logits, _ = own.trainer.model.apply(params, state, batch[0], train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    mask = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    return st.score_units(found, snip(loss)(params, mask, batches=[(x, y)]))


def measured(case: Case, quick: bool) -> Iterator[Row]:
    """A row for each latency and alternative."""
    seeds, steps, halvings = (2, 30, 2) if quick else (8, 1000, 5)
    loaded = data.load(case.data, data_dir="runs/data", seed=0, validation=200)
    own, tuned = task(case, steps, loaded), task(case, max(steps // 5, 1), loaded)
    dense, _ = train(own, initial(own, seeds), plan=Plan(seeds))
    before = 100 * measure(own, dense)["accuracy"].mean()
    found = structure_of(own)
    x = jnp.asarray(own.data.train.x[:BATCH])
    params, timing = trees.index(dense.params, 0), {"repeats": 10, "copies": 1 if quick else 2}
    latency = st.measure_latency(found, params, x, **timing)
    choosers = [
        Chooser(found, one.params, scored(own, found, one.params, one.state), latency, halvings)
        for one in (trees.index(dense, i) for i in range(seeds))
    ]
    whole = {group.name: group.units for group in found.groups}

    def times_of(units: dict[str, Units]) -> dict[str, float]:
        shapes = {name: counted(kept) for name, kept in units.items()}
        return relative_latencies(found, params, (x,), {"dense": whole, **shapes}, **timing)

    for share in case.shares:
        chosen = []
        for one in choosers:
            units = {name: one.scoped(make, share) for name, make in OTHERS.items()}
            reached = times_of(units)
            chosen.append(units | {f"{FIT} as {name}": one.fit(reached[name]) for name in OTHERS})
        times = [times_of(units) for units in chosen]
        accuracy = finetuned(tuned, dense, found, chosen)
        for other in OTHERS:
            yield compared(case, share, other, accuracy, times, before)


def finetuned(
    task: Task, dense: Any, found: st.Structure, chosen: list[dict[str, Units]]
) -> dict[str, np.ndarray]:
    """The test accuracies of all networks in percent, by way, after further training."""
    names, seeds = list(chosen[0]), len(chosen)
    masks = trees.stack([st.expand(found, units[name]) for name in names for units in chosen])
    every = jax.tree.map(
        lambda leaf: jnp.concatenate([leaf] * len(names)), (dense.params, dense.state)
    )
    # Networks of one seed see the same batches.
    keys = jnp.concatenate([jax.random.split(jax.random.key(1), seeds)] * len(names))
    members = initial(task, keys, masks=masks, params=every[0])._replace(state=every[1])
    trained, _ = train(task, members, plan=Plan(len(keys)))
    return dict(
        zip(names, 100 * measure(task, trained)["accuracy"].reshape(-1, seeds), strict=True)
    )


def compared(
    case: Case,
    share: float,
    other: str,
    accuracy: dict[str, np.ndarray],
    times: list[dict[str, float]],
    dense: float,
) -> Row:
    """`fit` beside an alternative."""
    fit = f"{FIT} as {other}"
    ours, theirs = accuracy[fit].tolist(), accuracy[other].tolist()
    gain = paired_difference(ours, theirs)
    latency = {way: float(np.median([one[way] for one in times])) for way in (fit, other)}
    return row(
        f"{case.network} on {case.data}, accuracy at the latency of {other} ({share:g}), %",
        float(np.mean(ours)),
        {other: float(np.mean(theirs))},
        pairs=[a / b for a, b in zip(ours, theirs, strict=True)],
        most=False,
        reason=f"difference {gain.estimate:.2f} [{gain.low:.2f}, {gain.high:.2f}] points, "
        f"latencies {latency[fit]:.3f} and {latency[other]:.3f}",
        difference=[gain.estimate, gain.low, gain.high],
        latency=latency,
        dense=float(dense),
    )


def measure_all(options: argparse.Namespace) -> Iterator[Row]:
    for case in CASES[: 1 if options.quick else None]:
        yield from measured(case, options.quick)


if __name__ == "__main__":
    main("budgets", __doc__, measure_all)
