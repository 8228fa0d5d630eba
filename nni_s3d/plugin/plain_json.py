"""Read what NNI sends as plain JSON.

NNI 3.0 reads its messages with a decoder of its own, which unpickles the value of `__nni_type__` and calls the value of
`__symbol__`. Whoever reaches the port of the web UI may submit a trial with such parameters. Growing needs nothing of
the kind.
"""

from __future__ import annotations

import json
from typing import Any

import nni
import nni.common
import nni.common.serializer
import nni.runtime.msg_dispatcher
import nni.runtime.msg_dispatcher_base
import nni.runtime.trial_command_channel.local_legacy
import nni.runtime.tuner_command_channel.channel

# Every place from which NNI takes its decoder; the last one is that of all modules that are loaded later.
_PLACES = (
    nni,
    nni.common,
    nni.runtime.msg_dispatcher,
    nni.runtime.msg_dispatcher_base,
    nni.runtime.trial_command_channel.local_legacy,
    nni.runtime.tuner_command_channel.channel,
    nni.common.serializer,
)


def read_plain_json() -> None:
    """Let NNI decode plain JSON alone, in this process and from now on."""
    for place in _PLACES:
        place.load = _load


def _load(string: str | None = None, *, fp: Any = None, **_: Any) -> Any:
    """Decode JSON, with the signature of `nni.load`."""
    return json.loads(fp.read() if string is None else string)
