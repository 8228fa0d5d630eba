"""A tiny folder of images as torchvision.datasets.ImageFolder reads it: the colour of an image tells its class."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (60, 180, 60), "red": (200, 50, 50)}


def write(root: Path, train: int = 16, val: int = 6, size: tuple[int, int] = (40, 48)) -> Path:
    """Write this many images for each class of train/ and val/ and return the folder of the two."""
    random = np.random.default_rng(0)
    for part, number in (("train", train), ("val", val)):
        for name, colour in COLOURS.items():
            (root / part / name).mkdir(parents=True)
            for i in range(number):
                pixels = random.normal(colour, 50, (*size, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root
