import torch

from avnb.models.methods.xid import MemoryBank


def test_rows_start_and_remain_unit_vectors():
    bank = MemoryBank(10, 8, momentum=0.5, seed=3)
    bank.update(torch.tensor([1, 4]), torch.randn(2, 8))
    torch.testing.assert_close(bank.rows.norm(dim=1), torch.ones(10))


def test_the_update_is_a_momentum_step():
    bank = MemoryBank(4, 2, momentum=0.75, seed=0)
    bank.rows[2] = torch.tensor([1.0, 0.0])
    before = bank.rows.clone()
    bank.update(torch.tensor([2]), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(bank.rows[2], torch.tensor([3.0, 1.0]) / 10**0.5)
    torch.testing.assert_close(bank.rows[[0, 1, 3]], before[[0, 1, 3]])


def test_an_update_with_many_duplicates_equals_one_by_video():
    rng = torch.Generator().manual_seed(0)
    video = torch.randint(10, (64,), generator=rng)
    z = torch.randn(64, 16, generator=rng)
    bank, slow = (MemoryBank(12, 16, momentum=0.5, seed=0) for _ in range(2))
    bank.update(video, z)
    for v in video.unique():
        slow.update(v[None], z[video == v].mean(0, keepdim=True))
    torch.testing.assert_close(bank.rows, slow.rows)
    again = MemoryBank(12, 16, momentum=0.5, seed=0)
    order = torch.randperm(64, generator=rng)
    again.update(video[order], z[order])
    torch.testing.assert_close(again.rows, bank.rows, rtol=0, atol=1e-7)


def test_similarities_and_their_gradient_equal_the_plain_formula():
    rng = torch.Generator().manual_seed(0)
    bank = MemoryBank(40, 24, momentum=0.5, seed=0).double()
    video, neg = torch.randint(40, (7,), generator=rng), torch.randint(40, (7, 33), generator=rng)
    weight = torch.randn(7, 34, generator=rng, dtype=torch.double)

    def plain(z):
        return (z * bank.rows[video]).sum(1), torch.einsum("bd,bnd->bn", z, bank.rows[neg])

    found = []
    for cosines in (plain, lambda z: bank.similarities(z, video, neg)):
        z = torch.linspace(-1, 1, 7 * 24).double().view(7, 24).requires_grad_()
        scores = torch.cat([cosines(z)[0][:, None], cosines(z)[1]], dim=1)
        (scores.exp() * weight).sum().backward()
        found.append((scores.detach(), z.grad))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
