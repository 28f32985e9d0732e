"""MNIST-1D of any size (Greydanus, 2020), with the bits of its authors' generator.

The `mnist1d` package transforms one example at a time, in .2 ms. A study needs 200,000 examples, so
this module draws from the same random stream, and transforms all examples of a class together.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lth_jax.keys import check_seed


def generate(data_seed: int, **settings: Any) -> dict[str, NDArray[Any]]:
    """What `mnist1d.data.make_dataset` returns for the authors' settings, except those given.

    A template of 12 points is padded, stretched to 72 points, scaled, shifted, made noisy, sheared
    and sampled at 40 points; all signals together have mean 0 and standard deviation 1.

    Args:
      data_seed: the seed.
      **settings: values that replace the authors', such as `num_samples`; not `shuffle_seq`.

    Returns:
      `x` and `x_test`, float64 `[n, 40]`; `y` and `y_test`, int `[n]`.

    >>> generate(0, num_samples=50)["x"].shape
    (40, 40)
    """
    from mnist1d.data import get_dataset_args, get_templates

    check_seed(data_seed, "data_seed")
    args, templates = get_dataset_args(), get_templates()
    vars(args).update(settings)
    rng = np.random.RandomState(data_seed)  # the stream of `np.random.seed`
    each = args.num_samples // len(templates["y"])
    x = np.concatenate([_signals(rng, one, each, args) for one in templates["x"]])
    y = np.repeat(templates["y"], each)
    order = rng.permutation(len(y))
    x, y = x[order], y[order]
    x = (x - x.mean()) / x.std()
    end = int(len(y) * args.train_split)
    return {"x": x[:end], "x_test": x[end:], "y": y[:end], "y_test": y[end:]}


def _signals(
    rng: np.random.RandomState, template: NDArray[np.float64], count: int, args: Any
) -> NDArray[np.float64]:
    """`count` transformed copies of a template: float64 `[count, final_seq_length]`."""
    from mnist1d.transform import interpolate
    from scipy.ndimage import gaussian_filter1d

    low, high = args.padding
    length = args.template_len + high

    @cache
    def stretched(padding: int) -> NDArray[np.float64]:
        return interpolate(np.concatenate([template + 1e-8, np.zeros(padding)]), length)

    x, smooth, rough = np.empty((3, count, length))
    coefficients = np.empty(count)
    for i in range(count):  # in the order of the package's draws
        padding = low + int(rng.rand() * (high - low + 1))
        scale = 1 + args.scale_coeff * (rng.rand() - 0.5)
        one, shift = scale * stretched(padding), rng.randint(args.max_translation)
        x[i] = np.concatenate([one[-shift:], one[:-shift]])
        smooth[i], rough[i] = rng.randn(length), rng.randn(length)
        coefficients[i] = args.shear_scale * (rng.rand() - 0.5)
    drawn = x != 0
    correlated = gaussian_filter1d(args.corr_noise_scale * smooth, 2, axis=1)
    x = drawn * x + (1 - drawn) * correlated + args.iid_noise_scale * rough
    x -= coefficients[:, None] * np.linspace(-0.5, 0.5, length)
    old, new = np.linspace(0, 1, length), np.linspace(0, 1, args.final_seq_length)
    return np.stack([np.interp(new, old, one) for one in x])
