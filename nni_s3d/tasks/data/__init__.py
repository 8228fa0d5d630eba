"""Named data sets of images and of clouds of points, held in memory as tensors."""

from nni_s3d.tasks.data.clouds import Clouds
from nni_s3d.tasks.data.images import Images
from nni_s3d.tasks.data.loader import Loader
from nni_s3d.tasks.data.sets import CLOUDS, NAMES, DataSet, load

__all__ = ["CLOUDS", "NAMES", "Clouds", "DataSet", "Images", "Loader", "load"]
