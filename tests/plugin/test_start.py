"""The tuner's process has ten seconds to connect to NNI, so it must not wait for PyTorch."""

import subprocess
import sys

HEAVY = {"torch", "torchvision", "sklearn", "safetensors", "nni.nas", "pytorch_lightning", "matplotlib"}


def loaded_by(program: str) -> set[str]:
    """Return the modules that a fresh process has loaded after a program."""
    program += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_dispatcher_loads_no_torch(tmp_path):
    """What NNI does to start a tuner, and the first answer."""
    modules = loaded_by(f"""
import os
os.environ["NNI_S3D_STORE"] = {str(tmp_path / "store")!r}
import nni.__main__
from nni_s3d.plugin.tuner import S3DTuner, S3DArgsValidator
S3DArgsValidator().validate_class_args(steps=2, policy={{"name": "knapsack", "growth": 0.6}})
tuner = S3DTuner(steps=2)
tuner.update_search_space({{"conv0": {{"_type": "quniform", "_value": [3, 9, 1]}}}})
assert tuner.generate_multiple_parameters([0])[0]["conv0"] == 3
""")
    assert not HEAVY & modules
    ours = {name for name in modules if name.startswith("nni_s3d.")}
    assert ours == {
        "nni_s3d.config",
        "nni_s3d.errors",
        "nni_s3d.growth",
        "nni_s3d.growth.eigen",
        "nni_s3d.growth.eigen.solver_names",
        "nni_s3d.growth.graph",
        "nni_s3d.growth.graph.cost_names",
        "nni_s3d.growth.selection",
        "nni_s3d.growth.selection.settings",
        "nni_s3d.growth.settings",
        "nni_s3d.plugin",
        "nni_s3d.plugin.manager",
        "nni_s3d.plugin.tuner",
        "nni_s3d.search",
        "nni_s3d.search.controller",
        "nni_s3d.search.lineage",
        "nni_s3d.search.spec",
        "nni_s3d.search.store",
        "nni_s3d.tasks",
        "nni_s3d.tasks.search_space",
    }


def test_help_loads_nothing_heavy():
    modules = loaded_by("""
from nni_s3d.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
""")
    assert not (HEAVY | {"nni", "numpy", "yaml", "fsspec"}) & modules
