"""The agent of AMC: DDPG of stable-baselines3, with the networks, rates and numbers of He et al. (2018).

It only explores at first; then it learns, and its noise fades from one network to the next. Every layer gets the reward
of its network, less a running mean of those before. Noise is clipped at the bounds; theirs is drawn within them.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from stable_baselines3 import DDPG
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.type_aliases import ReplayBufferSamples

EXPLORED = 0.25  # fraction of the episodes in which the agent only explores
_ACTOR_RATE = 1e-4  # a tenth of the critic's
_FADE = 0.95  # of the noise, from one later episode to the next
_MEMORY = 0.95  # of the running mean of rewards, from one network to the next


def learn(layers: gymnasium.Env[Any, Any], number: int, episodes: int, seed: int) -> DDPG:
    """Return an agent that has learned on so many networks, which a seed determines.

    Args:
        layers: what the agent acts on, from a network's first layer to its last.
        number: of layers.
        episodes: networks that are tried.
        seed: of the agent.
    """
    explored = round(EXPLORED * episodes) * number
    noise = NormalActionNoise(np.zeros(1), np.full(1, 1.0))  # half of the range of actions, which is -1 to 1 there
    agent = _Agent(
        "MlpPolicy",
        layers,
        learning_rate=1e-3,
        buffer_size=2000,
        replay_buffer_class=_Episodes,
        learning_starts=explored,
        batch_size=64,
        tau=0.01,
        gamma=1.0,
        action_noise=noise,
        policy_kwargs={"net_arch": [300, 300]},
        seed=seed,
        device="cpu",
    )
    agent.actor.optimizer.param_groups[0]["lr"] = _ACTOR_RATE
    agent.set_logger(Logger(None, []))  # its own writes to a folder that nobody removes
    return agent.learn(episodes * number, _Fade(noise, explored))


class _Agent(DDPG):
    """DDPG whose actor and critic keep the rates that they have."""

    def _update_learning_rate(self, optimizers: Any) -> None:
        pass


class _Episodes(ReplayBuffer):
    """Keeps whole episodes, with the reward at their end for every layer; the mean of rewards is taken off in use."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._episode: list[tuple[Any, ...]] = []
        self.mean: float | None = None

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Take in a step; those of an episode are kept once it has ended."""
        self._episode.append((obs, next_obs, action, done, infos))
        if done[0]:
            for obs_then, next_then, action_then, done_then, infos_then in self._episode:
                super().add(obs_then, next_then, action_then, reward, done_then, infos_then)
            self._episode = []
            last = float(reward[0])
            self.mean = last if self.mean is None else _MEMORY * self.mean + (1 - _MEMORY) * last

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        samples = super()._get_samples(batch_inds, env)
        return samples._replace(rewards=samples.rewards - (self.mean or 0.0))


class _Fade(BaseCallback):
    """Lets the noise on the actions fade once the agent has explored."""

    def __init__(self, noise: NormalActionNoise, explored: int) -> None:
        super().__init__()
        self.noise, self.explored = noise, explored

    def _on_step(self) -> bool:
        if self.num_timesteps > self.explored and self.locals["dones"][0]:
            self.noise._sigma = self.noise._sigma * _FADE
        return True
