"""A small data set with the files of TFDS's `imagenet2012`: JPEG images of different sizes."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from lth_jax.data import imagenet

COLOURS = np.random.default_rng(0).integers(0, 256, (12, 3), np.uint8)
SHAPES = [(40, 60), (60, 40), (48, 48)]
CLASSES = 4


def write(root, counts=(12, 5), file_format="array_record"):
    """Writes `root/imagenet2012` with images of one colour, with a black frame outside the centre.

    The frame is outside the square that `imagenet.resized` keeps.
    """

    def examples(count):
        for i in range(count):
            height, width = SHAPES[i % len(SHAPES)]
            pixels = np.zeros((height, width, 3), np.uint8)
            margin = min(height, width) // 32
            sides = ((length - min(height, width)) // 2 + margin for length in (height, width))
            top, left = sides
            pixels[top : height - top, left : width - left] = COLOURS[i]
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "JPEG", quality=100, subsampling=0)
            encoded.seek(0)
            yield i, {"image": encoded, "label": i % CLASSES, "file_name": f"{i}.JPEG"}

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = imagenet.NAME
        VERSION = tfds.core.Version("5.1.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=CLASSES),
                "file_name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {s: examples(n) for s, n in zip(("train", "validation"), counts, strict=True)}

        def _generate_examples(self):
            raise AssertionError("splits have their own generators")

    builder = Builder(data_dir=root, file_format=file_format)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=config)
    return root
