"""The public names of lth_jax by module: for the reference and for the test of docstrings."""

import ast
import functools
import importlib
import inspect
import pkgutil
import sys
from types import ModuleType
from typing import Any, TypeVar

import lth_jax
import lth_jax.store

PACKAGES = (
    "lottery population criteria granularity schedules methods transforms supermask layouts "
    "reconstruct structure landscape coding exchange analysis models data store report "
    "distributed sweeps"
).split()


def modules() -> dict[str, ModuleType]:
    """The public modules by the names that users write, such as `lth_jax.criteria`."""
    found = {"lth_jax": lth_jax, **{f"lth_jax.{name}": getattr(lth_jax, name) for name in PACKAGES}}
    for one in pkgutil.iter_modules(lth_jax.measures.__path__, "lth_jax.measures."):
        found[one.name] = importlib.import_module(one.name)
    return found


def names(module: ModuleType) -> list[str]:
    """The public names of a module: its `__all__`, or else what it defines."""
    if hasattr(module, "__all__"):
        listed = [name for name in module.__all__ if not name.startswith("_")]
        return [name for name in listed if not inspect.ismodule(getattr(module, name))]
    return [
        name
        for name, thing in vars(module).items()
        if not (name.startswith("_") or isinstance(thing, TypeVar))
        and (name in _constants(module) or _is_from(thing, module.__name__))
    ]


def docstring(module: ModuleType, name: str) -> str:
    """The docstring of a name; of a constant, the string below its assignment."""
    thing = getattr(module, name)
    if inspect.isroutine(thing) or inspect.isclass(thing):
        text = inspect.getdoc(thing) or ""
        return "" if text.startswith(f"{name}(") else text  # `dataclass` and `NamedTuple` make one
    homes = [one for key, one in sys.modules.items() if key.startswith("lth_jax")]
    same = [one for one in homes if vars(one).get(name) is thing]
    return next((_constants(one)[name] for one in same if _constants(one).get(name)), "")


def methods(thing: Any) -> dict[str, Any]:
    """The public methods and properties that a class of lth_jax defines itself."""
    if not (inspect.isclass(thing) and _is_from(thing, "lth_jax")):
        return {}
    kinds = (property, staticmethod, classmethod, functools.cached_property)
    return {
        name: part
        for name, part in vars(thing).items()
        if not name.startswith("_") and (inspect.isfunction(part) or isinstance(part, kinds))
    }


def _is_from(thing: Any, package: str) -> bool:
    return str(getattr(thing, "__module__", "")).startswith(package) and not inspect.ismodule(thing)


@functools.cache
def _constants(module: ModuleType) -> dict[str, str]:
    """The names that a module assigns, and the string below each."""
    try:
        body = ast.parse(inspect.getsource(module)).body
    except (OSError, TypeError):
        return {}
    found = {}
    for here, below in zip(body, [*body[1:], None], strict=True):
        targets = getattr(here, "targets", [getattr(here, "target", None)])
        text = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            text = inspect.cleandoc(str(below.value.value))
        if isinstance(here, ast.Assign | ast.AnnAssign):
            found.update({one.id: text for one in targets if isinstance(one, ast.Name)})
    return found
