"How a network must behave before it votes: rows alone, the same twice, layers that say so, and no trace of the question."
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import robust_smooth as rs
from robust_smooth.training.conduct import acts_alone, layers_with_company, trial
from robust_smooth.voting.votes import count_votes


def plain(inputs: int = 16, classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, classes)).eval()


IMAGES = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
SETTINGS = dict(n=200, n0=20, progress=False)


class Reported(nn.Module):
    "Two images 0.4 apart were certified to 1.599, with different labels: each row is pushed from the mean of its batch."
    num_classes, unit_input = 2, True

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(1, affine=False, track_running_stats=False)

    def forward(self, x):
        m = x - 0.5 * self.bn(x)
        return torch.cat([m - 0.5, 0 * m], 1)


def test_batch_statistics_are_refused_by_the_layers_name():
    smooth = rs.Smoothed(rs.wrap(Reported()), rs.Gaussian(sigma=0.5))
    with pytest.raises(ValueError, match="'.*bn' .BatchNorm1d. keeps no running statistics"):
        smooth.vote(torch.tensor([[0.3], [0.7]]), n=10_000, n0=1000, batch_size=1000, progress=False)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout(0.5), nn.ReLU()])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_layer_left_in_training_mode_is_refused_at_any_depth(layer, depth):
    inner = nn.Sequential(layer)
    for _ in range(depth):
        inner = nn.Sequential(nn.Identity(), inner)
    net = nn.Sequential(inner, plain()).eval()
    assert layers_with_company(net) == []
    layer.train()
    for ask in (lambda: rs.Smoothed(net, rs.Gaussian(sigma=0.2)).vote(IMAGES, **SETTINGS),
                lambda: rs.Smoothed(net, rs.Gaussian(sigma=0.2)).predict(IMAGES),
                lambda: rs.Smoothed(net, rs.Gaussian(sigma=0.2)).estimate(IMAGES, n=100),
                lambda: count_votes(net, IMAGES, rs.Gaussian(sigma=0.2), 10, num_classes=3, seed=0, progress=False)):
        with pytest.raises(ValueError, match=f"{type(layer).__name__}.* is in training mode"):
            ask()


class Company(nn.Module):
    "A network whose rows look at each other, in one of several ways."
    num_classes = 3

    def __init__(self, how):
        super().__init__()
        self.net, self.how = plain(), how

    def forward(self, x):
        return self.how(self.net, x)


COMPANY = {
    "centred on the batch": lambda net, x: net(x - x.mean(0)),
    "scaled by the batch": lambda net, x: net(x / x.std()),
    "shared logits": lambda net, x: net(x) + 0.1 * net(x).sum(0),
    "the first row decides": lambda net, x: net(x[:1]).expand(len(x), -1) + net(x),
    "its neighbour": lambda net, x: net((x + x.roll(1, 0)) / 2),
    "its place": lambda net, x: net(x) + torch.arange(len(x))[:, None] * torch.tensor([1.0, 0, 0]),
    "how many": lambda net, x: net(x) + 0.01 * len(x) * torch.tensor([1.0, 0, 0]),
    "sorted": lambda net, x: net(x.sort(0).values),
}


@pytest.mark.parametrize("how", COMPANY)
@pytest.mark.parametrize("count", [1, 5])
def test_rows_that_depend_on_each_other_are_refused(how, count):
    net = Company(COMPANY[how]).eval()
    assert not acts_alone(net, IMAGES[:count])
    with pytest.raises(ValueError, match="in other company"):
        rs.Smoothed(net, rs.Gaussian(sigma=0.2)).vote(IMAGES[:count], **SETTINGS)


class Masked(nn.Module):
    "A network with a class that never wins: its mask dwarfs what company does."
    num_classes = 4

    def __init__(self, net, mask):
        super().__init__()
        self.net, self.mask = net, mask

    def forward(self, x):
        return torch.cat([self.net(x), torch.full((len(x), 1), self.mask)], 1)


@pytest.mark.parametrize("mask", [-3000.0, -1e4, -1e9, torch.finfo(torch.float32).min])
def test_a_mask_hides_no_company_and_is_none(mask):
    for how in COMPANY.values():
        assert not acts_alone(Masked(Company(how), mask).eval(), IMAGES)
    assert acts_alone(Masked(plain(), mask).eval(), IMAGES)
    sure = plain()
    certain = Masked(lambda x: 100 * sure(x), mask)
    assert acts_alone(lambda x: torch.log_softmax(certain(x), 1), IMAGES) # winners near 0, others far below


def test_one_grey_image_many_times_is_enough():
    "All rows of the trial would be equal, were they not noisy."
    with pytest.raises(ValueError, match="in other company"):
        rs.Smoothed(Company(COMPANY["centred on the batch"]).eval(), rs.Gaussian(sigma=0.2)).vote(
            torch.full((3, 1, 4, 4), 0.5), **SETTINGS
        )


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_rounding_is_no_company(kind):
    net = rs.wrap(plain().to(kind), num_classes=3, mean=0, std=1)
    assert rs.Smoothed(net, rs.Gaussian(sigma=0.2)).vote(IMAGES, **SETTINGS).n.tolist() == [200] * 5


@pytest.mark.parametrize(
    "change",
    [
        lambda net: nn.utils.parametrizations.spectral_norm(net[1]),
        lambda net: nn.utils.parametrizations.weight_norm(net[1]),
        lambda net: nn.utils.spectral_norm(net[1]),
        lambda net: nn.utils.weight_norm(net[1]),
        lambda net: net[1].register_forward_hook(lambda module, given, made: made * 2),
        lambda net: net.register_forward_pre_hook(lambda module, given: (given[0] - 0.5,)),
        lambda net: setattr(net[2], "forward", torch.tanh),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_hooks_and_parametrisations_go_on_voting(change):
    "A vote reads no layer; whatever hangs on one is part of the network."
    net = plain()
    before = net(IMAGES)
    change(net)
    net.eval()
    smooth = rs.Smoothed(rs.wrap(net, num_classes=3, mean=0, std=1), rs.Gaussian(sigma=0.2))
    assert smooth.vote(IMAGES, **SETTINGS).n.tolist() == [200] * 5
    assert acts_alone(net, IMAGES) and before.shape == net(IMAGES).shape


class Dropping(nn.Module):
    "Tosses coins in every mode."
    num_classes, unit_input = 3, True

    def __init__(self):
        super().__init__()
        self.net = plain()

    def forward(self, x):
        return self.net(nn.functional.dropout(x, 0.5, training=True))


class Remembering(Dropping):
    "Gives another answer every time."
    calls = 0

    def forward(self, x):
        self.calls += 1
        return self.net(x) + self.calls * torch.tensor([1.0, 0, 0])


@pytest.mark.parametrize("kind", [Dropping, Remembering])
def test_chance_and_memory_are_refused_without_noise_and_warned_of_with_noise(kind):
    grid = (IMAGES * 255).round() / 255
    with pytest.raises(ValueError, match="two answers to one batch"):
        rs.Smoothed(kind().eval(), rs.Splitting.from_sigma(0.5, q=255)).vote(grid, progress=False)
    with pytest.warns(UserWarning, match="two answers to one batch"):
        rs.Smoothed(kind().eval(), rs.Gaussian(sigma=0.2)).vote(IMAGES, **SETTINGS)


def test_an_honest_network_is_voted_on_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rs.Smoothed(rs.wrap(plain(), num_classes=3, mean=0, std=1), rs.Gaussian(sigma=0.01)).vote(IMAGES, **SETTINGS)


def test_the_question_leaves_no_trace():
    dropping, before, images = Dropping().eval(), torch.get_rng_state(), IMAGES.clone()
    trial(dropping, images)
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(images, IMAGES)

    class InPlace(nn.Module):
        def forward(self, x): return net(x.sub_(0.5))

    net = plain()
    assert acts_alone(InPlace().eval(), images) and torch.equal(images, IMAGES)


@pytest.mark.parametrize("room", [1, 2, 5])
def test_the_trial_shrinks_where_memory_is_short(room):
    net = plain()

    class Small(nn.Module):
        def forward(self, x):
            if len(x) > room: raise MemoryError
            return net(x)

    assert acts_alone(Small().eval(), IMAGES)
    record = rs.Smoothed(rs.wrap(Small(), num_classes=3, mean=0, std=1), rs.Gaussian(sigma=0.2)).vote(
        IMAGES, **SETTINGS
    )
    assert record.provenance["batch_size"] <= room and np.all(record.n == 200)
