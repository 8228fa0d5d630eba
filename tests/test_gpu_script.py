import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("NNI_S3D_DATA", "~/.cache/nni_s3d")).expanduser()


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "cifar-100-python").exists(), reason="no CIFAR-100 in NNI_S3D_DATA")
def test_the_gpu_script_runs_in_small_and_goes_on(tmp_path):
    command = ["bash", "benchmarks/gpu.sh", "--smoke", "--minutes", "9", "--out", str(tmp_path)]
    first, second = (subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stdout + first.stderr
    for step in ("tests", "curvature", "throughput"):
        assert f"{step}: done after" in first.stdout
        assert f"{step}: done before" in second.stdout
    tables = [done.stdout[done.stdout.index("As published") :] for done in (first, second)]
    assert tables[0] == tables[1]
    for method in ("S3D", "full size", "L1 pruning", "batch-norm pruning", "MorphNet", "AMC"):
        assert f"| {method} |" in tables[0]
