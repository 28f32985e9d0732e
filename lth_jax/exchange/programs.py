"""Networks as programs that run without this library: StableHLO by `jax.export`, and ONNX."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from lth_jax.exchange.errors import ExchangeError
from lth_jax.exchange.pools import without_pools
from lth_jax.exchange.written import Written, check_free, compare_outputs, write
from lth_jax.extras import needed_by

Apply = Callable[[Any, Any], Any]
"""`(params, x) -> outputs`; its other arguments are bound."""

PLATFORMS = ("cpu", "cuda", "tpu")
_ONNX_DTYPES = ("float32", "float16", "int8", "int16", "int32", "int64", "uint8", "bool")


def to_stablehlo(
    f: Apply,
    params: Any,
    x: Any,
    *,
    any_batch: bool = False,
    platforms: Sequence[str] = PLATFORMS,
) -> bytes:
    """A network as a serialised `jax.export` artifact, with the weights inside.

    `jax.export.deserialize(data).call(x)` runs it with JAX alone. JAX reads artifacts for at least
    six months after the version that wrote them.

    Args:
      f: `(params, x) -> outputs`, such as the function of `structure.compact`.
      params: the weights; those of a masked network with its zeros.
      x: an example input, array or `jax.ShapeDtypeStruct`.
      any_batch: whether the first axis of `x` may have any length; `f` must treat rows alone.
      platforms: the platforms on which the artifact runs.

    Raises:
      lth_jax.extras.MissingExtraError: flatbuffers is not installed.

    >>> data = to_stablehlo(lambda p, x: x @ p, np.eye(2, dtype=np.float32), np.ones((1, 2), "f"))
    >>> export.deserialize(bytearray(data)).call(np.ones((1, 2), "f")).tolist()
    [[1.0, 1.0]]
    """
    with needed_by("A StableHLO artifact", "export"):
        import flatbuffers  # noqa: F401  of `serialize`, which raises another error without it
    run, example = _bound(f, params, x, any_batch)
    return bytes(export.export(jax.jit(run), platforms=list(platforms))(example).serialize())


def _bound(
    f: Apply, params: Any, x: Any, any_batch: bool
) -> tuple[Callable[[Any], Any], jax.ShapeDtypeStruct]:
    """The function of `x` alone, and the type of `x`, with a symbolic first axis for any batch."""
    run = functools.partial(f, jax.tree.map(np.asarray, params))
    if not any_batch:
        return run, jax.ShapeDtypeStruct(x.shape, x.dtype)
    (batch,) = export.symbolic_shape("batch")
    # Row by row, because a compact function has no symbolic shapes.
    rows = jax.vmap(lambda row: jax.tree.map(lambda out: out[0], run(row[None])))
    return rows, jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)


def save_stablehlo(
    path: str | Path,
    f: Apply,
    params: Any,
    x: Any,
    *,
    dense: Any = None,
    any_batch: bool = False,
    platforms: Sequence[str] = PLATFORMS,
    tolerance: float = 1e-5,
    overwrite: bool = False,
) -> Written:
    """Writes `to_stablehlo(f, params, x)` after comparing its outputs with those of `f`.

    Args:
      path: the file.
      f: `(params, x) -> outputs`.
      params: the weights.
      x: inputs, on which the outputs are compared.
      dense: the parameters before compaction, for the size beside dense; `params` by default.
      any_batch: whether the first axis of `x` may have any length.
      platforms: the platforms on which the artifact runs; this one must be among them.
      tolerance: allowed difference of the outputs, relative to their largest entry.
      overwrite: whether to replace an existing file.

    Raises:
      ExchangeError: the outputs differ, or the file exists.
      lth_jax.extras.MissingExtraError: flatbuffers is not installed.
    """
    check_free(path, overwrite)
    data = to_stablehlo(f, params, x, any_batch=any_batch, platforms=platforms)
    call = export.deserialize(bytearray(data)).call
    error = compare_outputs("StableHLO", jax.jit(f)(params, x), lambda: call(x), tolerance)
    of = params if dense is None else dense
    return write(path, data, of, overwrite=overwrite, error=error)


def load_stablehlo(path: str | Path) -> Callable[..., Any]:
    """The function `x -> outputs` of an artifact.

    Raises:
      ExchangeError: the file is not an artifact of `jax.export`.
    """
    data = Path(path).read_bytes()
    try:
        exported = export.deserialize(bytearray(data))
    except Exception as error:  # of flatbuffers: any type
        raise ExchangeError(
            f"'{path}' is not an artifact of `jax.export`: {type(error).__name__}."
        ) from None
    return exported.call


def save_onnx(
    path: str | Path,
    f: Apply,
    params: Any,
    x: Any,
    *,
    dense: Any = None,
    tolerance: float = 1e-4,
    overwrite: bool = False,
) -> Written:
    """Writes a network as an ONNX model by jax2onnx, after comparing it in onnxruntime.

    The model takes inputs of the shape of `x`: jax2onnx 0.17.1 does not convert all operations at a
    symbolic batch size.

    Args:
      path: the file.
      f: `(params, x) -> outputs`.
      params: the weights, float32 or float16.
      x: inputs, on which the outputs are compared.
      dense: the parameters before compaction, for the size beside dense; `params` by default.
      tolerance: allowed difference of the outputs, relative to their largest entry.
      overwrite: whether to replace an existing file.

    Raises:
      ExchangeError: a leaf has another dtype, jax2onnx cannot convert an operation, the outputs
        differ, or the file exists.
      lth_jax.extras.MissingExtraError: jax2onnx or onnxruntime is not installed.
    """
    check_free(path, overwrite)
    with needed_by("An ONNX file", "onnx"), _quiet("jax2onnx"):
        import jax2onnx
        import onnxruntime
    _check_dtypes(params)
    run, example = _bound(f, params, x, any_batch=False)
    wanted = jax.jit(f)(params, x)
    # Traced before jax2onnx replaces functions of Flax, whose arguments it does not all accept
    # (0.17.1: `nn.max_pool(x, (2, 2))` is a TypeError).
    traced = without_pools(run, example)
    try:
        with _quiet("jax2onnx"):
            model = jax2onnx.to_onnx(traced, inputs=[example])
    except Exception as error:  # jax2onnx has no type of its own
        reason = " ".join(str(error).split())[:200]
        raise ExchangeError(f"jax2onnx cannot convert the network: {reason}") from error
    data = model.SerializeToString()

    def outputs() -> Any:
        options = {"providers": ["CPUExecutionProvider"]}
        session = onnxruntime.InferenceSession(data, **options)
        return session.run(None, {session.get_inputs()[0].name: np.asarray(x)})

    gap = compare_outputs("ONNX", wanted, outputs, tolerance)
    of = params if dense is None else dense
    return write(path, data, of, overwrite=overwrite, error=gap)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Context without the warnings of a logger.

    jax2onnx 0.13 logs a traceback for each of its plug-ins that this JAX does not support.
    """
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def check_onnx(path: str | Path) -> None:
    """Raises `ExchangeError` unless a file is a valid ONNX model."""
    with needed_by("An ONNX file", "onnx"):
        import onnx
    try:
        onnx.checker.check_model(Path(path).read_bytes())
    except (ValueError, onnx.checker.ValidationError) as error:  # ValueError: no such message
        raise ExchangeError(
            f"'{path}' is not a valid ONNX model: {' '.join(str(error).split())[:200]}."
        ) from None


def _check_dtypes(params: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if np.asarray(leaf).dtype.name not in _ONNX_DTYPES:
            raise ExchangeError(
                f"`params` at {jax.tree_util.keystr(path)} has dtype {np.asarray(leaf).dtype}, "
                "which onnxruntime does not compute with; convert it to float32."
            )
