"""Named data sets of images and of clouds of points, held in memory as tensors or read from a folder of files."""

from nni_s3d.tasks.data.clouds import Clouds
from nni_s3d.tasks.data.images import Images
from nni_s3d.tasks.data.loader import Loader
from nni_s3d.tasks.data.samples import Samples
from nni_s3d.tasks.data.sets import CLOUDS, NAMES, DataSet, Folder, check_folder, load

__all__ = ["CLOUDS", "NAMES", "Clouds", "DataSet", "Folder", "Images", "Loader", "Samples", "check_folder", "load"]
