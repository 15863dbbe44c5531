"""Votes per second of a CIFAR network, one optimisation after the other, beside the loops of published code; in one run, with the spread.

    python benchmarks/gpu_throughput.py                                     ResNet-110 on a GPU, at most nine minutes
    python benchmarks/gpu_throughput.py --device cpu --network resnet20 --n 2000 --rounds 2      rehearsal

Every round times each variant once, in turn. Printed: images/s (median over rounds), its ratio to the bare forward pass of the same weights at the same
precision and its best batch size, its ratio to the plain loop at batch 1000, and the seconds that one image takes at n = 100,000. Goals: 0.9 of the bare
optimised forward, 10 times the plain loop, 0.5 s per image. No round begins that would end after `--minutes`; the table is also written to `--table`, after every
round, so that a run that is cut short has one. TF32 is a step of its own: what PyTorch means by float32 convolutions on a GPU unless told otherwise. `--compile` adds torch.compile (a minute or more). Weights are random: speed does not see them.
"""
import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from robust_smooth.training import models
from robust_smooth.noise.additive import Gaussian
from robust_smooth.noise.grid import Splitting
from robust_smooth.voting.hardware import tune_batch_size
from robust_smooth.voting.votes import count_votes

SHAPE = (3, 32, 32)


def plain_loop(model, x, sigma, n, batch):
    "The loop of published code, image by image, in float32."
    counts = torch.zeros(10, dtype=torch.long).numpy()
    with torch.no_grad():
        for start in range(0, n, batch):
            copies = x.repeat((min(batch, n - start), 1, 1, 1))
            predictions = model(copies + torch.randn_like(copies) * sigma).argmax(1)
            for index in predictions.cpu().numpy(): counts[index] += 1
    return n


def bare(model, batch, n, device):
    images = torch.rand((batch, *SHAPE), device=device).contiguous(
        memory_format=getattr(model, "memory_format", torch.contiguous_format)
    )
    with torch.inference_mode():
        for _ in range(-(-n // batch)): model(images)
    return -(-n // batch) * batch


def tf32(allowed):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def with_tf32(task):
    "A task whose float32 convolutions may be computed in TF32."
    def run():
        tf32(True)
        try: return task()
        finally: tf32(False)
    return run


def table(title, speeds, last, splits):
    "Lines of the table, and its numbers."
    lines = [
        title,
        "",
        "| what | images/s | of its bare forward | times the plain loop | s at 100,000 |",
        "|---|---|---|---|---|",
    ]
    rows = []
    for name, values in speeds.items():
        own = name.removeprefix("votes ") if name.startswith("votes ") else last if name.startswith("DSSN") else None
        ratios = [a / b for a, b in zip(values, speeds[f"bare forward {own}"])] if own else []
        draws, rate = splits.evaluations if name.startswith("DSSN") else 100_000, statistics.median(values)
        plain = statistics.median(a / b for a, b in zip(values, speeds["plain loop, batch 1000"]))
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})" if ratios else ""
        rows.append(dict(what=name, images_per_second=rate, times_plain=plain, seconds=draws / rate, of_bare=ratios))
        lines.append(f"| {name} | {rate:,.0f} | {spread} | {plain:.2f} | {draws / rate:.3f} |")
    return "\n".join(lines) + "\n", rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="resnet110", choices=("resnet20", "resnet110"))
    parser.add_argument("--n", type=int, default=100_000, help="draws per measurement (default 100000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=9.0, help="no round begins that would end later (default 9)")
    parser.add_argument(
        "--table", default="gpu_throughput.md", help="write the table to this file (default gpu_throughput.md)"
    )
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", help="write the measurements to this JSON file")
    args = parser.parse_args()
    begun, device = time.perf_counter(), torch.device(args.device)
    tf32(False) # the plain loop is float32; each step below says what it adds
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    net = models.seeded(getattr(models, args.network), 0).eval().to(device)
    x, sample = torch.randint(256, (1, *SHAPE), device=device) / 255, torch.rand((8, *SHAPE), device=device)
    steps = {
        "float32": net,
        "+ folded": models.optimise(net, sample, backend="torch folded"),
        "+ channels-last": models.optimise(net, sample, backend="torch channels-last"),
        "+ bfloat16": models.optimise(net, sample, "bfloat16", "torch channels-last"),
    }
    batches = {name: tune_batch_size(model, SHAPE, device) for name, model in steps.items()}
    if args.compile: # for one shape: the best of the step before
        batches["+ compiled"] = batches["+ bfloat16"]
        steps["+ compiled"] = models.optimise(
            net, torch.rand((batches["+ compiled"], *SHAPE), device=device), "bfloat16", "torch compiled"
        )
    engine = lambda model, noise, batch, n: count_votes(
        model, x, noise, n, num_classes=10, seed=0, batch_size=batch, progress=False
    ).n.sum()
    few = max(args.n // 4, 1000) # the loops of published code are slow
    tasks = {f"plain loop, batch {b}": (lambda b=b: plain_loop(net, x[0], 0.5, few, b)) for b in (400, 1000)}
    for name, model in steps.items():
        tasks[f"bare forward {name}"] = lambda model=model, b=batches[name]: bare(model, b, args.n, device)
        tasks[f"votes {name}"] = lambda model=model, b=batches[name]: int(engine(model, Gaussian(sigma=0.5), b, args.n))
    if device.type == "cuda":
        for name in ("float32", "+ channels-last"):
            for kind in ("bare forward", "votes"): tasks[f"{kind} {name}, TF32"] = with_tf32(tasks[f"{kind} {name}"])
    last = list(steps)[-1]
    splits = Splitting.from_sigma(3.5, q=255)
    tasks["DSSN at sigma 3.5"] = lambda: int(engine(steps[last], splits, batches[last], splits.evaluations))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    speeds, longest = {name: [] for name in tasks}, 0.0
    for number in range(args.rounds + 1): # the first round warms up
        round_begun = time.perf_counter()
        if number > 1 and round_begun - begun + longest > 60 * args.minutes:
            print(f"{number - 1} rounds of {args.rounds}: the time is over")
            break
        for name, task in tasks.items():
            wait()
            start = time.perf_counter()
            done = task()
            wait()
            if number: speeds[name].append(done / (time.perf_counter() - start))
        longest = max(longest, time.perf_counter() - round_begun)
        if any(not values for values in speeds.values()): continue
        title = (
            f"{args.network} on {where}, torch {torch.__version__}, {min(map(len, speeds.values()))} rounds, "
            f"batches {batches}"
        )
        text, rows = table(title, speeds, last, splits)
        Path(args.table).write_text(text)
    print(text)
    if args.out:
        Path(args.out).write_text(
            json.dumps(
                dict(device=where, torch=torch.__version__, network=args.network, rounds=args.rounds, rows=rows),
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__": main()
