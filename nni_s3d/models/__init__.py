"""Networks built from widths: plain modules that know nothing of splitting.

A width is named after the layer that produces the channels, which is also the name of its channel group.
"""

from nni_s3d.models.dgcnn import dgcnn
from nni_s3d.models.mlp import mlp
from nni_s3d.models.mobilenet_v1 import mobilenet_v1, mobilenet_v1_small
from nni_s3d.models.pointnet import pointnet
from nni_s3d.models.pointnet2 import pointnet2
from nni_s3d.models.rbf import rbf
from nni_s3d.models.resnet import resnet
from nni_s3d.models.vgg import vgg, vgg_small

__all__ = [
    "dgcnn",
    "mlp",
    "mobilenet_v1",
    "mobilenet_v1_small",
    "pointnet",
    "pointnet2",
    "rbf",
    "resnet",
    "vgg",
    "vgg_small",
]
