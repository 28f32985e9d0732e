"""The sources of the data sets: from a name and options to a folder of prepared data."""

import contextlib
import difflib
import hashlib
import inspect
import json
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lth_jax.data import cifar, idx, imagenet, planted, sequences, standard, tabular, text
from lth_jax.data.checks import check_integer, check_real
from lth_jax.data.made import Made, Source
from lth_jax.data.prepare import prepare, prepared_folders
from lth_jax.keys import check_seed
from lth_jax.legal import check_name
from lth_jax.registry import Registry
from lth_jax.store import code_fingerprint

_DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_IDX_REMEDY = (
    "give a `manual_dir` that holds train-images-idx3-ubyte, train-labels-idx1-ubyte, "
    "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each as it is or with .gz"
)
_IMAGENET_REMEDY = f"give a `manual_dir` that holds '{imagenet.NAME}' as TFDS prepared it"
_CIFAR_REMEDY = "give a `manual_dir` that holds the authors' archive, binary or Python"


def find(name: str, data_dir: Path, manual_dir: Path | None, options: dict[str, Any]) -> Path:
    """The folder of a data set's prepared data, which are made if they do not exist.

    Args:
      name: a key of `SOURCES` or `GENERATED`.
      data_dir: the root of all prepared data.
      manual_dir: the folder of files that the user provides.
      options: keyword arguments of the source.

    Raises:
      ValueError: if the name or an option is unknown, or the source cannot be used.
    """
    check_name("name", name, NAMES)
    parameters = inspect.signature(NAMES[name]).parameters.values()
    allowed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in allowed:
            close = difflib.get_close_matches(option, allowed, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else "."
            raise ValueError(
                f"`{option}` is not an option of '{name}', which takes "
                f"{', '.join(allowed) or 'none'}{hint}"
            )
    if name in SOURCES:
        return SOURCES[name](data_dir, manual_dir, **options)
    defaults, make = {p.name: p.default for p in parameters}, GENERATED[name]
    return _from_recipe(data_dir, name, make, {**defaults, **options})


def _code_of(make: Callable[..., Made]) -> str:
    """The fingerprint of the module of a function, or of the function alone in a notebook."""
    while isinstance(make, partial):
        make = make.func
    for part in (inspect.getmodule(make), make):
        with contextlib.suppress(OSError, TypeError):
            return code_fingerprint(inspect.getsource(part).encode())  # type: ignore[arg-type]
    return ""


def _mnist1d(
    data_dir: Path,
    manual_dir: Path | None,
    *,
    data_seed: int = 42,
    train: int = 4000,
    test: int = 1000,
    minority: float = 0.0,
) -> Path:
    check_seed(data_seed, "data_seed")
    check_real("minority", minority, 0.0, 1.0)
    if (train, test, minority) == (4000, 1000, 0.0):
        make = partial(standard.stock_mnist1d, data_seed)
        return prepare(Source("mnist1d", make, config=f"seed_{data_seed}"), data_dir)
    for name, count in (("train", train), ("test", test)):
        check_integer(name, count, 1)
    options: dict[str, Any] = {"data_seed": data_seed, "train": train, "test": test}
    options |= {"minority": minority} if minority else {}
    return _from_recipe(data_dir, "mnist1d", standard.mnist1d, options)


def _mnist(
    data_dir: Path, manual_dir: Path | None, *, data_seed: int = 42, minority: float = 0.0
) -> Path:
    check_seed(data_seed, "data_seed")
    check_real("minority", minority, 0.0, 1.0)
    if not minority:
        return _from_idx("mnist", data_dir, manual_dir)
    if manual_dir is None:
        raise ValueError(f"`minority` {minority:g} is made from MNIST's own files: {_IDX_REMEDY}.")
    make, options = (
        partial(standard.turned, manual_dir),
        {"data_seed": data_seed, "minority": minority},
    )
    return _from_recipe(data_dir, "mnist", make, options, idx.digest(manual_dir).encode())


def _fashion_mnist(data_dir: Path, manual_dir: Path | None) -> Path:
    if manual_dir is None and _DEBIAN_FASHION_MNIST.is_dir():
        manual_dir = _DEBIAN_FASHION_MNIST
    return _from_idx("fashion_mnist", data_dir, manual_dir)


def _text(
    data_dir: Path,
    manual_dir: Path | None,
    *,
    file: str = "",
    window: int = 64,
    unit: str = "characters",
    limit: int | None = None,
) -> Path:
    raw = _contents(manual_dir, file) if file else text.standard_library()
    options = {"window": window, "unit": unit, "limit": limit}
    return _from_recipe(data_dir, "text", partial(text.windows, raw), options, raw)


def _csv(
    data_dir: Path,
    manual_dir: Path | None,
    *,
    file: str = "",
    target: str = "",
    columns: Sequence[str] = (),
    group: str | None = None,
    numbers: Sequence[str] = (),
    categories: Sequence[str] = (),
    missing: str = "refuse",
    markers: Sequence[str] = tabular.MARKERS,
) -> Path:
    raw = _contents(manual_dir, file)
    options = {
        "target": target,
        "columns": columns,
        "group": group,
        "numbers": numbers,
        "categories": categories,
        "missing": missing,
        "markers": markers,
    }
    return _from_recipe(data_dir, "csv", partial(tabular.from_csv, raw), options, raw)


def _contents(manual_dir: Path | None, file: str) -> bytes:
    """The bytes of a user's file; relative paths are relative to `manual_dir`."""
    path = Path(manual_dir or "") / file
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"`file` '{path}' cannot be read: {error}.") from error


def _from_recipe(
    data_dir: Path, name: str, make: Callable[..., Made], options: dict[str, Any], raw: bytes = b""
) -> Path:
    """Data of `make(**options)`, stored under a hash of the options, the file and the code."""
    # A value that JSON cannot represent is not legal for `make`, whose check names it.
    file = hashlib.sha256(raw).hexdigest()
    facts = {"options": options, "file": file, "code": _code_of(make)}
    described = json.dumps(facts, default=repr)
    source = Source(
        "recipes",
        partial(make, **options),
        config=f"{name}-{hashlib.sha256(described.encode()).hexdigest()[:12]}",
        description=described,
        version="1.1.0",
    )
    return prepare(source, data_dir)


def _from_idx(name: str, data_dir: Path, manual_dir: Path | None) -> Path:
    """Data of idx files, stored under the files' digest, because two data sets share the names."""
    if manual_dir is None:
        return _only_copy(data_dir / name, _IDX_REMEDY)
    make = partial(standard.from_idx, manual_dir)
    return prepare(Source(name, make, config=idx.digest(manual_dir)), data_dir)


def _from_archive(name: str, layout: cifar.Layout, data_dir: Path, manual_dir: Path | None) -> Path:
    if manual_dir is None:
        return _only_copy(data_dir / name, _CIFAR_REMEDY)
    make = partial(standard.from_archive, manual_dir, layout)
    return prepare(Source(name, make, config=cifar.digest(manual_dir, layout)), data_dir)


def _imagenet(data_dir: Path, manual_dir: Path | None, *, size: int = 224) -> Path:
    check_integer("size", size, 1, 4096)
    name = f"imagenet_{size}"
    if manual_dir is None:
        return _only_copy(data_dir / name, _IMAGENET_REMEDY)
    folder = imagenet.find(manual_dir)
    make = partial(imagenet.resized, folder, size)
    return prepare(Source(name, make, config=imagenet.digest(folder)), data_dir)


def _only_copy(root: Path, remedy: str) -> Path:
    """The only prepared data set below `root`."""
    problems = prepared_folders(root)
    whole = [folder for folder, problem in problems.items() if problem is None]
    if len(whole) == 1:
        return whole[0]
    found = " and ".join(f"'{folder}'" for folder in whole) or "none"
    damaged = "".join(f", and '{f}' is damaged ({p})" for f, p in problems.items() if p)
    raise ValueError(
        f"`data_dir` must contain one copy of '{root.name}', found {found}{damaged}: {remedy}."
    )


SOURCES: Registry[Callable[..., Path]] = Registry("data set")
"""Data sets from files and packages: `(data_dir, manual_dir, *, **options) -> folder`."""

GENERATED: Registry[Callable[..., Made]] = Registry("data set")
"""Data sets that are generated from their options: `(*, **options) -> Made`."""

AS_BYTES = frozenset({"imagenet"})
"""Data sets whose pixels stay uint8, a quarter of float32, also on the device."""

NAMES: Mapping[str, Callable[..., Any]] = ChainMap(GENERATED, SOURCES)
"""All data sets."""

_SOURCES: dict[str, Callable[..., Path]] = {
    "digits": lambda data_dir, _: prepare(Source("digits", standard.digits), data_dir),
    "mnist1d": _mnist1d,
    "mnist_5k": lambda data_dir, _: prepare(Source("mnist_5k", standard.mnist_5k), data_dir),
    "mnist": _mnist,
    "fashion_mnist": _fashion_mnist,
    "cifar10": partial(_from_archive, "cifar10", cifar.CIFAR10),
    "cifar100": partial(_from_archive, "cifar100", cifar.CIFAR100),
    "imagenet": _imagenet,
    "text": _text,
    "csv": _csv,
}
for _name, _source in _SOURCES.items():
    SOURCES.register(_name, _source)

for _made in (
    sequences.modular_addition,
    sequences.copy,
    sequences.delayed_recall,
    sequences.associative_recall,
    sequences.marked_recall,
    sequences.markov,
    planted.planted,
    tabular.grouped,
    tabular.iris,
    tabular.wine,
    tabular.breast_cancer,
    tabular.diabetes,
):
    GENERATED.register(_made.__name__, _made)
