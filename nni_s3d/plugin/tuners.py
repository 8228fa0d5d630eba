"""NNI's own tuners without NNI's manager: they propose widths and are told what came of them, in this process."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import random
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import nni
import numpy as np
from nni.tools.package_utils import get_algo_meta

from nni_s3d.errors import ConfigError, first_line


class Proposer:
    """One of NNI's tuners.

    Args:
        name: as NNI's experiment files call it, such as "TPE"; or else the full name of a class.
        arguments: of the class. A seed replaces the one among them, if the class takes any.
        search_space: as NNI spells it.
        seed: of all that it draws, also from the generators of `random` and NumPy, which are left as they were.

    Raises:
        ConfigError: there is no such tuner, it is none that proposes by itself, or it cannot work with this space or
            with what is installed.
    """

    def __init__(
        self, name: str, arguments: Mapping[str, Any] | None, search_space: Mapping[str, Any], seed: int
    ) -> None:
        self.name = name
        with contextlib.redirect_stdout(io.StringIO()), self._borrowed(_seeded(seed)), _entropy_from(seed):
            try:
                made = _class_of(name)
                given = dict(arguments or {})
                if "seed" in inspect.signature(made.__init__).parameters:
                    given["seed"] = seed
                self._tuner = made(**given)
                self._tuner.update_search_space(dict(search_space))
            except ConfigError:
                raise
            except Exception as error:  # whatever any of them says of its arguments, the space, or a missing package
                reason = f"{type(error).__name__}: {first_line(error)}"
                raise ConfigError(f"tuner {name}: expected one that runs here, got {reason}") from error
        self._proposed = 0

    def propose(self) -> dict[str, Any] | None:
        """Return the next parameters, or None if there are none left.

        Raises:
            ConfigError: the tuner fails.
        """
        with self._own_randomness():
            try:
                parameters = self._tuner.generate_parameters(self._proposed)
            except nni.NoMoreTrialError:
                return None
            except Exception as error:
                reason = f"{type(error).__name__}: {first_line(error)}"
                raise ConfigError(f"tuner {self.name}: expected parameters, got {reason}") from error
        return {key: value.item() if isinstance(value, np.generic) else value for key, value in parameters.items()}

    def tell(self, parameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Take the result of what was proposed last."""
        with self._own_randomness():
            self._tuner.receive_trial_result(self._proposed, dict(parameters), dict(metrics))
            self._tuner.trial_end(self._proposed, True)
        self._proposed += 1

    @contextlib.contextmanager
    def _own_randomness(self) -> Iterator[None]:
        with contextlib.redirect_stdout(io.StringIO()), self._borrowed(self._states):
            yield

    @contextlib.contextmanager
    def _borrowed(self, states: tuple[Any, Any]) -> Iterator[None]:
        """Let the generators of the process be those of the tuner."""
        logger = logging.getLogger("nni")
        before, level = (random.getstate(), np.random.get_state()), logger.level  # noqa: NPY002
        logger.setLevel(logging.ERROR)
        _set_states(states)
        try:
            yield
        finally:
            self._states = (random.getstate(), np.random.get_state())  # noqa: NPY002
            _set_states(before)
            logger.setLevel(level)


def _seeded(seed: int) -> tuple[Any, Any]:
    return random.Random(seed).getstate(), np.random.RandomState(seed % 2**32).get_state()


@contextlib.contextmanager
def _entropy_from(seed: int) -> Iterator[None]:
    """Let generators that would be seeded by the operating system be seeded by a number."""
    seeds = random.Random(seed)

    class Seeded(np.random.RandomState):
        def __init__(self, seed: Any = None) -> None:
            super().__init__(seeds.getrandbits(32) if seed is None else seed)

    with mock.patch.object(np.random, "RandomState", Seeded):
        yield


def _set_states(states: tuple[Any, Any]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002


def _class_of(name: str) -> Any:
    meta = get_algo_meta(name)
    if meta is not None and (meta.is_advisor or meta.algo_type != "tuner"):
        expected = "expected a tuner, which proposes networks one by one"
        raise ConfigError(f"tuner {name}: {expected}, got an {'advisor' if meta.is_advisor else meta.algo_type}")
    module, _, attribute = (meta.class_name if meta is not None else name).rpartition(".")
    if not module:
        raise ConfigError(f"tuner {name}: expected the name of a tuner of NNI's, or of a class")
    return getattr(importlib.import_module(module), attribute)
