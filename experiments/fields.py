"""The fields of configs: meaning and legal values.

Defaults are in `experiments.configs.base`, checks across fields in `experiments.checks`. `--help`
of the commands prints this table.
"""

from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import trainers, units
from lth_jax import models
from lth_jax.analysis import teachers
from lth_jax.cli.parts import part_of
from lth_jax.cli.programs import UserError
from lth_jax.data import sources
from lth_jax.keys import SEEDS
from lth_jax.legal import FLAG, Legal, mapping, nearest, one_of, real, several, shown, text, whole
from lth_jax.lottery import CONTROLS, STRUCTURED_CONTROLS
from lth_jax.lottery import rewind as rewinding
from lth_jax.population import DRIVERS, LOSSES, LR_SCHEDULES, METRICS, OPTIMIZERS
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.granularity import GRANULARITIES
from lth_jax.pruning.methods import METHODS
from lth_jax.pruning.schedules import SCHEDULES
from lth_jax.pruning.scopes import SCOPES
from lth_jax.reconstruct import levels
from lth_jax.reconstruct.methods import METHODS as LAYER_METHODS
from lth_jax.structure.costs import COSTS

OPEN = ("data.options", "model.options", "prune.layer_rates", "prune.method_options")
"""Fields with arbitrary nested fields."""


class Field(NamedTuple):
    """A field of a config.

    Attributes:
      name: dotted name without `experiment`, used in messages.
      legal: its legal values.
      help: its meaning.
    """

    name: str
    legal: Legal
    help: str

    @property
    def path(self) -> str:
        """The full dotted name.

        >>> FIELDS["seed"].path, FIELDS["machine.chunk"].path
        ('experiment.seed', 'machine.chunk')
        """
        return self.name if self.name.startswith("machine.") else f"experiment.{self.name}"


FOLDER = text("the name of a folder, or empty")
RUN = text("the name of a run, or empty")
SHARE = real(0, 1)
AT_LEAST_0, AT_LEAST_1 = whole(0), whole(1)
NUMBER = real(0)
POSITIVE = real(0, above=True)
SEED = whole(0, SEEDS - 1)
INSIDE = real(0, 1, above=True, below=True)
SOURCE = one_of(rewinding.SOURCES)
# Views of the registries, so that a part that is registered later is legal at once. A `ChainMap`
# iterates over its last mapping first.
ALL_CONTROLS = ChainMap[str, Any](STRUCTURED_CONTROLS, CONTROLS)
ALL_GRANULARITIES = ChainMap[str, Any]({units.UNITS: None}, GRANULARITIES)


def _options(words: str) -> Legal:
    """Options by name, of any value."""
    return mapping(f"{words}, by name", lambda value: True)


def _parts_of(names: Collection[str]) -> Legal:
    """A tuple of built-in names and `package.module:name`."""
    some = ",".join(list(names)[:2])
    words = (
        f"a tuple of distinct names (on a command line {some}), each package.module:name or one "
        f"of: {', '.join(names)}"
    )
    return several(part_of(names), words)


_TABLE = (
    Field(
        "name",
        text("1 to 100 letters, digits, '.', '_' and '-'", r"\w[\w.-]*", 100),
        "first part of the name of the run's folder",
    ),
    Field("seed", SEED, "seed of initial values, data orders, criteria and controls"),
    Field("replicates", AT_LEAST_1, "independent networks of each arm"),
    Field("data.name", part_of(sources.NAMES), "data set; see lth_jax.data.load"),
    Field("data.seed", SEED, "seed of the split, the same for all replicates"),
    Field("data.validation", AT_LEAST_0, "validation examples; 0: none, and no early stopping"),
    Field("data.train_examples", AT_LEAST_0, "training examples; 0: all that remain"),
    Field("data.unlabelled", AT_LEAST_0, "further training examples, used without labels"),
    Field("data.options", _options("options of the data set"), "see lth_jax.data.load"),
    Field("model.name", part_of(models.NETWORKS), "network"),
    Field(
        "model.options",
        _options("attributes of the network"),
        "attributes of the network's Linen module",
    ),
    Field("train.steps", AT_LEAST_1, "steps of each training"),
    Field("train.eval_every", AT_LEAST_1, "steps between evaluations on validation data"),
    Field("train.batch_size", AT_LEAST_1, "training examples per step"),
    Field("train.shuffle", FLAG, "whether each epoch has a new random order"),
    Field("train.shared_order", FLAG, "whether all replicates use the same batches"),
    Field(
        "train.share",
        AT_LEAST_0,
        "training examples of each replicate, disjoint between replicates; 0: every replicate "
        "uses all examples",
    ),
    Field("train.eval_examples", AT_LEAST_0, "training examples of `train_*_final`; 0: all"),
    Field("train.loss", part_of(LOSSES), "training loss"),
    Field("train.metrics", _parts_of(METRICS), "metrics; empty: accuracy for classes"),
    Field("train.compute_dtype", one_of(trainers.COMPUTE_DTYPES), "dtype of operations"),
    Field(
        "train.matmul_precision",
        one_of(trainers.MATMUL_PRECISIONS),
        "products of float32 matrices on accelerators; highest: all bits",
    ),
    Field("train.crop", AT_LEAST_0, "images: padding in pixels for random crops; 0: none"),
    Field("train.crop_area", SHARE, "images: smallest area of random resized crops, 0.08; 0: none"),
    Field("train.flip", FLAG, "images: mirror left to right with probability 1/2"),
    Field("train.label_noise", SHARE, "fraction of random labels"),
    Field("train.label_smoothing", SHARE, "fraction of each target spread over all classes"),
    Field("train.mixup", NUMBER, "parameter of the Beta distribution; 0: none"),
    Field("train.cutmix", NUMBER, "images, signals: parameter of the Beta distribution; 0: none"),
    Field("train.distill.teacher", RUN, "run whose dense networks are teachers"),
    Field(
        "train.distill.who",
        one_of(teachers.WHO),
        "all: every dense network of the run; own: the dense network of the same replicate",
    ),
    Field("train.distill.weight", SHARE, "weight of the teachers' term; labels: 1 - weight"),
    Field("train.distill.temperature", POSITIVE, "divides the logits of teachers and members"),
    Field("train.distill.unlabelled", AT_LEAST_0, "examples of `data.unlabelled` in each batch"),
    Field("train.average.start", AT_LEAST_0, "first step of weight averaging; 0: none"),
    Field("train.average.every", AT_LEAST_1, "steps between averaged weights"),
    Field("train.average.window", AT_LEAST_0, "moving average of decay 1 - 1/window; 0: mean"),
    Field("optimizer.name", part_of(OPTIMIZERS), "optimizer"),
    Field("optimizer.learning_rate", POSITIVE, "peak learning rate"),
    Field(
        "optimizer.weight_decay",
        NUMBER,
        "adamw, lion, lamb: weight decay; sgd, nesterov: L2 penalty",
    ),
    Field("optimizer.momentum", SHARE, "sgd, nesterov: momentum"),
    Field("optimizer.clip_norm", NUMBER, "largest global norm of the gradient; 0: no clipping"),
    Field("optimizer.schedule", part_of(LR_SCHEDULES), "step: divides by 10 at 1/2 and 3/4"),
    Field("optimizer.warmup", AT_LEAST_0, "steps of linear warm-up; fewer than `train.steps`"),
    Field("prune.criterion", part_of(CRITERIA), "criterion that scores the weights"),
    Field("prune.scope", part_of(SCOPES), "which weights compete with each other"),
    Field("prune.method", part_of(METHODS), "sparse training method; static: a fixed mask"),
    Field("prune.method_options", _options("arguments of the method"), "see lth_jax.methods"),
    Field("prune.retrain", FLAG, "whether a last level retrains under the last mask"),
    Field("prune.schedule", part_of(SCHEDULES), "schedule of the density over the levels"),
    Field("prune.rate", INSIDE, "geometric: fraction of remaining weights removed at each level"),
    Field("prune.final", real(0, 1, above=True), "other schedules: density of the last level"),
    Field("prune.levels", AT_LEAST_0, "number of levels; 0: dense networks only"),
    Field(
        "prune.layer_rates",
        mapping("numbers in (0, 1), by patterns of names", INSIDE.holds),
        "layerwise geometric: name pattern -> rate",
    ),
    Field("prune.granularity", part_of(ALL_GRANULARITIES), "what is removed together"),
    Field(
        "prune.groups",
        several(text("a pattern"), "a tuple of patterns, each once (on a command line 'a*,b*')"),
        "patterns of the names of prunable leaves; units: of groups",
    ),
    Field("prune.unit_multiple", AT_LEAST_1, "units: each group keeps a multiple of this number"),
    Field(
        "prune.budget",
        one_of(("", *COSTS)),
        "units: the cost that densities are fractions of; empty: the number of prunable weights",
    ),
    Field("prune.reduction", one_of(units.REDUCTIONS), "reduction of the scores of a unit"),
    Field("prune.minimum", AT_LEAST_0, "globally: weights that each layer keeps at least"),
    Field("prune.biases", FLAG, "whether leaves of one axis may be pruned too"),
    Field(
        "prune.score_step",
        AT_LEAST_0,
        "step whose weights are scored, at least `rewind.step`; 0: the last step",
    ),
    Field("prune.at_start", FLAG, "whether to score the weights of `rewind.step`, before training"),
    Field(
        "prune.rounds",
        AT_LEAST_1,
        "rounds of scoring and pruning at each level; SynFlow's paper uses 100",
    ),
    Field("prune.examples", AT_LEAST_0, "training examples for criteria that need data"),
    Field(
        "prune.reconstruct.method",
        one_of(("", *LAYER_METHODS)),
        "fits trained weights to each mask on `prune.examples`; empty: none",
    ),
    Field(
        "prune.reconstruct.mask",
        one_of(levels.MASKS),
        "which mask each layer keeps: that of the criterion or of the reconstruction method",
    ),
    Field(
        "prune.reconstruct.start",
        one_of(levels.STARTS),
        "initial weights of a ticket; rewound: only the mask of the reconstruction is used",
    ),
    Field("rewind.what", one_of(rewinding.WEIGHTS), "what is rewound; nothing: fine-tuning"),
    Field("rewind.step", AT_LEAST_0, "step to rewind to; below `train.steps`"),
    Field("rewind.optimizer", SOURCE, "the optimizer's state at the start of a level"),
    Field("rewind.state", SOURCE, "the state of BatchNorm at the start of a level"),
    Field("rewind.data", SOURCE, "the data order of a level"),
    Field("controls", _parts_of(ALL_CONTROLS), "controls trained for each ticket"),
    Field(
        "control_levels",
        several(
            AT_LEAST_1,
            "a tuple of levels in 1 … `prune.levels`, each once (on a command line 1,3)",
        ),
        "levels with controls; empty: all",
    ),
    Field(
        "machine.workdir",
        text("the name of a folder", r"[^\x00-\x1f\x7f]+"),
        "folder of runs and data",
    ),
    Field("machine.data_dir", FOLDER, "prepared data; empty: `data` in the workdir"),
    Field("machine.manual_dir", FOLDER, "files that are not downloaded, such as those of MNIST"),
    Field("machine.chunk", AT_LEAST_0, "members that train at a time; 0: measured"),
    Field("machine.driver", one_of(("", *DRIVERS)), "loop over the steps; empty: measured"),
    Field(
        "machine.data_placement",
        one_of(("", "device", "host")),
        "where training data are kept; empty: automatic",
    ),
    Field("machine.devices", AT_LEAST_0, "devices, or cores of a CPU; 0: measured"),
    Field(
        "machine.save_seconds",
        NUMBER,
        "most seconds of training lost if the process is killed, or one segment if it is longer; "
        "0: save after each segment",
    ),
    Field("machine.progress", FLAG, "whether to show a progress bar"),
    Field("machine.compilation_cache", FLAG, "whether to cache compiled programs and plans"),
    Field(
        "machine.coordinator",
        text("HOST:PORT, auto, or empty", r"|auto|[^\x00-\x1f\x7f]+:\d+"),
        "HOST:PORT of process 0; auto: from Slurm or a TPU pod; empty: a single process",
    ),
    Field("machine.processes", AT_LEAST_0, "number of processes, unless auto"),
    Field("machine.process", AT_LEAST_0, "index of this process, unless auto"),
    Field(
        "machine.init_timeout_s",
        AT_LEAST_1,
        "seconds without a response after which a process counts as lost; also the time limit for "
        "joining",
    ),
    Field("machine.wait", FLAG, "whether to wait for another process with the same experiment"),
)
FIELDS: Mapping[str, Field] = {field.name: field for field in _TABLE}


def leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of an experiment, or of a machine with the prefix `machine.`: `(name, value)`."""
    for name, value in config.items():
        full = f"{prefix}{name}"
        if isinstance(value, ConfigDict) and full not in OPEN:
            yield from leaves(value, f"{full}.")
        else:
            yield full, value


def check_values(config: ConfigDict, prefix: str = "") -> None:
    """Checks each field of an experiment or a machine.

    Raises:
      UserError: a field is unknown, or a value is not legal.
    """
    for name, value in leaves(config, prefix):
        if name not in FIELDS:
            raise UserError(nearest("a field of the config", name, FIELDS))
        check_value(FIELDS[name], value)


def check_value(field: Field, value: Any) -> None:
    """Raises `UserError` unless a value is legal.

    >>> check_value(FIELDS["train.steps"], 0)
    Traceback (most recent call last):
    lth_jax.cli.programs.UserError: `train.steps` is 0; it must be an integer in 1 … 2147483647.
    """
    if field.legal.holds(value):
        return
    wrong = [one for one in value if one not in field.legal.names] if _is_tuple(value) else [value]
    if (names := field.legal.names) and len(wrong) and isinstance(wrong[0], str):
        unknown = nearest(f"`{field.name}`", shown(wrong[0], quoted=False), names)
        several = f" Several are written as {','.join(list(names)[:2])}." * _is_tuple(value)
        raise UserError(unknown + several)
    raise UserError(f"`{field.name}` is {shown(value)}; it must be {field.legal.words}.")


def _is_tuple(value: Any) -> bool:
    return isinstance(value, tuple | list)
