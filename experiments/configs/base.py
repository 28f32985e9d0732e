"""The fields that every ladder has, with their defaults; each config file sets what it means to.

`experiment` decides the numbers and is hashed whole; `machine` says where and how to run.
"""

from ml_collections import ConfigDict


def ladder() -> ConfigDict:
    """A ladder of iterative magnitude pruning with rewinding to the initialisation."""
    config = ConfigDict()
    config.experiment = ConfigDict(
        {
            "name": "ladder",
            "seed": 0,
            "replicates": 5,
            "data": {
                "name": "digits",
                "seed": 0,  # decides the split, the same for all replicates
                "validation": 300,  # 0: nothing is held out, and there is no early stopping
                "train_examples": 0,  # 0: all that the others leave
                "unlabelled": 0,  # further training examples, of which only teachers speak
                "options": {},
            },
            "model": {"name": "mlp", "options": {"features": (64, 10)}},
            "train": {
                "steps": 1000,
                "eval_every": 50,
                "batch_size": 64,
                "shuffle": True,
                "shared_order": False,  # whether all replicates see the same batches
                "share": 0,  # examples of its own for each replicate; 0: all see all
                "loss": "cross_entropy",
                "compute_dtype": "float32",  # bfloat16: parameters stay float32
                "crop": 0,  # images: pixels of padding for random crops; 0: none
                "flip": False,  # images: every second one is mirrored left to right
                "label_noise": 0.0,  # share of the labels that are drawn at random
                "label_smoothing": 0.0,
                "mixup": 0.0,  # parameter of the Beta distribution; 0: none
                "cutmix": 0.0,  # likewise; images
                "distill": {
                    "teacher": "",  # a finished run whose dense networks teach; empty: none
                    "who": "all",  # or own: replicate r has that run's replicate r alone
                    "weight": 0.5,  # what the teachers' answers count; the labels count the rest
                    "temperature": 2.0,
                    "unlabelled": 0,  # how many of `data.unlabelled` each batch has besides
                },
                "average": {  # stochastic weight averaging: the mean is tested and pruned
                    "start": 0,  # the first step whose weights count; 0: no averaging
                    "every": 1,  # steps
                },
            },
            "optimizer": {
                "name": "adam",
                "learning_rate": 1e-3,
                "weight_decay": 0.0,  # adamw, lion, lamb; and sgd, where it is L2
                "momentum": 0.9,  # sgd
                "clip_norm": 0.0,  # 0: no clipping
                "schedule": "constant",  # constant, cosine, linear, step (÷ 10 at 1/2 and 3/4)
                "warmup": 0,  # steps
            },
            "prune": {
                "criterion": "magnitude",
                "scope": "globally",
                "schedule": "geometric",
                "rate": 0.2,  # geometric: removed at each level, of what is left
                "final": 0.02,  # the other schedules: the density of the last level
                "levels": 10,  # 0: the dense networks alone
                "rates": {},  # layerwise geometric: name pattern -> rate of its own
                "granularity": "weights",  # weights, rows, columns, kernels; units of the network
                "groups": ("*",),  # units: patterns of the groups that may lose some
                "multiple": 1,  # units: each group keeps a multiple of it
                "reduction": "sum",  # of what goes together: sum, mean, max, l2
                "minimum": 0,  # globally: weights that each layer keeps at the least
                "biases": False,  # whether leaves of one axis may be pruned too
                "step": 0,  # when the criterion looks; 0: at the end of training
                "examples": 0,  # for criteria that need data: training examples they see
            },
            "rewind": {
                "what": "weights",
                "step": 0,
                "optimizer": "fresh",
                "state": "rewind",
                "data": "fresh",
            },
            "controls": ("reinit", "shuffle", "random"),
            "control_levels": (),  # empty: all
        },
        convert_dict=True,
    )
    config.machine = ConfigDict(
        {
            "workdir": "runs",
            "data_dir": "",  # empty: `data` in the workdir
            "manual_dir": "",  # idx files of MNIST and the like
            "chunk": 0,  # members vectorised together; 0: measured
            "driver": "",  # scan or host; empty: measured
            "data": "",  # training data: on the device, or read by the host; empty: by memory
            "devices": 0,  # that a population is split over; 0: measured, a CPU's cores among them
            "save_seconds": 10.0,  # work that a kill repeats at most; 0: no more than a segment
            "progress": True,
            "compilation_cache": True,
            # Of several processes: HOST:PORT of process 0; auto: as Slurm or a TPU pod tell.
            "coordinator": "",
            "processes": 0,  # how many they are and which this one is, unless auto
            "process": 0,
            "patience": 100,  # seconds after which a process that is silent counts as lost
            "wait": False,  # for another process that runs the same experiment
        }
    )
    return config
