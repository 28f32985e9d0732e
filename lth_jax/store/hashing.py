"""SHA-256 hashes of settings, arrays and sources."""

import ast
import functools
import hashlib
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lth_jax.store.leaves import leaves


def plain(obj: Any, *, name: str = "obj", nan_as_null: bool = False) -> Any:
    """`obj` in JSON types: no numpy scalars, sequences as lists, named tuples as dicts.

    Args:
      obj: None, bools, numbers, strings, and sequences and string-keyed dicts of these.
      name: name of `obj`, for errors.
      nan_as_null: whether NaN and infinities become None instead of an error.

    Raises:
      TypeError: a value has no exact JSON form (an array, a set), or a key is not a string.
      ValueError: a float is NaN or infinite. Both messages name the place.

    >>> plain({"rates": (np.float64(0.5), 1), "deep": True})
    {'rates': [0.5, 1], 'deep': True}
    """
    if isinstance(obj, np.generic):
        obj = obj.item()
    if obj is None or isinstance(obj, bool | int | str):
        return obj
    if isinstance(obj, float):
        return _finite(obj, name, nan_as_null)
    if hasattr(obj, "_asdict"):
        obj = obj._asdict()
    if isinstance(obj, dict):
        if odd := [key for key in obj if not isinstance(key, str)]:
            raise TypeError(f"`{name}` must have strings as keys, got {odd[0]!r}.")
        return {
            key: plain(item, name=f"{name}.{key}", nan_as_null=nan_as_null)
            for key, item in obj.items()
        }
    if isinstance(obj, list | tuple):
        return [
            plain(item, name=f"{name}[{i}]", nan_as_null=nan_as_null) for i, item in enumerate(obj)
        ]
    raise TypeError(
        f"`{name}` must be None, a bool, number, string, sequence or dict, "
        f"got {type(obj).__name__}."
    )


def _finite(number: float, name: str, nan_as_null: bool) -> float | None:
    if math.isfinite(number):
        return float(number)
    if nan_as_null:
        return None
    raise ValueError(f"`{name}` must be a finite number, got {number}.")


def canonical(obj: Any) -> str:
    """JSON of `obj` in canonical form: sorted keys, no spaces, floats by `repr`.

    Lists and tuples are equal; `1`, `1.0`, `True` and `"1"` all differ.

    >>> canonical({"rate": 0.1, "levels": (1, 2)})
    '{"levels":[1,2],"rate":0.1}'
    """
    return json.dumps(plain(obj), sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_key(obj: Any) -> str:
    """The SHA-256 of `canonical(obj)`, 64 hexadecimal digits.

    >>> content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    True
    >>> content_key(1) == content_key(1.0)
    False
    """
    return hashlib.sha256(canonical(obj).encode()).hexdigest()


def fingerprint(tree: Any) -> str:
    """The SHA-256 of a pytree of arrays: names, dtypes, shapes and bytes of its leaves.

    Args:
      tree: any pytree of arrays, numbers and typed PRNG keys; bfloat16 and bool included.

    >>> fingerprint({"w": np.zeros(3)}) == fingerprint({"w": np.zeros(3, np.float32)})
    False
    """
    total = hashlib.sha256()
    for leaf in leaves(tree):
        head = [list(leaf.path), leaf.array.dtype.name, list(leaf.array.shape), leaf.key_impl]
        total.update(canonical(head).encode() + b"\n")
        total.update(np.ascontiguousarray(leaf.array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def source_fingerprint(*modules: str) -> str:
    """The SHA-256 of the Python code of modules and packages, with everything below them.

    Results with it in their key are computed again when that code changes. Comments,
    docstrings and layout do not count. The names are looked up without running the modules (their
    parents are imported).

    Args:
      *modules: dotted names, such as `"lth_jax.population"`.

    Raises:
      ValueError: a name is not an importable Python module.

    >>> source_fingerprint("json") == source_fingerprint("json", "json")
    True
    """
    files: dict[str, bytes] = {}
    for module in modules:
        files |= _sources(module)
    return content_key({name: code_fingerprint(data) for name, data in files.items()})


@functools.cache
def code_fingerprint(source: bytes) -> str:
    r"""The SHA-256 of a source's syntax tree; of its bytes if it is not Python.

    Comments, layout and strings that are statements, such as docstrings, do not count.

    >>> code_fingerprint(b"x = 1") == code_fingerprint(b"x = (1)  # one\\n'A docstring of x.'")
    True
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return hashlib.sha256(source).hexdigest()
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [statement for statement in body if not _is_text(statement)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(statement: ast.AST) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _sources(module: str) -> dict[str, bytes]:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ValueError(f"`modules` must name importable Python modules, got {module!r}.")
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        return {module: origin.read_bytes()}
    root = origin.parent
    return {
        f"{module}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in sorted(root.rglob("*.py"))
    }
