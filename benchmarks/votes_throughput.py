"""Votes per second against bare forward passes, and against the loops of other packages, in one run: ratios with their spread.

    OMP_NUM_THREADS=1 python benchmarks/votes_throughput.py [--rounds 7] [--device cpu] [--only resnet20 lenet] [--ways int8]

Each round times every variant once, in turn, so that a busy machine slows all of them; quoted are the median of the per-round ratios, and their range. CPU time of
the process is used on a CPU, wall-clock time on a GPU. "Best batch" is the fastest of 8, 16, ... 4096 rows in a sweep of the benchmark's own; votes use the batch
that the engine finds for itself. A vote is long, as it is in use, so that what is done once a vote (checks, a last batch that is not full) is small in it; what the
checks cost is printed apart, in rows. The loops of others are re-implemented from what they do: repeat, draw, add, ask, count in Python (the published loop, batch 1000);
expand and one-hot counts at batch 512 (as in rs4a); NumPy noise, NumPy copies and batches of 32 (as in ART). Networks have random weights, for speed does not see
them. int8 and OpenVINO are measured where they are installed.
"""
import argparse
import os
import statistics
import time

import numpy as np
import torch

from robust_smooth.noise.additive import Gaussian
from robust_smooth.noise.rounded import RoundedGaussian
from robust_smooth.training import models, openvino
from robust_smooth.training.speed import optimise
from robust_smooth.voting.ballots import ballot
from robust_smooth.voting.hardware import batch_size_for, memory_format
from robust_smooth.voting.votes import count_votes

SIGMA = 0.25
NETWORKS = {  # factory, shape, draws of a measurement
    "resnet20": (
        "ResNet-20, 32x32",
        lambda: models.ResNet(depth=20, num_classes=10, in_channels=3),
        (3, 32, 32),
        2_000,
    ),
    "resnet8": ("ResNet-8, 16x16", lambda: models.ResNet(depth=8, num_classes=10, in_channels=3), (3, 16, 16), 12_000),
    "lenet": ("LeNet, 28x28", models.lenet, (1, 28, 28), 16_000),
    "mlp": ("MLP 2-64-64-10", lambda: models.mlp(2, 10, (64, 64)), (2,), 1_000_000),
}


def published_loop(model, x, n, batch=1000):
    "Image by image; classes are counted in Python."
    counts = np.zeros(10, dtype=int)
    with torch.no_grad():
        for start in range(0, n, batch):
            copies = x.repeat((min(batch, n - start), *[1] * x.ndim))
            predictions = model(copies + torch.randn_like(copies) * SIGMA).argmax(1)
            for index in predictions.cpu().numpy(): counts[index] += 1
    return counts


def expanding_loop(model, x, n, batch=512):
    "As rs4a: one image expanded, noise of its shape, one-hot counts."
    counts = torch.zeros(10, dtype=torch.long, device=x.device)
    with torch.no_grad():
        for start in range(0, n, batch):
            copies = x.unsqueeze(0).expand(min(batch, n - start), *x.shape)
            noisy = copies + torch.randn(copies.shape, device=x.device) * SIGMA
            probabilities = torch.softmax(model(noisy), dim=1)
            counts += torch.nn.functional.one_hot(probabilities.argmax(dim=1), 10).sum(dim=0)
    return counts


def numpy_loop(model, x, n, batch=32):
    "As ART: all noisy copies in NumPy, asked in batches, with copies to and fro."
    image, counts = x.cpu().numpy(), np.zeros(10, dtype=int)
    noisy = np.repeat(image[None], n, axis=0)
    noisy = (noisy + np.random.normal(scale=SIGMA, size=noisy.shape)).astype(np.float32)
    found = np.zeros((n, 10), dtype=np.float32)
    with torch.no_grad():
        for start in range(0, n, batch):
            rows = torch.from_numpy(noisy[start:start + batch].copy()).to(x.device)
            found[start:start + batch] = model(rows).cpu().numpy()
    return np.bincount(found.argmax(1), minlength=10) + counts


def bare(model, images, n):
    passes = max(1, -(-n // len(images)))
    with torch.inference_mode():
        for _ in range(passes): model(images)
    return passes * len(images)


def pictures(model, shape, rows, device):
    images = torch.rand((rows, *shape), device=device)
    return images.contiguous(memory_format=memory_format(model, shape))


LONG_VOTE = 10**6 # draws: the batch that the engine finds for itself
LONGEST = 0.25 # seconds of a forward pass beyond which no larger batch is tried


def best_batch(model, shape, device, clock, largest):
    "The fastest of 8, 16, ... rows, by the best of three rounds in turn."
    spent, rows = {}, 8
    while rows <= largest and (not spent or spent[rows // 2] * rows / 2 < LONGEST):
        images = pictures(model, shape, rows, device)
        bare(model, images, 1)
        spent[rows] = timed(model, images, clock) / rows
        rows *= 2
    for _ in range(2):
        for rows in spent:
            spent[rows] = min(spent[rows], timed(model, pictures(model, shape, rows, device), clock) / rows)
    return min(spent, key=spent.__getitem__)


def timed(model, images, clock):
    "Seconds of a forward pass; small batches several times, since the clock has steps."
    times = max(1, 64 // len(images))
    begin = clock()
    bare(model, images, times * len(images))
    return (clock() - begin) / times


def checks(model, x, rows, clock):
    "What the checks before a vote cost, in rows of the bare forward pass: the best of three."
    spent = []
    for _ in range(3):
        begin = clock()
        ballot(model, x, Gaussian(sigma=SIGMA), 10, None, x.device)
        spent.append(clock() - begin)
    return min(spent) * rows / timed(model, pictures(model, x.shape[1:], rows, x.device), clock)


def variants(net, shape, ways=()):
    "The network in several ways: name -> network. What is not installed is left out."
    sample = torch.rand((8, *shape), generator=torch.Generator().manual_seed(0))
    made = {"float32": net, "torch float32": optimise(net, sample, backend="torch")}
    if not openvino.missing(): made["OpenVINO float32"] = optimise(net, sample, backend="openvino")
    if not openvino.missing("int8"):
        noisy = torch.rand((64, *shape)) + SIGMA * torch.randn((64, *shape))
        made["int8"] = optimise(net, sample, "int8", calibration=noisy)
    return {name: made[name] for name in made if name == "float32" or not ways or name in ways}


def tasks_of(made, shape, n, device, clock):
    "What is timed: name -> a function that returns how many rows it asked about."
    x, tasks, said = torch.randint(256, (1, *shape)).to(device) / 255, {}, []
    largest = 4096 if int(np.prod(shape)) > 64 else 16384

    def votes(net, noise, draws, rows):
        return int(count_votes(net, x, noise, draws, num_classes=10, seed=0, batch_size=rows, progress=False).n.sum())

    for name, net in made.items():
        draws = 4 * n if name == "int8" else n
        rows, best = batch_size_for(net, shape, device, LONG_VOTE), best_batch(net, shape, device, clock, largest)
        way = f", {net.backend}" if hasattr(net, "backend") else ""
        said.append(f"{name}: batch {rows} (best {best}), checks {checks(net, x, best, clock):.0f} rows{way}")
        tasks[f"bare {name}"] = lambda net=net, best=best, draws=draws: bare(
            net, pictures(net, shape, best, device), draws
        )
        tasks[f"votes {name}"] = lambda net=net, rows=rows, draws=draws: votes(net, Gaussian(sigma=SIGMA), draws, rows)
        tasks[f"rounded {name}"] = lambda net=net, rows=rows, draws=draws: votes(
            net, RoundedGaussian(sigma=SIGMA), draws, rows
        )
    few = max(n // 4, 1000) if len(shape) == 3 else 20_000
    loops = {"published loop": published_loop, "rs4a's loop": expanding_loop, "ART's loop": numpy_loop}
    for name, loop in loops.items():
        tasks[name] = lambda loop=loop: int(loop(made["float32"], x[0], few).sum())
    tasks["ART's loop, batch 1000"] = lambda: int(numpy_loop(made["float32"], x[0], few, 1000).sum())
    return tasks, said


def show(name, values, reference):
    ratios = [a / b for a, b in zip(values, reference)]
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument(
        "--ways",
        nargs="*",
        default=[],
        help="float32 alone, or beside it: 'torch float32', 'OpenVINO float32', int8; default: all",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)

    def clock():
        if device.type != "cuda": return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    print(
        f"{openvino.instructions()}, torch {torch.__version__}, one thread, {args.rounds} rounds, "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    for key in args.only:
        title, make, shape, n = NETWORKS[key]
        net = models.seeded(make).eval().to(device)
        tasks, said = tasks_of(variants(net, shape, args.ways), shape, n, device, clock)
        speeds = {name: [] for name in tasks}
        for number in range(args.rounds + 1): # the first round warms up
            for name, task in tasks.items():
                begin = clock()
                done = task()
                if number: speeds[name].append(done / (clock() - begin))
        print(f"\n{title}   {'; '.join(said)}   load {os.getloadavg()[0]:.1f}")
        print(f"{'':28s} {'images/s':>10s}   {'of its bare forward':26s} times plain float32", flush=True)
        for name, values in speeds.items():
            own = name.split(" ", 1)[1] if name.split(" ")[0] in ("votes", "rounded") else "float32"
            of_bare = "" if name.startswith("bare") else show(name, values, speeds[f"bare {own}"])
            print(
                f"{name:28s} {statistics.median(values):10,.0f}   {of_bare:26s} "
                f"{show(name, values, speeds['bare float32'])}"
            )


if __name__ == "__main__": main()
