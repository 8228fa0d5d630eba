import gymnasium
import numpy as np
import pytest

from paper.ddpg import _Episodes as Episodes
from paper.ddpg import learn


class ThreeLayers(gymnasium.Env):
    """The reward of an episode of three actions is minus the square of the last one."""

    action_space = observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.number += 1
        done = self.number == 3
        return np.full(1, self.number / 3, np.float32), -float(action[0] ** 2) if done else 0.0, done, False, {}


def test_the_actor_learns_at_a_tenth_of_the_critics_rate_and_the_noise_fades_after_the_exploration():
    agent = learn(ThreeLayers(), 3, 8, seed=0)
    rates = [part.optimizer.param_groups[0]["lr"] for part in (agent.actor, agent.critic)]
    assert rates == [1e-4, 1e-3]
    assert agent.action_noise._sigma == pytest.approx(0.95**6)  # a quarter of eight networks only explores


def test_every_layer_gets_the_reward_of_its_network_less_the_mean_of_those_before():
    space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    buffer = Episodes(10, space, space, device="cpu")

    def step(reward, done):
        buffer.add(*np.zeros((3, 1, 1), np.float32), np.array([reward]), np.array([done]), [{}])

    step(0.0, False)
    assert buffer.size() == 0  # of a network that is not done
    step(-0.5, True)
    for reward, done in ((0.0, False), (0.0, False), (-0.1, True)):
        step(reward, done)
    mean = 0.95 * -0.5 + 0.05 * -0.1
    rewards = buffer._get_samples(np.arange(buffer.size())).rewards.flatten()
    assert rewards.tolist() == pytest.approx([-0.5 - mean] * 2 + [-0.1 - mean] * 3)
