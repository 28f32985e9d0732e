"""Tickets to and from other libraries: safetensors, PyTorch, StableHLO, ONNX, BCOO and N:M.

Every `save_` function compares what it wrote with the network before the file appears, and returns
a `Written` with the file's size beside dense. Arrays must agree bit for bit, outputs of programs to
a tolerance. All raise `store.StoreError` if the file cannot be written.
"""

from lth_jax.exchange.dense import save_safetensors, to_state_dict
from lth_jax.exchange.errors import ExchangeError
from lth_jax.exchange.mapping import Target, read_mapping
from lth_jax.exchange.programs import (
    load_stablehlo,
    save_onnx,
    save_stablehlo,
    to_stablehlo,
)
from lth_jax.exchange.qwix import from_qwix, to_qwix
from lth_jax.exchange.sparse import Packed, pack_nm, to_bcoo, to_dense, unpack_nm
from lth_jax.exchange.sparse_file import load_sparse, save_bcoo, save_nm
from lth_jax.exchange.tensor_file import read as load_safetensors
from lth_jax.exchange.torch_state import Imported, load_torch_state
from lth_jax.exchange.written import Written

__all__ = [
    "ExchangeError",
    "Imported",
    "Packed",
    "Target",
    "Written",
    "from_qwix",
    "load_safetensors",
    "load_sparse",
    "load_stablehlo",
    "load_torch_state",
    "pack_nm",
    "read_mapping",
    "save_bcoo",
    "save_nm",
    "save_onnx",
    "save_safetensors",
    "save_stablehlo",
    "to_bcoo",
    "to_dense",
    "to_qwix",
    "to_stablehlo",
    "to_state_dict",
    "unpack_nm",
]
