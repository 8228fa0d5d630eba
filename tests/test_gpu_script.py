import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
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
