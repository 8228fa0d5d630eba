"""Named image data sets, held in memory as tensors."""

from nni_s3d.tasks.data.images import Images, Loader
from nni_s3d.tasks.data.sets import NAMES, DataSet, load

__all__ = ["NAMES", "DataSet", "Images", "Loader", "load"]
