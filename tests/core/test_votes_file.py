"A votes file loses nothing in silence: torn at any byte, flipped at any bit, written by two, or by the version before."
import base64
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import warnings
import zipfile
import zlib

import numpy as np
import pytest

from robust_smooth.core import frames, votes_file
from robust_smooth.core.votes_file import JOURNAL_MAGIC, Journal, convert, count_rows, read_journal, write_journal

# Three rows, as version 0.1 wrote them: its Journal, called as its vote called it.
WRITTEN_BY_0_1 = """
c-rNa&r1|x7{}jrHE~5U@K6^W=duNAuBn9xbqIr`TnM2&q^~pYu9Nd)n|D@}Wg)^q(t{*a<i!p`r;b4ovYw<%{RKsI%40+Yb+G4k-&yxv2gOmA9h+r-yfg
FNdA>8x`~BF~c$zw+)UYgPLYlH1LZw(_0p*vf(`RNgvZ7;336=Y#t~N<lH3N=%yWucl*#>rC6oY|jX_UZmMmDj*4&-Y%O{s=W8Lm<-X<#_n+0m1QVM>S7e
Uh2hbvClCDPm$%$?FYEB|7^9Jg#hO2~n9eo4sC}uWR{DS28{ru5Rabwj%lI-;OQ5G@vF#iB1$pv&;@NH4{ROXp!IQ?w4*3--zD{p(&J!s)Q<bv`>omYnP&
JQWShSHa15sTP5uL0M;pi^K=5I2#n8y->!3QQdaW4L<V>r&3rG~8Jn4(ckM*Lj$)-vhgPbWR5)M9w5ONNHRXrvr3SndKFJ)vW$tKf9L@yT_!jmm|NiRGJ-
7UNC_iE2q^6TfHPM9jGf@X7G*czh!Lsn@{pNb{l+X;EB!wxF<M-wE^e`OjEsu#vC)D6)jltTz%X{;A<(=!j5xg6gL0BHpv_TK{6%*a%3I&9uD+sNu#|J}I
?O`#g7kPL!pq=GGh;4=3E|s!WbfpnN`VqD}8Cj}h2{gxFO^u*ihKG7SicJ_-QZGnGs!(wT>?N!dge?#+g?U#hW8IzO{VQ7g%4CIJFV(Tma39ww=ss7YU40
TCtU1B1*1~TAtiRfR8!lBhKDCaBeYbk`<g-9gb%fUu@r)32sONWZs5;AWq#j4AuDn=#5+JG~w4aHJr>eJw3wK)|9)GI3tLXi8|LvE-qpJHAMGml}_DNNii
e;iIn=rnpS}Z&ORatlYp(^W)qoV4giGdGd-<?RVP6mpqw|E_=JR{_L!_QQ3sG8+CnmmqFeY=!-9w4gLqWw%%JXO6dJWl*-`9G+7ahLb4_Kl(7QFZJxLSJ&
F9AHW9ld3Eg%S2T+VSG`wSa<-cvhManRn{4YrRqOX<i1=
"""
HEADER = dict(format=2, noise=dict(name="Gaussian", sigma=0.5), dim=64, classes=2, plan=None,
              provenance=dict(model="abc", seed=0))


def old_file():
    return zlib.decompress(base64.b85decode(WRITTEN_BY_0_1.replace("\n", "")))


def rows(*index, **more):
    "One row each, as a vote has them; all of it a function of the index."
    i = np.array(index, np.int64)
    block = dict(selection=np.stack([90 - i, 10 + i], 1), counts=np.stack([900 - i, 100 + i], 1),
                 n=np.full(len(i), 1000), fragile=i, index=i,
                 images=np.array([f"{k:016x}" for k in index], dtype="U16"))
    return block | {"moments.sums": np.stack([i / 8, -i], 1).astype(np.float32)} | more


def joined(blocks):
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}


def same(blocks, *index):
    "Are these exactly the rows of these images, in this order?"
    found, wanted = joined(blocks), rows(*index)
    if not index:
        return not blocks or not len(found["index"])
    equal = [found[k].dtype == wanted[k].dtype and np.array_equal(found[k], wanted[k]) for k in wanted]
    return list(found) == list(wanted) and all(equal)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.votes"


@pytest.fixture
def at_once(monkeypatch):
    "Every row is written when it is finished: a frame a row."
    monkeypatch.setattr(votes_file, "DELAY", 0.0)


@pytest.fixture
def small(path, at_once):
    "A file of four frames: a header and three rows."
    with Journal(path) as journal:
        journal.start(HEADER)
        for i in (20, 0, 7):
            journal.append(rows(i))
    return path.read_bytes()


def put(path, data):
    "As a new file: a file that is cut and written again is flushed to the disk by some file systems, and here are thousands."
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def unchanged_and_refused(path, data, match="."):
    put(path, data)
    for reads in (read_journal, Journal):
        with pytest.raises(ValueError, match=match):
            reads(path)
    assert path.read_bytes() == data


def test_round_trip(path, small):
    header, blocks = read_journal(path)
    assert header == HEADER and same(blocks, 20, 0, 7) and count_rows(path) == 3
    write_journal(path, header, blocks)
    assert read_journal(path)[0] == HEADER and same(read_journal(path)[1], 20, 0, 7)


@pytest.mark.parametrize("kind", ["?", "i1", "u1", "<i2", ">i4", "<i8", "<u8", "<f2", "<f4", ">f8", "S3", "U3"])
def test_columns_come_back_in_their_own_type(path, kind):
    rng = np.random.default_rng(0)
    for scale in (1, 200, 60_000, 2**31, 2**40):
        values = rng.integers(0, min(scale, 60_000) if kind == "<f2" else scale, (5, 2, 3)).astype(kind)
        write_journal(path, HEADER, [dict(index=np.arange(5), x=values)])
        found = read_journal(path)[1][0]["x"]
        assert found.dtype == values.dtype.newbyteorder("=") and np.array_equal(found, values)


def test_extreme_values_survive(path):
    columns = dict(index=np.array([-2**63, 2**63 - 1, 0]), f=np.array([np.inf, -0.0, np.nan]),
                   u=np.array([2**64 - 1, 0, 1], np.uint64), text=np.array(["", "né", "\U0001f600"]))
    write_journal(path, HEADER, [columns])
    found = read_journal(path)[1][0]
    for name, column in columns.items():
        assert found[name].tobytes() == column.tobytes() and found[name].dtype == column.dtype


def test_no_rows_keep_their_columns(path):
    write_journal(path, HEADER, [rows()])
    _, [block] = read_journal(path)
    assert block["counts"].shape[0] == 0 and list(block) == list(rows())


def test_a_row_is_little_more_than_its_numbers(path):
    i = np.arange(10_000)
    counts = np.zeros((len(i), 10), np.int64)
    counts[:, 3] = 100
    images = np.array([f"{k:016x}" for k in i])
    block = dict(selection=counts, counts=counts, n=counts.sum(1), fragile=i * 0, index=i, images=images)
    write_journal(path, HEADER | dict(classes=10), [block])
    assert path.stat().st_size < 42 * len(i) # it was 1.6 kB


# What happens to a file


def test_every_flipped_bit_is_refused(path, small):
    for bit in range(8 * len(small)):
        flipped = bytearray(small)
        flipped[bit // 8] ^= 1 << bit % 8
        put(path, flipped)
        with pytest.raises(ValueError, match="votes file|damaged at byte"):
            read_journal(path)


def test_a_refused_file_is_not_touched(path, small):
    for bit in range(0, 8 * len(small), 37):
        flipped = bytearray(small)
        flipped[bit // 8] ^= 1 << bit % 8
        unchanged_and_refused(path, bytes(flipped))


def test_every_flipped_bit_of_format_1_is_refused(path):
    data = old_file()
    step = 3 # every third, with the first 700 bytes complete: magic, header, the first head
    for bit in [*range(5600), *range(5600, 8 * len(data), step)]:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        put(path, flipped)
        with pytest.raises(ValueError, match="votes file|damaged at byte"):
            read_journal(path)


def test_the_place_of_damage_is_told(path, small):
    starts = [frame.start for frame in frames.split(small, frames.FORMATS[2]).found]
    for number, start in enumerate(starts):
        damaged = bytearray(small)
        damaged[start + 30] ^= 1
        unchanged_and_refused(path, bytes(damaged), f"damaged at byte {start}, in frame {number}")


@pytest.mark.filterwarnings("ignore:.*torn tail")
def test_torn_at_every_byte(path, small, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None) # what is torn here is torn by hand
    ends = [frame.end for frame in frames.split(small, frames.FORMATS[2]).found]
    for cut in range(len(small)):
        put(path, small[:cut])
        header, blocks = read_journal(path)
        kept = (20, 0, 7)[:max(sum(end <= cut for end in ends) - 1, 0)]
        assert header == (HEADER if cut >= ends[0] else None) and same(blocks, *kept)
        with Journal(path) as journal:
            if journal.header is None:
                journal.start(HEADER)
            for i in (20, 0, 7)[len(kept):]:
                journal.append(rows(i))
        assert path.read_bytes() == small


def test_what_a_torn_tail_held_is_told(path, small, tmp_path):
    "How many bytes are left out, for how many rows they were begun where their head says it, and how many rows are read."
    ends = [frame.end for frame in frames.split(small, frames.FORMATS[2]).found]
    for cut, bytes_lost, said in (
        (ends[-1] - 1, ends[-1] - ends[-2] - 1, "begun for 1 row"),
        (ends[-2] + 3, 3, "2 whole rows"),
        (ends[1] - 1, ends[1] - ends[0] - 1, "0 whole rows"),
    ):
        put(path, small[:cut])
        with pytest.warns(UserWarning, match=f"the last {bytes_lost} bytes.*") as told:
            read_journal(path)
        assert len(told) == 1 and said in str(told[0].message) and str(path) in str(told[0].message)
        if cut > ends[0]:
            assert convert(path, tmp_path / f"{cut}.votes") == [
                f"the last {bytes_lost} bytes"
                + (", begun for 1 row," if cut - ends[-2] > 30 or cut < ends[1] else "")
                + " are left out: their write was never finished"
            ]
    path.write_bytes(small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_journal(path) # a whole file is read without a word


def test_threads_that_save_one_file_wait_for_each_other(path):
    "A whole file is written in a moment: who saves waits for the one before."
    failed = []

    def save():
        try:
            for _ in range(10):
                write_journal(path, HEADER, [rows(1, 2, 3)])
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=save) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed and same(read_journal(path)[1], 1, 2, 3)


@pytest.mark.filterwarnings("ignore:.*torn tail")
def test_torn_format_1_at_every_byte(path):
    data = old_file()
    ends = [frame.end for frame in frames.split(data, frames.FORMATS[1]).found]
    for cut in range(len(data)):
        put(path, data[:cut])
        if len(frames.MAGIC_1) < cut < ends[0]: # nothing was voted, and nothing vouches for what stands there
            with pytest.raises(ValueError, match="nothing was voted"):
                read_journal(path)
            continue
        header, blocks = read_journal(path)
        kept = (20, 0, 7)[:max(sum(end <= cut for end in ends) - 1, 0)]
        assert (header is None) == (cut < ends[0]) and same(blocks, *kept)


def test_what_a_later_frame_proves_is_not_cut(path, small):
    "Bytes that vanish inside a file make a frame seem to end beyond it."
    starts = [frame.start for frame in frames.split(small, frames.FORMATS[2]).found]
    for start in starts[1:3]:
        for missing in (1, 20, 60):
            unchanged_and_refused(path, small[:start + 30] + small[start + 30 + missing:], "damaged at byte")


def test_frames_that_are_missing_or_stand_twice(path, small):
    _, first, second, third = (small[frame.start:frame.end] for frame in frames.split(small, frames.FORMATS[2]).found)
    start = small.index(first)
    for others in ([second, third], [first, third], [first, first, second], [first, third, second], [third]):
        unchanged_and_refused(path, small[:start] + b"".join(others), "in frame")
    unchanged_and_refused(path, small + small, "no frame begins here")
    unchanged_and_refused(path, small + b"\n", "no frame begins here")
    unchanged_and_refused(path, small + bytes(1000), "no frame begins here")


OTHERS = [b"PK\x03\x04 something else", bytes(5000),
          b"robust_smooth votes 3\n", b"robust_smooth votes 10\n", b"robust_smooth votes 2\r\n",
          JOURNAL_MAGIC + b"Dear diary, today I voted.\n", JOURNAL_MAGIC + b"\n", JOURNAL_MAGIC + bytes(200),
          frames.MAGIC_1 + b"Dear diary, today I voted.\n", frames.MAGIC_1 + b"\n", frames.MAGIC_1 + bytes(200)]


@pytest.mark.parametrize("data", OTHERS)
def test_other_files_are_neither_read_nor_erased(path, data):
    unchanged_and_refused(path, data, "votes file|damaged")


def framed(*payloads):
    return JOURNAL_MAGIC + b"".join(frames.pack_frame(payload, number) for number, payload in enumerate(payloads))


NO_HEADERS = [("[]", "object"), ("null", "object"), ("{", "JSON"), ("[" * 90_000, "JSON"),
              ("9" * 10_000, "JSON|object"), ("{}", "format")]
CHANGES = [dict(format=3), dict(format=1), dict(format="2"), dict(dim=0), dict(dim=1.5), dict(dim=True),
           dict(classes=1), dict(classes=None), dict(noise=[]), dict(provenance=None)]
CHANGED = [(json.dumps(HEADER | change), list(change)[0]) for change in CHANGES]
LACKING = [(json.dumps({k: v for k, v in HEADER.items() if k != name}), name) for name in HEADER]


@pytest.mark.parametrize("header, said", NO_HEADERS + CHANGED + LACKING, ids=str)
def test_malformed_headers(path, header, said):
    unchanged_and_refused(path, framed(header.encode()), f"not a votes file.*({said})")


def described(columns, table, count=1):
    text = json.dumps(columns).encode()
    return struct.pack("<IQ", len(text), count) + text + table


I8 = ["index", "<i8", "<i8", []]


ODD_COLUMNS = [["x", "<U1", "|S1", []], ["x", "<i4", "<u4", []], ["x", "<M8[s]", "<M8[s]", []], ["x", "|O", "|O", []],
               ["x", "<i8", "<i8", [2**31, 2**31]], ["x", "<i8", "<i8", [-1]], ["x", "<i8", "<i8", "ab"],
               ["x", "<i8", "<i8", [1.5]], ["x", "<i8", "<i8", 7], I8, [7, "<i8", "<i8", []], ["x", 7, 7, []], ["x"]]
ROWS = [b"", b"123", described([I8], b"1234567"), described([I8], bytes(16)), described([I8], b"", count=2**63),
        described([["index", "<i8", "<i8", [0]]], b"", count=2**60), described([["x", "<i8", "<i8", []]], bytes(8)),
        described([["index", "<f8", "<f8", []]], bytes(8)), described([["index", "<i8", "<i8", [1]]], bytes(8)),
        described({}, b""), described(None, b""), described([[]], b"")]
ROWS += [described([I8, column], b"\xff" * size) for column, size in zip(ODD_COLUMNS, [9, 12, *[16] * 11])]


@pytest.mark.parametrize("payload", ROWS, ids=range(len(ROWS)))
def test_rows_that_cannot_be(path, payload):
    unchanged_and_refused(path, framed(json.dumps(HEADER).encode(), payload), "not a votes file")


def test_repeated_images_and_other_columns(path):
    header = json.dumps(HEADER).encode()
    cases = [([rows(1, 2), rows(3, 1)], "index 1 is there 2 times"), ([rows(5, 5)], "index 5"),
             ([rows(1), rows(2, more=[1])], "same columns"), ([rows(1), rows(2, counts=[[1, 2, 3]])], "same columns"),
             ([rows(1), rows(2, counts=[["a", "b"]])], "same columns")]
    for blocks, said in cases:
        unchanged_and_refused(path, framed(header, *map(frames.pack, blocks)), f"not a votes file.*{said}")
        with pytest.raises(ValueError, match=said):
            write_journal(path, HEADER, blocks)


def old_format(header, *blocks):
    "As version 0.1 wrote: size, checksum, payload; header as JSON, rows as NumPy archives."
    payloads = [json.dumps(header).encode()]
    for block in blocks:
        buffer = io.BytesIO()
        np.savez(buffer, **block)
        payloads.append(buffer.getvalue())
    return frames.MAGIC_1 + b"".join(struct.pack("<QI", len(p), zlib.crc32(p)) + p for p in payloads)


def test_format_1_is_read_and_converted(path, tmp_path):
    path.write_bytes(old_file())
    header, blocks = read_journal(path)
    assert header == HEADER | dict(format=1, order="as finished") and same(blocks, 20, 0, 7)
    assert old_format({k: v for k, v in header.items() if k != "order"}, *blocks).startswith(old_file()[:60])
    assert convert(path, tmp_path / "new.votes") == []
    again, found = read_journal(tmp_path / "new.votes")
    assert again == header | dict(format=2, stream=1) and same(found, 20, 0, 7)
    assert path.read_bytes() == old_file() and (tmp_path / "new.votes").stat().st_size < len(old_file()) / 5
    with pytest.raises(ValueError, match="exists"):
        convert(path, tmp_path / "new.votes")
    convert(path, path) # in place
    assert path.read_bytes() == (tmp_path / "new.votes").read_bytes()


def test_a_conversion_knows_the_stream(path, tmp_path):
    "Votes that do not say how their noise was seeded are of the first stream."
    for change, stream in [({}, 1), (dict(provenance=dict(stream=2)), 2), (dict(stream=2), 2)]:
        to = tmp_path / f"{len(change)}{stream}{list(change)}"
        write_journal(path, HEADER | change, [rows(1)])
        convert(path, to)
        assert read_journal(to)[0]["stream"] == stream


def test_format_1_of_one_block_keeps_its_order(path):
    path.write_bytes(old_format(HEADER | dict(format=1), rows(20, 0, 7)))
    header, blocks = read_journal(path)
    assert header["order"] == "as given" and same(blocks, 20, 0, 7)


def test_format_1_is_never_continued(path):
    path.write_bytes(old_file()[:-7])
    with Journal(path) as journal:
        assert same(journal.blocks, 20, 0)
        with pytest.raises(ValueError, match="format 1.*convert"):
            journal.append(rows(7))
    assert path.read_bytes() == old_file()[:-7]


def test_format_1_with_columns_that_do_not_fit(path):
    cases = [
        (rows(1, 2, counts=[[1, 2]]), "one entry a row"),
        (rows(1, 1), "index 1"),
        (rows(1, n=7), "one entry a row"),
        (rows(1, index=[0.5]), "whole numbers"),
        ({"counts": [[1, 2]]}, "'index'"),
    ]
    for block, said in cases:
        unchanged_and_refused(path, old_format(HEADER | dict(format=1), block), f"not a votes file.*{said}")
    unchanged_and_refused(path, old_format(HEADER, rows(1)), "format 1")


def test_hostile_archives_in_format_1(path, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/boom",)

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.npy", bytes(10**7))
    good = old_format(HEADER | dict(format=1))
    pickled = old_format(HEADER | dict(format=1), dict(index=np.array([Bomb()], object)))
    bomb = good + struct.pack("<QI", len(packed.getvalue()), zlib.crc32(packed.getvalue())) + packed.getvalue()
    for data in (pickled, bomb):
        unchanged_and_refused(path, data, "cannot be read")
    assert not (tmp_path / "boom").exists()


def test_whole_rows_are_saved_from_a_damaged_file(path, small, tmp_path):
    for number, frame in enumerate(frames.split(small, frames.FORMATS[2]).found):
        damaged = bytearray(small)
        damaged[frame.start + 6] ^= 64
        put(path, damaged)
        to = tmp_path / f"saved{number}.votes"
        with pytest.raises(ValueError, match="damaged at byte"):
            convert(path, to)
        if number == 0: # without a header nobody knows what the rows mean
            with pytest.raises(ValueError, match="in frame 0"):
                convert(path, to, skip_damaged=True)
            continue
        lost = convert(path, to, skip_damaged=True)[0]
        assert f"in frame {number}" in lost and f"left out {frame.end - frame.start} bytes" in lost
        assert same(read_journal(to)[1], *(i for k, i in enumerate((20, 0, 7), 1) if k != number))
        with pytest.raises(ValueError, match="must be a new file"):
            convert(path, path, skip_damaged=True)


def test_whole_rows_are_saved_from_damaged_format_1(path, tmp_path):
    data = old_file()
    middle = frames.split(data, frames.FORMATS[1]).found[2]
    for offset in (0, 8, 12, 200):
        damaged = bytearray(data)
        damaged[middle.start + offset] ^= 4
        unchanged_and_refused(path, bytes(damaged), f"damaged at byte {middle.start}, in frame 2")
        to = tmp_path / f"{offset}.votes"
        assert len(convert(path, to, skip_damaged=True)) == 1 and same(read_journal(to)[1], 20, 7)


# Who writes, and when


def test_one_writer_at_a_time(path):
    with Journal(path) as journal:
        journal.start(HEADER)
        with pytest.raises(RuntimeError, match="another process is writing"):
            Journal(path)
        with pytest.raises(RuntimeError, match="another process is writing"):
            write_journal(path, HEADER, [rows(1)])
        with pytest.raises(RuntimeError, match="another process is writing"):
            convert(path, path)
        journal.append(rows(1))
    with Journal(path) as journal:
        assert same(journal.blocks, 1)


WRITER = """
import sys
from robust_smooth.core import places, votes_file
if sys.argv[2] == "without": places.fcntl = None
try:
    with votes_file.Journal(sys.argv[1]) as journal:
        print("writing", flush=True)
        sys.stdin.readline()
        if journal.header is None: journal.start(dict(noise={}, dim=1, classes=2, plan=None, provenance={}))
        done = {int(i) for block in journal.blocks for i in block["index"]}
        for i in range(50):
            if i not in done: journal.append(dict(index=[i]))
except RuntimeError as error:
    print("refused" if "another process" in str(error) else error, flush=True)
"""


@pytest.mark.parametrize("locks", ["with", "without"])
def test_two_processes_do_not_count_twice(path, locks):
    command, pipe = [sys.executable, "-c", WRITER, str(path), locks], subprocess.PIPE

    def start():
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    first = start()
    assert first.stdout.readline() == "writing\n"
    second = start()
    assert second.communicate("\n")[0] == "refused\n"
    first.communicate("\n")
    third = start()
    assert third.communicate("\n")[0] == "writing\n"
    assert joined(read_journal(path)[1])["index"].tolist() == list(range(50)) and list(path.parent.iterdir()) == [path]


def test_a_stranger_who_writes_anyway_is_noticed(path, at_once):
    with pytest.raises(RuntimeError, match="another program has written"):
        with Journal(path) as journal:
            journal.start(HEADER)
            journal.append(rows(1))
            data = path.read_bytes()
            with open(path, "ab") as other:
                other.write(b"!")
            journal.append(rows(2))
    assert path.read_bytes() == data + b"!"


def test_a_file_that_is_replaced_or_removed_is_noticed(path, at_once, tmp_path):
    for act in (lambda: path.unlink(), lambda: os.replace(tmp_path / "other", path)):
        (tmp_path / "other").write_bytes(b"")
        with pytest.raises(RuntimeError, match="replaced or removed"):
            with Journal(path) as journal:
                if journal.header is None:
                    journal.start(HEADER)
                act()
                journal.append(rows(1))


@pytest.fixture
def clock(monkeypatch):
    "A clock that the test turns."
    class Clock:
        now = 100.0
        def __call__(self): return self.now
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


def test_a_row_waits_half_a_second_at_most_for_the_next(path, clock):
    with Journal(path) as journal:
        journal.start(HEADER)
        clock.now += 0.6
        journal.append(rows(0)) # the last write is old
        assert count_rows(path) == 1
        for i in range(1, 5):
            clock.now += 0.12
            journal.append(rows(i))
            assert count_rows(path) == 1
        clock.now += 0.12
        journal.append(rows(5))
        assert count_rows(path) == 6
        journal.append(rows(6))
        journal.flush()
        assert count_rows(path) == 7
        journal.append(rows(7))
    assert same(read_journal(path)[1], *range(8)) and len(frames.split(path.read_bytes(), frames.FORMATS[2]).found) == 5


def test_the_callers_arrays_may_change_afterwards(path):
    with Journal(path) as journal:
        journal.start(HEADER)
        block = rows(1)
        journal.append(block)
        block["counts"][:] = 0
        block["index"][:] = 9
    assert same(read_journal(path)[1], 1)


def test_a_file_that_may_only_be_read_can_be_replaced(path):
    write_journal(path, HEADER, [rows(1)])
    path.chmod(0o444)
    write_journal(path, HEADER, [rows(2)])
    assert same(read_journal(path)[1], 2) and path.stat().st_mode & 0o777 == 0o444


def test_a_growing_file_can_be_converted_elsewhere(path, tmp_path, at_once):
    with Journal(path) as journal:
        journal.start(HEADER)
        journal.append(rows(1))
        convert(path, tmp_path / "b.votes")
        journal.append(rows(2))
    assert same(read_journal(tmp_path / "b.votes")[1], 1) and same(read_journal(path)[1], 1, 2)


def test_rows_are_kept_when_a_vote_fails(path):
    with pytest.raises(KeyError, match="bad logits"):
        with Journal(path) as journal:
            journal.start(HEADER)
            journal.append(rows(1))
            raise KeyError("bad logits")
    assert same(read_journal(path)[1], 1)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_is_undone_and_done_again(path, monkeypatch, error):
    write = os.write

    def part(descriptor, data):
        write(descriptor, bytes(data)[:11])
        raise error

    with Journal(path) as journal:
        journal.start(HEADER)
        journal.append(rows(1))
        before = path.read_bytes()
        with monkeypatch.context() as broken:
            broken.setattr("os.write", part)
            with pytest.raises(type(error)):
                journal.flush()
        assert path.read_bytes() == before
        journal.append(rows(2))
    assert same(read_journal(path)[1], 1, 2)


def test_short_writes_are_completed(path, monkeypatch):
    write = os.write
    monkeypatch.setattr("os.write", lambda descriptor, data: write(descriptor, bytes(data)[:7]))
    with Journal(path) as journal:
        journal.start(HEADER)
        journal.append(rows(1, 2))
    assert same(read_journal(path)[1], 1, 2)


def test_what_is_appended_must_fit(path):
    with Journal(path) as journal:
        with pytest.raises(ValueError, match="no header"):
            journal.append(rows(1))
        with pytest.raises(ValueError, match="classes"):
            journal.start(HEADER | dict(classes=0))
        journal.start(HEADER)
        with pytest.raises(ValueError, match="header already"):
            journal.start(HEADER)
        journal.append(rows(1))
        cases = [(rows(1), "must not repeat, got .1."), (rows(3, 3), "must not repeat"),
                 (rows(2, n=[1, 2]), "one entry a row"), (rows(2, more=[1]), "same columns"),
                 (rows(2, images=np.array([{}], object)), "numbers or text"), (dict(n=[1]), "'index'")]
        for block, said in cases:
            with pytest.raises(ValueError, match=said):
                journal.append(block)
        journal.append(rows(2))
    journal.close()
    with pytest.raises(ValueError, match="is closed"):
        journal.append(rows(4))
    assert same(read_journal(path)[1], 1, 2)


def test_a_fifo_or_a_folder_is_refused(path, tmp_path):
    os.mkfifo(path)
    for place, kind in [(path, "a FIFO"), (tmp_path, "a folder")]:
        uses = [Journal, read_journal, count_rows, lambda place: write_journal(place, HEADER, []),
                lambda place: convert(place, tmp_path / "b")]
        for use in uses:
            with pytest.raises(ValueError, match=f"must be a file, got {kind}"):
                use(place)


@pytest.mark.parametrize("length", [240, 250, 255])
@pytest.mark.parametrize("locks", [True, False])
def test_long_names(tmp_path, length, locks, monkeypatch):
    if not locks:
        monkeypatch.setattr("robust_smooth.core.places.fcntl", None)
    path = tmp_path / ("x" * length)
    with Journal(path) as journal:
        journal.start(HEADER)
        journal.append(rows(1))
    write_journal(path, *read_journal(path))
    assert same(read_journal(path)[1], 1)


KILLED = """
import sys, time
from robust_smooth.core.votes_file import Journal
with Journal(sys.argv[1]) as journal:
    if journal.header is None: journal.start(dict(noise={}, dim=1, classes=2, plan=None, provenance={}))
    done = {int(i) for block in journal.blocks for i in block["index"]}
    i = 0
    while True:
        if i not in done: journal.append(dict(index=[i], counts=[[i, 2 * i]]))
        i += 1
        print(i, flush=True)
"""


@pytest.mark.filterwarnings("ignore:.*torn tail")
def test_kill_9_loses_at_most_half_a_second(path):
    "Three kills of a writer of short rows, which then goes on: no row is missing in between, twice or wrong."
    kept = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
        while int(process.stdout.readline()) < kept + 100 or count_rows(path) == kept:
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = joined(read_journal(path)[1])
        assert len(found["index"]) > kept and np.array_equal(found["index"], np.arange(len(found["index"])))
        assert np.array_equal(found["counts"][:, 1], 2 * found["index"])
        kept = len(found["index"])


def test_a_million_frames_of_one_row_are_read_together(path):
    "No array a frame: neighbours of one layout become one block."
    payload = frames.pack(rows(0))
    header = json.dumps(HEADER).encode()
    one = [frames.pack(rows(i)) for i in range(80)]
    assert {len(p) for p in one} == {len(payload)}
    path.write_bytes(framed(header, *one))
    _, blocks = read_journal(path)
    assert len(blocks) == 1 and same(blocks, *range(80))
