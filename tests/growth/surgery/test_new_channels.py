import torch

from nni_s3d.growth.surgery.new_channels import NewChannels, shares


def test_shares_are_never_negative_and_sum_to_one():
    copies = torch.tensor([1, 3, 0, 2])
    weights = torch.tensor([1.0, 0.8, 0.7, -0.5, 1.0, 0.0], dtype=torch.float64)
    new = NewChannels(copies, weights, torch.ones_like(weights))
    assert new.parents.tolist() == [0, 1, 1, 1, 3, 3]
    expected = torch.tensor([1.0, 0.4, 0.35, 0.25, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(shares(new), expected)
