"""Named image data sets, held in memory as tensors or read from a folder of files."""

from nni_s3d.tasks.data.images import Images, ImageSet, Loader
from nni_s3d.tasks.data.sets import NAMES, DataSet, Folder, check_folder, load

__all__ = ["NAMES", "DataSet", "Folder", "ImageSet", "Images", "Loader", "check_folder", "load"]
