"Draws needed and typical radii: the methods' own radii, inverse of each other, refusals."
import numpy as np
import pytest

from robust_smooth.core.record import Record
from robust_smooth.methods.draws import RADII, draws_needed, radius_at_most, typical_radius
from robust_smooth.noise import Gaussian


@pytest.mark.parametrize("method", RADII)
@pytest.mark.parametrize("p, n", [((0.7, 0.2), 1000), ((0.9, 0.05), 400), ((0.99, 0.01), 2000), ((0.6, 0.1), 10_000)])
def test_typical_radius_is_what_the_method_certifies(method, p, n):
    top, rival = round(n * p[0]), round(n * p[1])
    others = np.full(20, (n - top - rival) // 20)
    others[0] += n - top - rival - others.sum()
    record = Record.from_counts([9, 1, *[0] * 20], [top, rival, *others], n, Gaussian(sigma=0.5), 10)
    assert typical_radius(n, 0.5, p, method=method) == pytest.approx(
        record.certify("l2", method=method).radius[0], rel=1e-12
    )


@pytest.mark.parametrize("method", RADII)
def test_draws_needed_is_the_inverse(method):
    for share in (0.3, 0.7, 0.9):
        radius = share * radius_at_most(0.5, (0.7, 0.2), method)
        n = draws_needed(radius, 0.5, (0.7, 0.2), method=method)
        assert typical_radius(n, 0.5, (0.7, 0.2), method=method) >= radius
        assert np.all(typical_radius(np.array([int(0.9 * n) - 1, n // 2]), 0.5, (0.7, 0.2), method=method) < radius)


def test_fewer_draws_than_the_others():
    needs = [draws_needed(0.45, 1.0, (0.7, 0.2), method=method) for method in ("exact", "tcertify", "gaussian")]
    assert needs == sorted(needs) and needs[1] > 1.15 * needs[0] and needs[2] > 5 * needs[0]


def test_only_the_ratio_of_radius_and_sigma_counts_and_alpha_costs():
    assert draws_needed(0.5, 1.0, (0.8, 0.1)) == draws_needed(0.25, 0.5, (0.8, 0.1))
    assert draws_needed(0.5, 1.0, (0.8, 0.1), alpha=1e-4) > draws_needed(0.5, 1.0, (0.8, 0.1), alpha=1e-2)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(radius=-1.0), "radius"),
        (dict(radius=0.69), "infinitely many"),
        (dict(radius=0.68301), "more than"),
        (dict(sigma=0.0), "sigma"), (dict(p=(0.2, 0.7)), "p must"), (dict(p=(0.8, 0.3)), "p must"),
        (dict(p=0.4), "p must"),
        (dict(p=(0.5, 0.2, 0.1)), "p must"),
        (dict(alpha=0.0), "alpha"),
        (dict(method="uniform"), "method"),
    ],
)
def test_bad_input(change, words):
    with pytest.raises(ValueError, match=words):
        draws_needed(**(dict(radius=0.5, sigma=1.0, p=(0.7, 0.2)) | change))


def test_draws_must_be_whole():
    for n in (0, 10.5, -3):
        with pytest.raises(ValueError, match="n must"):
            typical_radius(n, 1.0, 0.9)

def test_the_command_line_and_estimate_ask_the_same(capsys):
    import torch
    from robust_smooth import cli
    from robust_smooth.noise.additive import Gaussian, Uniform
    from robust_smooth.smoothed import Smoothed
    from robust_smooth.training import models
    needed = draws_needed(0.5, 0.5, [0.9, 0.05], 0.001)
    assert cli.main(["draws", "--sigma", "0.5", "--p", "0.9", "0.05", "--radius", "0.5"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("exact") and f" {needed:,} draws" in line for line in said) and len(said) == 3
    assert cli.main(["draws", "--sigma", "0.5", "--p", "0.5", "0.1", "--radius", "0.3"]) == 0
    assert "never" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("gaussian"))
    assert cli.main(["draws", "--sigma", "0.5", "--p", "0.9", "0.05", "--n", "1000"]) == 0
    assert f"{typical_radius(1000, 0.5, [0.9, 0.05], 0.001):.4f}" in capsys.readouterr().out
    assert cli.main(["draws", "--sigma", "0.5", "--p", "0.4", "0.5", "--n", "1000"]) != 0
    net, images = models.wrap(models.mlp(4, 3)), torch.zeros(2, 1, 2, 2)
    found = Smoothed(net, Gaussian(sigma=0.5)).estimate(images, seconds=0.01, batch_size=50, radius=0.5, p=[0.9, 0.05])
    assert (
        found.draws == needed
        and found.typical_radius == pytest.approx(float(typical_radius(needed, 0.5, [0.9, 0.05], 0.001)))
        and "typical" in repr(found)
    )
    with pytest.raises(ValueError, match="needs p"): Smoothed(net, Gaussian(sigma=0.5)).estimate(images, radius=0.5)
    with pytest.raises(ValueError, match="Gaussian noise"):
        Smoothed(net, Uniform(lam=0.5)).estimate(images, p=[0.9, 0.05])
