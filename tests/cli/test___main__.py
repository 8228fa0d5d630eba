import subprocess
import sys


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "nni_s3d.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("nni-s3d ")
