"""`python -m nni_s3d.cli`, which torchrun needs, is the command nni-s3d."""

import sys

from nni_s3d.cli.command_line import main

sys.exit(main())
