"""The fields of all configs, with defaults.

`python -m experiments.run --help` prints their meaning and legal values (`experiments.fields`).
`experiment` determines the results and is hashed; `machine` sets where and how to run.
"""

from ml_collections import ConfigDict

NO_RECONSTRUCTION = {"method": "", "mask": "criterion", "start": "reconstructed"}
"""The default of `prune.reconstruct`."""
NEWER = (
    "prune.budget",
    "prune.reconstruct",
    "train.crop_area",
    "train.average.window",
    "train.eval_examples",
)
"""Fields that saved runs of earlier versions lack; recorded and hashed only if they are set."""


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
                "seed": 0,
                "validation": 300,
                "train_examples": 0,
                "unlabelled": 0,
                "options": {},
            },
            "model": {"name": "mlp", "options": {"features": (64, 10)}},
            "train": {
                "steps": 1000,
                "eval_every": 50,
                "batch_size": 64,
                "shuffle": True,
                "shared_order": False,
                "share": 0,
                "eval_examples": 0,
                "loss": "cross_entropy",
                "metrics": (),
                "compute_dtype": "float32",
                "matmul_precision": "default",
                "crop": 0,
                "crop_area": 0.0,
                "flip": False,
                "label_noise": 0.0,
                "label_smoothing": 0.0,
                "mixup": 0.0,
                "cutmix": 0.0,
                "distill": {
                    "teacher": "",
                    "who": "all",
                    "weight": 0.5,
                    "temperature": 2.0,
                    "unlabelled": 0,
                },
                "average": {"start": 0, "every": 1, "window": 0},
            },
            "optimizer": {
                "name": "adam",
                "learning_rate": 1e-3,
                "weight_decay": 0.0,
                "momentum": 0.9,
                "clip_norm": 0.0,
                "schedule": "constant",
                "warmup": 0,
            },
            "prune": {
                "criterion": "magnitude",
                "scope": "globally",
                "schedule": "geometric",
                "rate": 0.2,
                "final": 0.02,
                "levels": 10,
                "method": "static",
                "method_options": {},
                "retrain": False,
                "layer_rates": {},
                "granularity": "weights",
                "groups": ("*",),
                "unit_multiple": 1,
                "budget": "",
                "reduction": "sum",
                "minimum": 0,
                "biases": False,
                "score_step": 0,
                "at_start": False,
                "rounds": 1,
                "examples": 0,
                "reconstruct": dict(NO_RECONSTRUCTION),
            },
            "rewind": {
                "what": "weights",
                "step": 0,
                "optimizer": "fresh",
                "state": "rewind",
                "data": "fresh",
            },
            "controls": ("reinit", "shuffle", "random"),
            "control_levels": (),
        },
        convert_dict=True,
    )
    config.machine = ConfigDict(
        {
            "workdir": "runs",
            "data_dir": "",
            "manual_dir": "",
            "chunk": 0,
            "driver": "",
            "data_placement": "",
            "devices": 0,
            "save_seconds": 10.0,
            "progress": True,
            "compilation_cache": True,
            "coordinator": "",
            "processes": 0,
            "process": 0,
            "init_timeout_s": 100,
            "wait": False,
        }
    )
    return config
