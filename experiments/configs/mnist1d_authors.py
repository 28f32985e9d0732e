"""The lottery tickets of MNIST-1D's authors: their network and recipe, with intervals.

A residual MLP 40-500-500-10 with PyTorch's default initialisation, Adam at 2e-2, batches of 100 in
the order of the data, all 4,000 examples (so there are no validation examples and no early
stopping); the criterion is |w| within each layer, biases included, at step 1,000 of 1,500; weights
are rewound to the initialisation. Greydanus and Kobak (2024), "Scaling down deep learning with
MNIST-1D".

`mnist1d_authors.py` has 18 geometric levels, `mnist1d_authors.py:linear100` the authors' hundred
linear levels, with controls at five of them.
"""

from ml_collections import ConfigDict

from experiments.configs import base


def get_config(levels: str = "geometric") -> ConfigDict:
    """Five replicates of the authors' recipe.

    Args:
      levels: `"geometric"` (18 levels of 20 % each) or `"linear100"`.
    """
    config = base.ladder()
    experiment = config.experiment
    experiment.name = "mnist1d_authors"
    experiment.data.update(name="mnist1d", validation=0)
    experiment.data.options.data_seed = 42
    experiment.model.name = "residual_mlp"
    experiment.model.options = ConfigDict({"width": 500, "blocks": 1})
    experiment.train.update(steps=1500, eval_every=500, batch_size=100, shuffle=False)
    experiment.optimizer.learning_rate = 2e-2
    experiment.prune.update(scope="layerwise", biases=True, score_step=1000, rate=0.2, levels=18)
    if levels == "linear100":
        experiment.name = "mnist1d_linear100"
        experiment.prune.update(schedule="linear", levels=99, final=0.01)
        experiment.control_levels = (50, 81, 92, 97, 98)
    elif levels != "geometric":
        raise ValueError(f"`levels` is {levels!r}; it must be 'geometric' or 'linear100'.")
    return config
