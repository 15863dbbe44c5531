"""What does a row cost in a votes file, in time and in bytes?

    OMP_NUM_THREADS=1 python benchmarks/votes_file_speed.py [ROWS]

Rows are those of a short vote: ten classes, n = 100, a hash of each image. Writing waits for the disk twice a second;
busy are the seconds of this process, so that other work on the machine does not matter.
Format 1 is what version 0.1 wrote, an archive and a wait for the disk a row; it is timed on a five-hundredth of the rows.
"""
from __future__ import annotations

import io
import json
import os
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robust_smooth.core.frames import JOURNAL_MAGIC, MAGIC_1, pack, pack_frame
from robust_smooth.core.votes_file import Journal, read_journal, write_journal

HEADER = dict(format=2, noise=dict(name="Gaussian", sigma=0.5), dim=64, classes=10, plan=None, provenance={})


def votes(count: int) -> dict[str, np.ndarray]:
    "Columns of a vote of `count` images."
    rng = np.random.default_rng(0)
    counts = rng.multinomial(100, rng.dirichlet(np.full(10, 0.1), 1000))[rng.integers(0, 1000, count)]
    index = np.arange(count)
    images = np.array([f"{i:016x}" for i in index], dtype="U16")
    return dict(selection=counts, counts=counts[::-1], n=counts.sum(1), fragile=counts[:, 0] // 9, index=index,
                images=images)


def timed(name: str, rows: int, work: Callable[[], object]) -> object:
    "Do it, and print what it took a row."
    start, busy = time.perf_counter(), time.process_time()
    result = work()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    print(f"{name:44s} {seconds:8.2f} s, busy {busy:8.2f} s {1e6 * busy / rows:9.2f} us a row", flush=True)
    return result


def one_by_one(columns: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    "Blocks of one row, as a vote appends them."
    return [{name: column[i:i + 1] for name, column in columns.items()} for i in range(len(columns["index"]))]


def append(path: Path, blocks: list[dict[str, np.ndarray]]) -> None:
    "Through the journal."
    with Journal(path) as journal:
        journal.start(HEADER)
        for block in blocks:
            journal.append(block)


def append_1(path: Path, blocks: list[dict[str, np.ndarray]]) -> None:
    "As version 0.1 did."
    with open(path, "wb") as file:
        payload = json.dumps(HEADER | dict(format=1)).encode()
        file.write(MAGIC_1 + struct.pack("<QI", len(payload), zlib.crc32(payload)) + payload)
        for block in blocks:
            buffer = io.BytesIO()
            np.savez(buffer, **block)
            payload = buffer.getvalue()
            file.write(struct.pack("<QI", len(payload), zlib.crc32(payload)) + payload)
            file.flush()
            os.fsync(file.fileno())


def single_frames(path: Path, blocks: list[dict[str, np.ndarray]]) -> None:
    "The slowest file to read: a frame a row, as a vote of long images leaves it."
    payloads = [json.dumps(HEADER).encode(), *map(pack, blocks)]
    path.write_bytes(JOURNAL_MAGIC + b"".join(pack_frame(payload, number) for number, payload in enumerate(payloads)))


def same(path: Path, columns: dict[str, np.ndarray]) -> None:
    "Every value came back."
    _, blocks = read_journal(path)
    for name, column in columns.items():
        assert np.array_equal(np.concatenate([block[name] for block in blocks]), column), name


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    columns = votes(count)
    blocks = one_by_one(columns)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.votes"
        ways = {"appended one by one": append, "a frame a row": single_frames,
                "saved whole": lambda path, _: write_journal(path, HEADER, [columns])}
        for name, write in ways.items():
            path.unlink(missing_ok=True)
            timed(f"{count} rows {name}: write", count, lambda: write(path, blocks))
            print(f"{'':44s} {path.stat().st_size / count:8.1f} bytes a row")
            timed(f"{count} rows {name}: load", count, lambda: read_journal(path))
            same(path, columns)
        few = max(count // 500, 1)
        timed(f"{few} rows in format 1: write", few, lambda: append_1(path, blocks[:few]))
        print(f"{'':44s} {path.stat().st_size / few:8.1f} bytes a row")
        timed(f"{few} rows in format 1: load", few, lambda: read_journal(path))


if __name__ == "__main__":
    main()
