import gymnasium
import numpy as np
import pytest

from paper.ddpg import _Episodes as Episodes


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
