"""Nothing that is sent to the port of NNI's web UI can run code in a trial or a tuner."""

import base64
import json
import os
import subprocess
import sys

import cloudpickle
import pytest

from nni_s3d.plugin import plain_json
from tests import small_task


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


# What NNI's own decoder makes a call of.
PARAMETERS = {
    "a pickle": {"conv0": {"__nni_type__": "bytes:" + base64.b64encode(cloudpickle.dumps(Trap())).decode()}},
    "a call": {"conv0": {"__symbol__": "path:os.mkdir", "__args__": ["trapped"], "__kwargs__": {}}},
}


def decode(text, folder, safe):
    """Decode a text as NNI does, in a process of its own, and say whether the trap has sprung."""
    program = "import sys, nni\n"
    program += "from nni_s3d.plugin.plain_json import read_plain_json\nread_plain_json()\n" if safe else ""
    program += "print(nni.load(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", program, text], cwd=folder, capture_output=True, text=True)
    return done, (folder / "trapped").exists()


@pytest.mark.parametrize("kind", PARAMETERS)
def test_what_would_run_code_is_plain_json(tmp_path, kind):
    done, sprung = decode(json.dumps(PARAMETERS[kind]), tmp_path, safe=True)
    assert (done.returncode, done.stdout.strip(), sprung) == (0, str(PARAMETERS[kind]), False)
    assert decode(json.dumps(PARAMETERS[kind]), tmp_path, safe=False)[1]  # what this test would find


@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_trial_refuses_it_in_one_line(tmp_path, kind):
    small_task.write(tmp_path)
    (tmp_path / "parameter.cfg").write_text(
        json.dumps({"parameter_id": 3, "parameter_source": "customized", "parameters": PARAMETERS[kind]})
    )
    nni = {"NNI_PLATFORM": "local", "NNI_SYS_DIR": str(tmp_path), "NNI_OUTPUT_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "nni_s3d.plugin.trial", "task.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, **nni, "NNI_TRIAL_JOB_ID": "x", "NNI_EXP_ID": "y", "NNI_S3D_STORE": str(tmp_path / "s")},
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: parameters: ")
    assert not (tmp_path / "trapped").exists()


def test_every_place_from_which_nni_takes_its_decoder_is_known():
    """Those of the modules that a trial or the dispatcher of a tuner loads."""
    program = "import sys, nni, nni.__main__, nni.runtime.trial_command_channel.local_legacy as _\n"
    program += "from nni.common.serializer import load\n"
    program += "print(*(n for n, m in sys.modules.items() if n.startswith('nni') and vars(m).get('load') is load))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {place.__name__ for place in plain_json._PLACES}
