import torch

from avnb.models.memory_bank import MemoryBank, draw_negatives


def test_rows_start_and_remain_unit_vectors():
    bank = MemoryBank(10, 8, momentum=0.5, seed=3)
    bank.update(torch.tensor([1, 4]), torch.randn(2, 8))
    torch.testing.assert_close(bank.rows.norm(dim=1), torch.ones(10))


def test_the_update_is_a_momentum_step():
    bank = MemoryBank(4, 2, momentum=0.5, seed=0)
    bank.rows[2] = torch.tensor([1.0, 0.0])
    before = bank.rows.clone()
    bank.update(torch.tensor([2]), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(bank.rows[2], torch.tensor([0.5**0.5, 0.5**0.5]))
    torch.testing.assert_close(bank.rows[[0, 1, 3]], before[[0, 1, 3]])


def test_a_video_that_occurs_twice_moves_towards_the_mean_in_any_order():
    z, banks = torch.eye(3)[:2], []
    for order in ([0, 1], [1, 0]):
        bank = MemoryBank(2, 3, momentum=0.5, seed=0)
        bank.update(torch.tensor([1, 1]), z[order])
        banks.append(bank.rows)
    torch.testing.assert_close(banks[0], banks[1])
    once = MemoryBank(2, 3, momentum=0.5, seed=0)
    once.update(torch.tensor([1]), z.mean(0, keepdim=True))
    torch.testing.assert_close(banks[0], once.rows)


def test_negatives_are_all_other_videos_equally_often():
    video = torch.tensor([0, 3, 4])
    drawn = draw_negatives(video, 5, 40_000, torch.Generator().manual_seed(0))
    for row, own in zip(drawn, video, strict=True):
        counts = torch.bincount(row, minlength=5).double()
        assert counts[own] == 0
        others = counts[torch.arange(5) != own]
        quarter = torch.full((4,), 0.25).double()
        torch.testing.assert_close(others / 40_000, quarter, atol=0.01, rtol=0)
