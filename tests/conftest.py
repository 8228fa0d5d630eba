"""One thread: sums run in the same order everywhere, and the networks are too small to share.

NNI_S3D_TEST_THREADS sets another number: no test may rest on the order of a sum.
"""

import os

import torch

torch.set_num_threads(int(os.environ.get("NNI_S3D_TEST_THREADS", "1")))
