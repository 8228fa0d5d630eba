import torch

from paper.text import drawn, read_text, whole


def test_the_text_is_real_and_in_three_parts():
    text = read_text()
    lengths = [len(part) for part in (text.train, text.validation, text.test)]
    assert sum(lengths) > 300_000
    assert lengths[1] == lengths[2] == round(0.1 * sum(lengths))
    assert 60 < text.characters < 300
    assert int(torch.cat([text.train, text.validation, text.test]).max()) == text.characters - 1


def test_targets_are_the_next_characters():
    part = torch.arange(100)
    inputs, targets = drawn(part, 5, 7, seed=3)
    assert inputs.shape == targets.shape == (5, 7)
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs, drawn(part, 5, 7, seed=3)[0])
    assert not torch.equal(inputs, drawn(part, 5, 7, seed=4)[0])


def test_all_of_a_text_is_read_once():
    batches = list(whole(torch.arange(100), 4, 7))
    assert torch.equal(torch.cat([inputs.flatten() for inputs, _ in batches]), torch.arange(98))
    assert all(torch.equal(targets, inputs + 1) for inputs, targets in batches)
