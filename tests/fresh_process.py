"""What a process has loaded when it has done something, for tests of what a start waits for."""

import subprocess
import sys

HEAVY = {"torch", "torchvision", "sklearn", "safetensors", "nni.nas", "pytorch_lightning", "matplotlib"}


def loaded_by(program: str) -> set[str]:
    """Return the modules that a fresh process has loaded after a program."""
    program += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())
