"""Every field of a config: what it means, and which values are legal.

The defaults are in `experiments.configs.base`, which has the same fields. What fields must satisfy
together is in `experiments.checks`; `--help` of the commands prints this table.
"""

from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import teachers, trainers, units
from experiments.flags import UserError, nearest
from experiments.legal import FLAG, mapping, one_of, shown, text
from experiments.parts import part_of
from experiments.schedules import SCOPES
from lth_jax import models
from lth_jax.data import sources
from lth_jax.keys import SEEDS
from lth_jax.legal import Legal, real, several, whole
from lth_jax.lottery import CONTROLS, REFILL_CONTROLS, REGROUP_CONTROLS, UNIT_CONTROLS
from lth_jax.lottery import rewind as rewinding
from lth_jax.population import DRIVERS, LOSSES, LR_SCHEDULES, METRICS, OPTIMIZERS
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.methods import METHODS
from lth_jax.pruning.schedules import SCHEDULES

OPEN = ("data.options", "model.options", "prune.layer_rates", "prune.method_options")
"""Fields that hold fields whose names are free."""


class Field(NamedTuple):
    """A field of a config.

    Attributes:
      name: dotted; without `experiment`, as messages name it.
      legal: its values.
      help: what it means.
    """

    name: str
    legal: Legal
    help: str

    @property
    def path(self) -> str:
        """Its whole dotted name.

        >>> FIELDS["seed"].path, FIELDS["machine.chunk"].path
        ('experiment.seed', 'machine.chunk')
        """
        return self.name if self.name.startswith("machine.") else f"experiment.{self.name}"


FOLDER = text("the name of a folder, or empty")
SHARE = real(0, 1)
AT_LEAST_0, AT_LEAST_1 = whole(0), whole(1)
NUMBER = real(0)
POSITIVE = real(0, above=True)
SEED = whole(0, SEEDS - 1)
INSIDE = real(0, 1, above=True, below=True)
# A view, as all tables of names: a part that is registered later is legal at once. A `ChainMap`
# iterates over its last mapping first.
ALL_CONTROLS = ChainMap[str, Any](REGROUP_CONTROLS, REFILL_CONTROLS, UNIT_CONTROLS, CONTROLS)
SOURCE = one_of(rewinding.SOURCES)

_TABLE = (
    Field(
        "name",
        text("1 to 100 letters, digits, '.', '_' and '-'", r"\w[\w.-]*", 100),
        "the beginning of the name of the run's folder",
    ),
    Field("seed", SEED, "initial values, data orders, and what criteria and controls draw"),
    Field("replicates", AT_LEAST_1, "independent networks of each arm"),
    Field("data.name", part_of(sources.NAMES), "the data set; see lth_jax.data.load"),
    Field("data.seed", SEED, "decides the split, the same for all replicates"),
    Field("data.validation", AT_LEAST_0, "examples held out; 0: none, and no early stopping"),
    Field("data.train_examples", AT_LEAST_0, "0: all that the others leave"),
    Field("data.unlabelled", AT_LEAST_0, "further training examples, which only teachers label"),
    Field(
        "data.options",
        mapping("options of the data set, by name", lambda value: True),
        "of the data set; see lth_jax.data.load",
    ),
    Field("model.name", part_of(models.NETWORKS), "the network"),
    Field(
        "model.options",
        mapping("attributes of the network, by name", lambda value: True),
        "attributes of the network's Linen module",
    ),
    Field("train.steps", AT_LEAST_1, "of each training"),
    Field("train.eval_every", AT_LEAST_1, "steps between two evaluations on validation data"),
    Field("train.batch_size", AT_LEAST_1, "training examples of each step"),
    Field("train.shuffle", FLAG, "whether each epoch has an order of its own"),
    Field("train.shared_order", FLAG, "whether all replicates see the same batches"),
    Field("train.share", AT_LEAST_0, "examples of its own for each replicate; 0: all see all"),
    Field("train.loss", part_of(LOSSES), "what training minimises"),
    Field(
        "train.metrics",
        several(
            part_of(METRICS),
            f"a tuple of names, each once: package.module:name, or of: {', '.join(METRICS)}",
        ),
        "measured on validation and test data, in addition to the loss; empty: accuracy for "
        "classes",
    ),
    Field(
        "train.compute_dtype",
        one_of(trainers.COMPUTE_DTYPES),
        "of the network's operations; parameters stay float32",
    ),
    Field(
        "train.matmul_precision",
        one_of(trainers.MATMUL_PRECISIONS),
        "of products of float32 matrices on accelerators: default is TF32 on GPUs and bfloat16 on "
        "TPUs, highest keeps all bits",
    ),
    Field("train.crop", AT_LEAST_0, "images: pixels of padding for random crops; 0: none"),
    Field("train.flip", FLAG, "images: every second one is mirrored left to right"),
    Field("train.label_noise", SHARE, "share of the labels that are drawn at random"),
    Field("train.label_smoothing", SHARE, "share of each target that all classes divide"),
    Field("train.mixup", NUMBER, "parameter of the Beta distribution; 0: none"),
    Field("train.cutmix", NUMBER, "images: parameter of the Beta distribution; 0: none"),
    Field(
        "train.distill.teacher",
        text("the name of a run, or empty"),
        "a finished run whose dense networks teach; empty: none",
    ),
    Field(
        "train.distill.who",
        one_of(teachers.WHO),
        "all: the mean of that run's networks; own: replicate r has its replicate r alone",
    ),
    Field("train.distill.weight", SHARE, "of the teachers' answers; the labels have the rest"),
    Field("train.distill.temperature", POSITIVE, "divides the logits of teachers and members"),
    Field("train.distill.unlabelled", AT_LEAST_0, "of `data.unlabelled`, how many in each batch"),
    Field(
        "train.average.start",
        AT_LEAST_0,
        "stochastic weight averaging: the first step whose weights count; 0: no averaging",
    ),
    Field("train.average.every", AT_LEAST_1, "steps between two weights that count"),
    Field("optimizer.name", part_of(OPTIMIZERS), "the optimizer"),
    Field("optimizer.learning_rate", POSITIVE, "its peak"),
    Field("optimizer.weight_decay", NUMBER, "adamw, lion, lamb; and sgd, where it is L2"),
    Field("optimizer.momentum", SHARE, "sgd"),
    Field("optimizer.clip_norm", NUMBER, "largest global norm of the gradient; 0: no clipping"),
    Field(
        "optimizer.schedule",
        part_of(LR_SCHEDULES),
        "of the learning rate; step divides it by 10 at 1/2 and 3/4",
    ),
    Field("optimizer.warmup", AT_LEAST_0, "steps of linear warm-up; fewer than `train.steps`"),
    Field("prune.criterion", part_of(CRITERIA), "what scores the weights"),
    Field("prune.scope", part_of(SCOPES), "over what scores compete"),
    Field(
        "prune.method",
        part_of(METHODS),
        "how the mask lives in training; static: it is held fixed",
    ),
    Field(
        "prune.method_options",
        mapping("arguments of the method, by name", lambda value: True),
        "arguments of the method; see lth_jax.methods",
    ),
    Field(
        "prune.retrain",
        FLAG,
        "whether a last level trains the rewound weights under the mask of the one before",
    ),
    Field("prune.schedule", part_of(SCHEDULES), "of the density over the levels"),
    Field("prune.rate", INSIDE, "geometric: removed at each level, of what is left"),
    Field("prune.final", real(0, 1, above=True), "the other schedules: the last level's density"),
    Field("prune.levels", AT_LEAST_0, "0: the dense networks alone"),
    Field(
        "prune.layer_rates",
        mapping("numbers in (0, 1), by patterns of names", INSIDE.holds),
        "layerwise geometric: name pattern -> rate of its own",
    ),
    Field(
        "prune.granularity",
        part_of((*units.GRANULARITIES, units.UNITS)),
        "what is removed together; units: of the network",
    ),
    Field(
        "prune.groups",
        several(text("a pattern"), "a tuple of patterns, each once"),
        "units: patterns of the groups that may lose some",
    ),
    Field("prune.unit_multiple", AT_LEAST_1, "units: each group keeps a multiple of it"),
    Field("prune.reduction", one_of(units.REDUCTIONS), "of the scores of what goes together"),
    Field("prune.minimum", AT_LEAST_0, "globally: weights that each layer keeps at the least"),
    Field("prune.biases", FLAG, "whether leaves of one axis may be pruned too"),
    Field(
        "prune.score_step",
        AT_LEAST_0,
        "when the criterion looks, at or after `rewind.step`; 0: at the end of training",
    ),
    Field("prune.examples", AT_LEAST_0, "training examples that criteria of data look at"),
    Field(
        "rewind.what",
        one_of(rewinding.WEIGHTS),
        "what is set back before each level; nothing: fine-tuning",
    ),
    Field("rewind.step", AT_LEAST_0, "to which step; below `train.steps`"),
    Field("rewind.optimizer", SOURCE, "the optimizer's state at the start of a level"),
    Field("rewind.state", SOURCE, "the state of BatchNorm at the start of a level"),
    Field("rewind.data", SOURCE, "the data order of a level"),
    Field(
        "controls",
        several(
            part_of(ALL_CONTROLS),
            f"a tuple of names, each once: package.module:name, or of: {', '.join(ALL_CONTROLS)}",
        ),
        "arms that train beside each ticket",
    ),
    Field(
        "control_levels",
        several(AT_LEAST_1, "a tuple of levels in 1 … `prune.levels`, each once"),
        "levels at which the controls train; empty: all",
    ),
    Field(
        "machine.workdir", text("the name of a folder", r"[^\x00-\x1f\x7f]+"), "folder of all runs"
    ),
    Field("machine.data_dir", FOLDER, "prepared data; empty: `data` in the workdir"),
    Field("machine.manual_dir", FOLDER, "files of MNIST and the like, which only their user has"),
    Field("machine.chunk", AT_LEAST_0, "members vectorised together; 0: measured"),
    Field("machine.driver", one_of(("", *DRIVERS)), "of the steps; empty: measured"),
    Field(
        "machine.data_placement",
        one_of(("", "device", "host")),
        "where training data are; empty: by the memory there is",
    ),
    Field(
        "machine.devices",
        AT_LEAST_0,
        "that a population is split over; 0: measured, a CPU's cores among them",
    ),
    Field(
        "machine.save_seconds",
        NUMBER,
        "seconds of work that a kill repeats at most; 0: no more than a segment",
    ),
    Field("machine.progress", FLAG, "whether a progress bar is shown"),
    Field("machine.compilation_cache", FLAG, "whether compiled programs and plans are kept"),
    Field(
        "machine.coordinator",
        text("HOST:PORT, auto, or empty", r"|auto|[^\x00-\x1f\x7f]+:\d+"),
        "of several processes: HOST:PORT of process 0; auto: from the environment of Slurm or of a "
        "TPU pod",
    ),
    Field("machine.processes", AT_LEAST_0, "of the job, unless auto"),
    Field("machine.process", AT_LEAST_0, "which of them this one is, unless auto"),
    Field(
        "machine.init_timeout_s", AT_LEAST_1, "seconds after which a silent process counts as lost"
    ),
    Field("machine.wait", FLAG, "for another process that runs the same experiment"),
)
FIELDS: Mapping[str, Field] = {field.name: field for field in _TABLE}


def leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of an experiment or a machine that the table lists, as `(name, value)`.

    Args:
      config: the part of a config.
      prefix: of its names; `"machine."` for a machine.
    """
    for name, value in config.items():
        full = f"{prefix}{name}"
        if isinstance(value, ConfigDict) and full not in OPEN:
            yield from leaves(value, f"{full}.")
        else:
            yield full, value


def check_values(config: ConfigDict, prefix: str = "") -> None:
    """Checks every field of an experiment or a machine by itself.

    Args:
      config: the part of a config.
      prefix: of its names; `"machine."` for a machine.

    Raises:
      UserError: for the first value that is not legal, and for a field that there is not.
    """
    for name, value in leaves(config, prefix):
        if name not in FIELDS:
            raise UserError(nearest("a field of the config", name, FIELDS))
        check_value(FIELDS[name], value)


def check_value(field: Field, value: Any) -> None:
    """Raises `UserError` unless a value is legal.

    >>> check_value(FIELDS["train.steps"], 0)
    Traceback (most recent call last):
    experiments.flags.UserError: `train.steps` is 0; it must be an integer in 1 … 2147483647.
    """
    if field.legal.holds(value):
        return
    wrong = [one for one in value if one not in field.legal.names] if _is_tuple(value) else [value]
    if field.legal.names and len(wrong) and isinstance(wrong[0], str):
        raise UserError(
            nearest(f"`{field.name}`", shown(wrong[0], quoted=False), field.legal.names)
        )
    raise UserError(f"`{field.name}` is {shown(value)}; it must be {field.legal.words}.")


def _is_tuple(value: Any) -> bool:
    return isinstance(value, tuple | list)
