"""Every architecture of `keras.applications` with and without a third of its units.

    pip install -e ".[keras]"
    python -m experiments.benchmarks.keras_zoo [--quick] [--only=MobileNetV2,ResNet50]

Each network has random weights and the smallest square images that it allows. A random third of
the units of every group is removed. A row's value is the largest error of the compacted network's
outputs and gradients, relative to the largest entry of the masked network's; the gradients are
those of all parameters that are left, in evaluation mode. A network that misses the goal in float32
is compared again in float64, where Keras keeps float32 for normalisation only: this separates
rounding from wrong numbers. Beside it: CPU seconds of the analysis, groups, units, the share of
weights that is left, and how many axes no group contains, by reason. Axes of one index, windows,
images and classes are not counted. An architecture that fails gives a row with the error.
`python -m experiments.benchmarks.history` writes the latest rows into `docs/keras_zoo.md`.
"""

import argparse
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.report import main
from lth_jax import structure as st
from lth_jax import trees
from lth_jax.analysis.ratios import Row, row
from lth_jax.models import from_keras

os.environ["KERAS_BACKEND"] = "jax"

QUICK = ("MobileNetV2",)
SIZES = (32, 48, 64, 71, 75, 96, 128, 224)
"""Heights of images, the smallest first."""
CLASSES, IMAGES, REMOVED = 3, 2, 1 / 3
ERROR, SECONDS = 1e-5, 10.0
"""Goals: of the error, and of the analysis."""
FIXED = ("the window of", "a spatial axis of", "an axis of the argument", "an axis of result")
"""Beginnings of the reasons that every network has."""
CHEAP = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Each program runs once."""


def architectures() -> dict[str, Callable[..., Any]]:
    """The networks of `keras.applications` by name."""
    import keras

    found = vars(keras.applications).items()
    return {name: make for name, make in sorted(found) if name[0].isupper() and callable(make)}


def smallest(make: Callable[..., Any]) -> tuple[Any, int]:
    """The network for the smallest images that it allows, and their height."""
    import keras

    for size in SIZES:
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        try:
            options = {"weights": None, "classes": CLASSES, "classifier_activation": None}
            return make(input_shape=(size, size, 3), **options), size
        except ValueError as error:
            refused = error
    raise refused


def variables_of(model: Any) -> Any:
    """Parameters and state, vectors moved so that statistics, scales and biases count."""
    params, state = model.init(jax.random.key(0), None)
    rng = np.random.default_rng(1)

    def moved(leaf: Any) -> Any:
        far = rng.uniform(0.05, 0.1, leaf.shape) if leaf.ndim == 1 else np.zeros(())
        return np.asarray(leaf) + far.astype(leaf.dtype)

    return jax.tree.map(moved, {"params": params, "state": state})


def chosen(found: st.Structure) -> dict[str, np.ndarray]:
    """Units that stay: two thirds of every exact group, drawn at random."""
    rng = np.random.default_rng(2)
    return {
        group.name: rng.permutation(group.units) >= int(REMOVED * group.units)
        for group in found.groups
        if group.exact
    }


def outputs_and_gradients(apply: Callable[..., Any], variables: Any, x: Any, target: Any) -> Any:
    """Outputs, and `variables` with the gradients of the parameters in their place.

    The loss is the sum of √(1 + (output − target)²), which does not magnify rounding.
    """

    def loss(params: Any, state: Any) -> tuple[Any, Any]:
        out = apply({"params": params, "state": state}, x)
        return jnp.sqrt(1 + (out - target) ** 2).sum(), out

    run = jax.jit(jax.grad(loss, has_aux=True), compiler_options=CHEAP)
    gradients, out = jax.tree.map(np.asarray, run(variables["params"], variables["state"]))
    return out, {**variables, "params": gradients}


def error(wanted: Any, found: Any) -> float:
    """The largest difference of two trees, relative to the largest entry of the first."""
    pairs = list(zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True))
    largest = max(np.abs(a).max(initial=0) for a, _ in pairs)
    return float(max(np.abs(a - b).max(initial=0) for a, b in pairs) / largest)


def pins(found: st.Structure) -> dict[str, int]:
    """How many axes of weights no group contains, by reason."""
    counts: Counter[str] = Counter()
    for name, axes in found.pinned.items():
        for size, reasons in zip(found.shapes[name], axes, strict=True):
            if size > 1:
                counts.update(why for why in reasons if not why.startswith(FIXED))
    return dict(counts.most_common())


class _Compared(NamedTuple):
    """The groups of a network, and its compacted form beside the masked one.

    Attributes:
      found: the groups.
      seconds: CPU time of the analysis.
      image: height of the images.
      weights: of the whole network.
      left: of the compacted network.
      outputs: error of its outputs.
      gradients: error of its gradients.
    """

    found: st.Structure
    seconds: float
    image: int
    weights: int
    left: int
    outputs: float
    gradients: float


def compared(make: Callable[..., Any], dtype: str = "float32") -> _Compared:
    """Removes a third of a network's units and compares outputs and gradients in a dtype."""
    network, size = smallest(make)
    model = from_keras(network, initial="given")
    variables = variables_of(model)
    x = np.random.default_rng(3).uniform(0, 255, (IMAGES, size, size, 3)).astype(dtype)
    target = np.random.default_rng(4).normal(size=(IMAGES, CLASSES)).astype(dtype)

    def apply(variables: Any, x: Any) -> Any:
        return model.apply(variables["params"], variables["state"], x, train=False)[0]

    began = time.process_time()
    found = st.find_groups(apply, variables, x)
    seconds = time.process_time() - began
    units = chosen(found)
    small, compact = st.compact(found, variables, units)
    mask = st.expand(found, units)
    masked = jax.tree.map(lambda m, v: np.where(m, v, 0).astype(v.dtype), mask, variables)
    out, gradients = outputs_and_gradients(apply, masked, x, target)
    gradients = st.take(found, gradients, units)
    small_out, small_gradients = outputs_and_gradients(compact, small, x, target)
    return _Compared(
        found,
        seconds,
        size,
        trees.size(variables),
        trees.size(small),
        error(out, small_out),
        error(gradients["params"], small_gradients["params"]),
    )


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Context in which Keras builds networks of float64; its normalisation stays in float32."""
    import keras

    keras.config.set_floatx("float64")
    try:
        with jax.enable_x64(True):
            yield
    finally:
        keras.config.set_floatx("float32")


def measured(name: str, make: Callable[..., Any]) -> Row:
    """The row of one architecture.

    If float32 misses the goal, the comparison in float64 is judged instead, which separates a
    wrong result from rounding.
    """
    one = compared(make)
    errors = one.outputs, one.gradients
    exact: dict[str, Any] = {}
    if max(errors) > ERROR:
        with double_precision():
            twice = compared(make, "float64")
        errors = twice.outputs, twice.gradients
        exact = {"float64_outputs": twice.outputs, "float64_gradients": twice.gradients}
    return row(
        name,
        max(one.outputs, one.gradients),
        goal=ERROR,
        judged=max(errors),
        image=one.image,
        weights=one.weights,
        weights_left=round(one.left / one.weights, 3),
        analysis_seconds=round(one.seconds, 2),
        groups=len(one.found.groups),
        inexact=sum(not group.exact for group in one.found.groups),
        units=sum(group.units for group in one.found.groups),
        error_of_outputs=one.outputs,
        error_of_gradients=one.gradients,
        pinned=pins(one.found),
        **exact,
    )


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """A row for each architecture; the run continues after one that fails."""
    known = architectures()
    names = options.only.split(",") if options.only else list(QUICK if options.quick else known)
    if unknown := sorted(set(names) - known.keys()):
        raise SystemExit(f"--only names {unknown}; the architectures are {sorted(known)}.")
    for name in names:
        try:
            yield measured(name, known[name])
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as failure:
            yield row(name, None, reason=f"{type(failure).__name__}: {str(failure)[:200]}")
        jax.clear_caches()


def page(runs: Sequence[dict[str, Any]]) -> str:
    """The page with the latest row of each architecture in committed runs, the oldest first."""
    rows = {one["case"]: one for run in runs for one in run["results"]}
    head = ("network", "image", "weights", "weights left", "analysis, s", "groups", "units",
            "error of outputs", "error of gradients", "other axes in no group")  # fmt: skip
    return "\n".join(
        [
            "# Keras networks",
            "",
            "The latest committed row of each architecture, written by",
            "`python -m experiments.benchmarks.history`. See [A Keras model](keras.md).",
            "`python -m experiments.benchmarks.keras_zoo` removes a random third of the units",
            f"of every exact group (goals: errors of {ERROR:.0e}, and {SECONDS:g} s of analysis).",
            "",
            "- *image*: height and width of the input images, in pixels.",
            "- *weights left*: share of the weights in the compacted network. Where a layer",
            "  loses a third of its inputs and of its outputs, 4/9 remain. ConvNeXt keeps more,",
            "  because its residual streams are inexact groups and stay: only its hidden units",
            "  are removed.",
            "- *inexact*: groups whose removal changes the outputs, because masked units are",
            "  not zero after LayerNorm has subtracted the mean. The benchmark does not remove",
            "  them.",
            "- *error*: the largest difference between the compacted and the masked network, in",
            "  the outputs relative to the largest output, in the gradients of the parameters",
            "  relative to the largest gradient. Where float32 misses the goal, the error in",
            "  float64 is in brackets and decides. Keras normalises in float32 there, too,",
            "  which rounds smaller differences away: outputs can be equal (0e+00).",
            "- *other axes in no group*: their number, by reason. Not counted are axes of one",
            "  index, windows, images and classes, which are in no group by definition. The",
            "  leaves that EfficientNets do not read are the mean and variance of their first",
            "  normalisation.",
            "",
            f"| {' | '.join(head)} |",
            "|---" * len(head) + "|",
            *(f"| {' | '.join(_cells(rows[name], len(head)))} |" for name in sorted(rows)),
            "",
        ]
    )


def _cells(one: Row, count: int) -> list[str]:
    if one.get("reason"):
        return [one["case"], one["reason"], *[""] * (count - 2)]
    why = "; ".join(f"{number}: {reason}" for reason, number in one["pinned"].items())
    groups = f"{one['groups']}" + (f" ({one['inexact']} inexact)" if one["inexact"] else "")
    return [
        one["case"],
        str(one["image"]),
        f"{one['weights'] / 1e6:.1f} M",
        f"{one['weights_left']:.0%}",
        f"{one['analysis_seconds']:.1f}",
        groups,
        str(one["units"]),
        _error(one, "outputs"),
        _error(one, "gradients"),
        why or "–",
    ]


def _error(one: Row, what: str) -> str:
    double = one.get(f"float64_{what}")
    return f"{one[f'error_of_{what}']:.0e}" + (f" ({double:.0e})" if double is not None else "")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--only", default="", help="names of architectures; default: all")


if __name__ == "__main__":
    main("keras_zoo", __doc__, measure, add_options)
