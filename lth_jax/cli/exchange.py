"""`lth export` and `lth import`: tickets of runs, and of other libraries, as files."""

import argparse
import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lth_jax.cli import arguments as shared
from lth_jax.cli import program_files

if TYPE_CHECKING:
    from lth_jax.coding.stored import Named
    from lth_jax.store import RunInfo

FORMATS = ("ticket", "safetensors", "bcoo", "nm", *program_files.PROGRAMS)
_ENDINGS = {".safetensors": "safetensors"} | {f".{kind}": kind for kind in program_files.PROGRAMS}
"""The format of a file's ending; a ticket by default."""
_ONLY_OF: dict[str, tuple[tuple[str, ...], Any]] = {
    "batch": (program_files.PROGRAMS, 1),
    "compact": (program_files.PROGRAMS, False),
    "mapping": (("safetensors",), None),
    "masks": (("safetensors",), False),
    "pattern": (("nm",), "2:4"),
    "precision": (("ticket",), "float32"),
    "task": (program_files.PROGRAMS, None),
}
"""Options that concern some formats, and their defaults."""
_MAPPING = "JSON or TOML file: the PyTorch name of every leaf"


class _Network(NamedTuple):
    """The network that is written: arrays by leaf name."""

    params: "Named"
    mask: "Named"
    state: "Named"


def add_commands(commands: shared.Commands) -> None:
    """Adds `export` and `import`."""
    export = shared.add_command(
        commands,
        "export",
        _export,
        "write a ticket of a run, or a .ticket file, in this format or another",
        "lth export lenet-1a2b3c4d one.ticket --level 5 --replicate 0 --precision int8",
        "lth export lenet-1a2b3c4d net.stablehlo --level 5 --replicate 0 --compact",
        "lth export one.ticket one.safetensors --mapping names.json --masks",
    )
    shared.add_run(export, "source", help="a run, or a .ticket file")
    export.add_argument("file", metavar="FILE", help="the file to write")
    export.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    text = f"default: by FILE's ending ({', '.join(_ENDINGS)}), otherwise ticket"
    export.add_argument("--format", choices=FORMATS, help=text)
    export.add_argument("--level", type=int, help="round of train-prune-rewind, for a run")
    export.add_argument("--replicate", type=int, help="index of the seed, for a run")
    export.add_argument("--arm", default="ticket", help="ticket, dense, or a control")
    export.add_argument(
        "--values",
        choices=("rewound", "trained"),
        help="for a run: values of the rewind point (default for tickets), or trained values "
        "(default for other formats)",
    )
    _add_precision(export)
    export.add_argument("--mapping", help=f"{_MAPPING}; kernels get PyTorch's axes")
    text = "write pruned leaves as NAME_orig and NAME_mask, as torch.nn.utils.prune does"
    export.add_argument("--masks", action="store_true", help=text)
    export.add_argument(
        "--pattern", default="2:4", help="N:M of --format nm (default: %(default)s)"
    )
    text = "of a program: the number of examples that it takes (default: %(default)s)"
    export.add_argument("--batch", type=int, default=1, help=text)
    export.add_argument("--compact", action="store_true", help="of a program: without dead units")
    text = "of a program: package.module:name of the lottery.Task, or of a function that returns it"
    export.add_argument("--task", help=f"{text}; by default as the run records it")
    imported = shared.add_command(
        commands,
        "import",
        _import,
        "write a ticket of the weights and masks of a safetensors or PyTorch file",
        "lth import pruned.safetensors one.ticket --mapping names.json",
        "lth import model.pt one.ticket --mask mask.pth --skip 'aux.*'",
        root=False,
    )
    text = "a .safetensors file, or a .pt, .pth or .bin file, which need PyTorch"
    imported.add_argument("source", metavar="SOURCE", help=text)
    imported.add_argument("file", metavar="FILE", help="the .ticket file to write")
    imported.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    imported.add_argument("--mapping", help=f"{_MAPPING}; by default the names and axes stay")
    imported.add_argument("--mask", help="masks by the names of the weights, as of open_lth")
    text = "weights that are exactly 0 are pruned, where there is no mask"
    imported.add_argument("--zeros", action="store_true", help=text)
    text = "leave out the names that match PATTERN; may be repeated"
    imported.add_argument("--skip", action="append", default=[], metavar="PATTERN", help=text)
    _add_precision(imported)


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bfloat16", "int8", "int4"),
        help="of the values in a ticket: exact, or rounded (default: %(default)s)",
    )


def _export(arguments: argparse.Namespace) -> None:
    from lth_jax.store import StoreError

    path = Path(arguments.file)
    _check_free(arguments)
    kind = arguments.format or _ENDINGS.get(path.suffix, "ticket")
    if path.suffix not in ("", ".ticket", f".{kind}") and not arguments.format:
        raise StoreError(
            f"the ending of '{path}' is unknown; choose `--format`: {', '.join(FORMATS)}."
        )
    if arguments.batch < 1:
        raise StoreError(f"`--batch` is {arguments.batch}; it must be an integer from 1.")
    arguments.values = arguments.values or ("rewound" if kind == "ticket" else "trained")
    for name, (only, default) in _ONLY_OF.items():
        if kind not in only and getattr(arguments, name) != default:
            formats = " or ".join(only)
            raise StoreError(f"`--{name}` is an option of the format {formats}, not of {kind}.")
    with _as_store_errors():
        if Path(arguments.source).suffix == ".ticket":
            network, prunable, provenance = _of_ticket(arguments.source)
            if kind == "ticket":
                _write_ticket(arguments, network, prunable, provenance)
            else:
                _write_network(arguments, kind, network)
        else:
            _export_run(arguments, kind)


def _export_run(arguments: argparse.Namespace, kind: str) -> None:
    from lth_jax import coding
    from lth_jax.coding.run_size import PRECISIONS
    from lth_jax.coding.stored import REWOUND, encode_stored, find_stored, rewound
    from lth_jax.store import Store, StoreError, files

    for name in ("level", "replicate"):
        if getattr(arguments, name) is None:
            raise StoreError(f"`--{name}` is needed to choose a network of {arguments.source}.")
    info = shared.find(arguments, arguments.source)
    store = Store(shared.root_of(info))
    place = {name: getattr(arguments, name) for name in ("arm", "level", "replicate")}
    one = find_stored(store, info, **place)
    if kind != "ticket":
        params, state = one.params, one.state
        if arguments.values == REWOUND:
            [(params, state)] = rewound(store, info, [one])
        network = _Network(params, one.mask, state)
        _write_network(arguments, kind, network, info)
        print(f"{arguments.values} values")
        return
    precision = PRECISIONS[arguments.precision]
    data = encode_stored(store, info, one, values=arguments.values, precision=precision)
    coding.decode(data)  # compares hashes
    files.write(Path(arguments.file), data, make_folder=False)
    _print_ticket(arguments.file, one.params, f"{arguments.values} values")
    _warn_of(one.state, "a ticket")


def _write_network(
    arguments: argparse.Namespace, kind: str, network: _Network, info: "RunInfo | None" = None
) -> None:
    if kind in program_files.PROGRAMS:
        options = {name: getattr(arguments, name) for name in ("batch", "compact", "overwrite")}
        task = program_files.task_of(arguments.task, info)
        print(repr(program_files.write(arguments.file, kind, network, task, **options)))
    else:
        _write_arrays(arguments, kind, network)


def _write_arrays(arguments: argparse.Namespace, kind: str, network: _Network) -> None:
    from lth_jax import exchange
    from lth_jax.store import StoreError

    params, mask = network.params, network.mask
    options: dict[str, Any] = {"overwrite": arguments.overwrite}
    if kind == "safetensors":
        options |= {"state": network.state, "masks": arguments.masks}
        options["mapping"] = arguments.mapping and exchange.read_mapping(arguments.mapping)
        written = exchange.save_safetensors(arguments.file, params, mask, **options)
    elif kind == "bcoo":
        written = exchange.save_bcoo(arguments.file, params, mask, **options)
    else:
        n, _, m = arguments.pattern.partition(":")
        if not (n.isdigit() and m.isdigit()):
            raise StoreError(f"`--pattern` is '{arguments.pattern}'; it must be N:M, such as 2:4.")
        pattern = int(n), int(m)
        written = exchange.save_nm(arguments.file, params, mask, pattern, **options)
    print(repr(written))
    if kind != "safetensors":
        _warn_of(network.state, "a sparse file")


def _warn_of(state: "Named", what: str) -> None:
    if state:
        left_out = f"the model's state ({len(state)} arrays) is left out"
        print(f"lth: {what} holds parameters; {left_out}.", file=sys.stderr)


def _of_ticket(path: str) -> tuple[_Network, dict[str, bool], dict[str, Any]]:
    """The arrays, the prunable leaves and the provenance of a .ticket file."""
    from lth_jax import coding, trees
    from lth_jax.store import StoreError

    source = coding.inspect(path).manifest.values
    if source != "embedded":
        what = {"none": "holds a mask without values"}.get(source, "names an initialiser")
        raise StoreError(f"'{path}' {what}; export a ticket with values.")
    found = coding.load(path)
    params, mask, prunable = map(trees.to_named, (found.params, found.mask, found.prunable))
    return _Network(params, mask, {}), prunable, found.manifest.provenance


def _import(arguments: argparse.Namespace) -> None:
    import numpy as np

    from lth_jax import exchange, trees

    _check_free(arguments)
    with _as_store_errors():
        mapping = arguments.mapping and exchange.read_mapping(arguments.mapping)
        found = exchange.load_torch_state(
            arguments.source,
            mask=arguments.mask,
            mapping=mapping,
            zeros=arguments.zeros,
            skip=arguments.skip,
        )
        params, mask, prunable, state = map(trees.to_named, found)
        provenance = {"source": Path(arguments.source).name}
        dead = sum(int((leaf == 0).sum()) for leaf in params.values())
        if dead and not arguments.zeros and all(leaf.all() for leaf in mask.values()):
            print(f"lth: {dead:,} values are exactly 0; `--zeros` prunes them.", file=sys.stderr)
        # A ticket has no state of its own, so statistics become leaves that are not prunable.
        mask |= {name: np.ones(leaf.shape, bool) for name, leaf in state.items()}
        prunable |= dict.fromkeys(state, False)
        _write_ticket(arguments, _Network(params | state, mask, {}), prunable, provenance)


def _write_ticket(
    arguments: argparse.Namespace,
    network: _Network,
    prunable: dict[str, bool],
    provenance: dict[str, Any],
) -> None:
    from lth_jax import coding
    from lth_jax.coding.run_size import PRECISIONS
    from lth_jax.store import files

    data = coding.encode(
        network.mask,
        network.params,
        prunable=prunable,
        precision=PRECISIONS[arguments.precision],
        provenance=provenance,
    )
    coding.decode(data)  # compares hashes
    files.write(Path(arguments.file), data, make_folder=False)
    may = [network.mask[name] for name in network.mask if prunable[name]]
    kept, size = sum(int(mask.sum()) for mask in may), sum(mask.size for mask in may)
    stated = f"{kept:,} of {size:,} prunable weights kept"
    _print_ticket(arguments.file, network.params, stated)


def _print_ticket(path: str, params: "Named", about: str) -> None:
    dense = sum(leaf.nbytes for leaf in params.values())
    print(f"{path}: {Path(path).stat().st_size:,} bytes, dense {dense:,}; {about}")


def _check_free(arguments: argparse.Namespace) -> None:
    from lth_jax.store import StoreError

    if Path(arguments.file).exists() and not arguments.overwrite:
        raise StoreError(f"{arguments.file} exists; `--overwrite` replaces it.")


@contextlib.contextmanager
def _as_store_errors() -> Iterator[Any]:
    """Context that turns errors and warnings of files and mappings into messages of the command."""
    from lth_jax.store import StoreError

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
    except (TypeError, ValueError) as error:
        raise StoreError(str(error)) from error
    for warning in caught:
        print(f"lth: {warning.message}", file=sys.stderr)
