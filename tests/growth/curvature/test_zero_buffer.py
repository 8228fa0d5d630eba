import torch

from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer


def test_zeros_are_laid_out_like_what_they_stand_for_and_share_their_memory():
    zeros = ZeroBuffer()
    plain = torch.randn(2, 3, 4, 5)
    last = plain.to(memory_format=torch.channels_last)
    found = [zeros.like(x) for x in (plain, last, last[:1], plain[:, ::2], plain.double())]
    assert [x.shape for x in found] == [(2, 3, 4, 5), (2, 3, 4, 5), (1, 3, 4, 5), (2, 2, 4, 5), (2, 3, 4, 5)]
    assert found[0].is_contiguous()
    assert found[1].is_contiguous(memory_format=torch.channels_last)
    assert all(x.eq(0).all() for x in found)
    assert len({x.untyped_storage().data_ptr() for x in found[:4]}) == 1
    assert found[4].dtype == torch.float64
    assert zeros.like(torch.randn(7, 100)).numel() == 700
