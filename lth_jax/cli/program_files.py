"""Networks as programs: the part of `lth export` that needs the function of a network."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_jax.cli import parts

if TYPE_CHECKING:
    from lth_jax.analysis.latency import Weights
    from lth_jax.exchange.written import Written
    from lth_jax.lottery import Task
    from lth_jax.store import RunInfo

PROGRAMS = ("stablehlo", "onnx")
"""The formats of programs."""
OPTION = "--task"


def write(
    path: str | Path,
    kind: str,
    network: "Weights",
    task: "Task",
    *,
    batch: int,
    compact: bool,
    overwrite: bool,
) -> "Written":
    """Writes a network with its function, compared on examples of the test set.

    Args:
      path: the file.
      kind: one of `PROGRAMS`.
      network: the weights, by leaf name.
      task: the task of the network, for its function and examples.
      batch: number of examples that the program takes.
      compact: whether to remove the dead units.
      overwrite: whether to replace an existing file.

    Raises:
      StoreError: the network of the task has other leaves.
      ExchangeError: see `exchange.save_stablehlo` and `exchange.save_onnx`.
      ValueError: the compact network has other outputs.
    """
    from lth_jax import exchange
    from lth_jax.analysis.latency import Shrinker

    _check_leaves(network, task)
    shrinker = Shrinker(task, batch)
    dense = small = shrinker.variables(network)
    f: Callable[[Any, Any], Any] = shrinker.apply
    if compact:
        units = shrinker.live(network)
        f, small = shrinker.compact(network, units)
        dead = sum(int((~live).sum()) for live in units.values())
        print(f"{dead} of {sum(map(len, units.values()))} units are dead and left out")
    save = exchange.save_stablehlo if kind == "stablehlo" else exchange.save_onnx
    return save(path, f, small, shrinker.x, dense=dense, overwrite=overwrite)


def task_of(named: str | None, info: "RunInfo | None" = None) -> "Task":
    """The task of `--task`, or else that of the run's record.

    A run of `experiments.run` or `experiments.sweep` records in `env.json` the function that makes
    its task again, with its arguments: `{"task": {"function": "package.module:name", ...}}`.

    Args:
      named: `package.module:name`, a `lottery.Task` or a function without arguments that returns
        one.
      info: the run; None for a ticket.

    Raises:
      UserError: it cannot be imported, fails, or is not a task.
      StoreError: nothing is named.
    """
    from lth_jax.lottery import Task
    from lth_jax.store import StoreError

    field, given = OPTION, dict[str, Any]()
    if not named and info is not None and (recorded := _recorded(info)):
        field, given = f"task of {info.run}", {**recorded, "run": info.path}
        named = given.pop("function")
    if not named:
        raise StoreError(
            "a program needs the function of the network: name its `lottery.Task`, or a function "
            f"that returns it, by `{OPTION} package.module:name`."
        )
    if not parts.is_own(named):
        raise StoreError(f"`{OPTION}` is '{named}'; it must be package.module:name.")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the current folder, as for `python -m`
    return parts.made(field, named, Task, {}, **given)


def _recorded(info: "RunInfo") -> Mapping[str, Any] | None:
    from lth_jax.store import read_env

    found = (env.get("task") for env in reversed(read_env(info.path)["environments"]))
    return next((task for task in found if task), None)


def _check_leaves(network: "Weights", task: "Task") -> None:
    from lth_jax import trees
    from lth_jax.store import StoreError

    params, state = (
        {name: tuple(leaf.shape) for name, leaf in trees.to_named(tree).items()}
        for tree in task.shapes
    )
    if state and not network.state:
        raise StoreError(
            f"the network has a state of {len(state)} arrays, which a ticket does not hold; "
            "export it from its run."
        )
    for what, wanted, given in (
        ("parameter", params, network.params),
        ("array of state", state, network.state),
    ):
        for name in sorted(wanted.keys() | given.keys()):
            has = given[name].shape if name in given else None
            if has != wanted.get(name):
                raise StoreError(
                    f"the {what} '{name}' has shape {wanted.get(name)} in the task and {has} here; "
                    f"`{OPTION}` must be the task of this network."
                )
