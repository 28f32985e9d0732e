"""Every optimizer and wrapper that optax makes public, found by listing its modules."""

import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import optax

ADAM = optax.adam(0.05)
IS_MATRIX = lambda tree: jax.tree.map(lambda x: x.ndim == 2, tree)  # noqa: E731
LABELS = lambda tree: jax.tree.map(lambda x: "ab"[x.ndim == 2], tree)  # noqa: E731
MATRIX_AXES = lambda tree: jax.tree.map(lambda x: optax.contrib.MuonDimensionNumbers(), tree)  # noqa: E731

ARGUMENTS = {
    "adv_optimizer": optax.chain(optax.contrib.normalize(), optax.sgd(0.05)),
    "base_optimizer": ADAM,
    "clipping": 0.1,
    "decay": 0.9,
    "eta": 0.01,
    "f": lambda u, p: jax.tree.map(lambda a, b: a - 0.1 * b, u, p),
    "fast_optimizer": ADAM,
    "freeze_mask": lambda tree: jax.tree.map(lambda x: x.ndim == 1, tree),
    "gamma": 0.55,
    "inner": ADAM,
    "inner_factory": optax.adam,
    "l2_norm_clip": 1.0,
    "learning_rate": 0.05,
    "mask": IS_MATRIX,
    "max_backtracking_steps": 4,
    "max_consecutive_errors": 3,
    "max_delta": 0.1,
    "max_linesearch_steps": 4,
    "max_norm": 0.1,
    "measure": lambda updates: optax.tree.norm(updates),
    "measure_name": "norm",
    "measures": {"norm": lambda updates: optax.tree.norm(updates)},
    "noise_multiplier": 0.1,
    "optimizer": ADAM,
    "param_labels": LABELS,
    "seed": 0,
    "should_transform_fn": lambda step, **extra: step % 2 == 0,
    "slow_step_size": 0.5,
    "step_size": 0.1,
    "step_size_fn": lambda step: 0.1 / (1 + step),
    "sync_period": 2,
    "threshold": 0.1,
    "transforms": {"a": optax.sgd(0.05, momentum=0.9), "b": optax.adamw(0.05)},
    "tx": ADAM,
}
"""A value for each required argument of a builder, by the argument's name."""
SPECIAL = {
    "chain": lambda f: f(optax.clip_by_global_norm(0.1), ADAM),
    "named_chain": lambda f: f(("clip", optax.clip_by_global_norm(0.1)), ("adam", ADAM)),
    "add_noise": lambda f: f(0.01, 0.55, key=0),
    "noisy_sgd": lambda f: f(0.05, key=0),
    "stateless_with_tree_map": lambda f: f(lambda u, p: u - 0.1 * p),
    "scale_by_muon": lambda f: optax.masked(f(weight_dimension_numbers=MATRIX_AXES), IS_MATRIX),
    "MultiSteps": lambda f: f(ADAM, every_k_schedule=2),
}
EXTRA = {
    "value": ("polyak_sgd", "scale_by_polyak", "momo", "momo_adam", "reduce_on_plateau"),
    "value, grad, value_fn": (
        "lbfgs",
        "scale_by_backtracking_linesearch",
        "scale_by_zoom_linesearch",
    ),
    "obj_fn": ("sophia", "hutchinson_estimator_diag_hessian"),
    "grad_fn": ("sam, opaque",),
}
"""What optimizers need besides gradient and parameters."""
NEEDS = {name: extra.split(", ") for extra, names in EXTRA.items() for name in names}
PER_EXAMPLE = ("differentially_private_aggregate", "dpsgd")
"""Optimizers whose gradients have the examples as their first axis."""


def modules():
    """optax and its public modules."""
    found = [optax]
    for info in pkgutil.walk_packages(optax.__path__, "optax."):
        parts = info.name.split(".")
        if not any(part.startswith("_") or part.endswith("_test") for part in parts):
            found.append(importlib.import_module(info.name))
    return found


def is_builder(thing):
    """Whether a public name makes gradient transformations, by its annotation or its code."""
    if inspect.isclass(thing):
        return hasattr(thing, "gradient_transformation")
    if not inspect.isfunction(thing):
        return False
    returned = inspect.signature(thing).return_annotation
    if returned is not inspect.Signature.empty:
        return "GradientTransformation" in str(returned)
    makes = {"GradientTransformation", "GradientTransformationExtraArgs", "chain"}
    return bool(makes & set(thing.__code__.co_names))


def builders():
    """All builders by name, each once."""
    named = {}
    for module in modules():
        for name, thing in vars(module).items():
            if not name.startswith("_") and is_builder(thing):
                named.setdefault(thing, name)
    return {name: thing for thing, name in named.items()}


def build(name, builder):
    """The optimizer that a builder makes from `ARGUMENTS`; KeyError for an unknown argument."""
    if name in SPECIAL:
        return SPECIAL[name](builder)
    needed = [
        p.name
        for p in inspect.signature(builder).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    made = builder(**{argument: ARGUMENTS[argument] for argument in needed})
    return made if hasattr(made, "init") else made(learning_rate=0.05)  # inject_hyperparams


def variants():
    """Optimizers that the builders' defaults leave out."""
    sam = optax.contrib.sam(ADAM, ARGUMENTS["adv_optimizer"], opaque_mode=True)
    adagrad, lbfgs = optax.adagrad(0.05), optax.scale_by_lbfgs(memory_size=3)
    names_as_labels = optax.partition({"k": ADAM, "b": adagrad}, {"k": "k", "b": "b"})
    return {
        "sam, opaque": sam,
        "flatten adagrad": optax.flatten(adagrad),
        "flatten lbfgs": optax.flatten(lbfgs),
        "adafactor, factored": optax.adafactor(0.05, min_dim_size_to_factor=2, momentum=0.9),
        "schedule-free adagrad": optax.contrib.schedule_free(adagrad, 0.05),
        "labels like the names": names_as_labels,
        "traced rate": optax.inject_hyperparams(optax.lamb)(jnp.float32(0.05), weight_decay=0.1),
    }


ALL = {name: build(name, builder) for name, builder in builders().items()} | variants()
