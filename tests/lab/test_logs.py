"Published logs: a row that is not what it seems is refused with file and line; the others are read exactly."
import numpy as np
import pytest

from robust_smooth.core.certificates import Certificates
from robust_smooth.lab.logs import log_accuracy, read_certification_log, write_certification_log

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
GOOD = HEADER + "0\t3\t3\t0.2\t1\t0:00:15.1\n20\t5\t3\t0.9\t0\t0:00:15.1\n"


@pytest.fixture
def read(tmp_path):
    "Read a text as a log."
    def read(text, **options):
        path = tmp_path / "a log"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_certification_log(path, **options)
    return read


def test_a_trailing_tab_shifts_no_column(read):
    "It read as accuracy [1, 0]: five entries of each row were taken for those of the columns before them."
    rows = ["0\t3\t5\t0.2\t0\t0:00:15.1\t\n", "20\t7\t-1\t0.0\t0\t0:00:15.1\t\n"]
    bare, tabbed = rows[0].replace("\t\n", "\n"), HEADER.replace("\n", "\t\n")
    for text in (HEADER + rows[0] + rows[1], HEADER + bare + rows[1], tabbed + rows[0] + rows[1]):
        log = read(text)
        assert log_accuracy(log, [0, 0.5]).tolist() == [0, 0]
        assert log.predict.tolist() == [5, -1] and log.idx.tolist() == [0, 20]


def test_a_field_too_many_is_an_error(read):
    for row in (
        "0\t3\t5\t0.2\t0\t0:00:15.1\t7\n",
        "0\t3\t5\t0.2\t0\t0:00:15.1\t\t7\n",
        "\t0\t3\t5\t0.2\t0\t0:00:15.1\n",
    ):
        with pytest.raises(ValueError, match="a log, line 3: [78] entries where the header has 6"):
            read(HEADER + "9\t3\t3\t0.2\t1\t1\n" + row)


def test_a_cut_line_counts_neither_as_right_nor_as_wrong(read):
    "It read as [1, .5]: the missing `correct` became true."
    for cut in range(1, len("20\t5\t3\t0.9\t0\t")):
        with pytest.raises(ValueError, match="a log, line 3: [1-5] entries where the header has 6"):
            read(HEADER + "0\t3\t3\t0.2\t1\t0:00:15.1\n" + "20\t5\t3\t0.9\t0\t0:00:15.1"[:cut])
    assert log_accuracy(read(GOOD), [0, 0.5]).tolist() == [0.5, 0]


NO_NUMBERS = [
    ("0\t3\t3\t0.5\t0\t1", "correct must mean predict == label, got correct 0 with predict 3 and label 3"),
    ("0\t3\t5\t0.5\t1\t1", "correct must mean predict == label"),
    ("0\t3\t3\t0.5\t2\t1", "correct: must be 0 or 1, got '2'"),
    ("0\t3\t3\t0.5\tyes\t1", "correct: must be 0 or 1"),
    ("0\t3\t3\t0.5\t\t1", "correct: must be 0 or 1"),
    ("0\t3\t3\t0.5\t0.5\t1", "correct"),
    ("0.5\t3\t3\t0.5\t1\t1", "idx: must be a whole number, got '0.5'"),
    ("0\t3.5\t3.5\t0.5\t1\t1", "label: must be a whole"),
    ("0\tcat\tcat\t0.5\t1\t1", "label"),
    ("0\t3\t3.2\t0.5\t0\t1", "predict: must be a whole"),
    ("0\t3\t-2\t0.5\t0\t1", "predict: must be a class, or -1"),
    ("-1\t3\t3\t0.5\t1\t1", "idx: must be at least 0"),
    ("0\t-1\t-1\t0.5\t1\t1", "label: must be at least 0"),
    ("nan\tnan\tnan\tnan\tnan\tnan", "idx: must be a whole"),
    ("0\t3\t3\tnan\t1\t1", "radius: must be a number, got 'nan'"),
    ("0\t3\t3\t\t1\t1", "radius: must be a number, got ''"),
    ("0\t3\t3\t-0.5\t1\t1", "radius must be >= 0, got -0.5"),
    ("0\t3\t3\t-inf\t1\t1", "radius must be >= 0"),
    ("0\t3\t3\t1_0\t1\t1", "radius: must be a number"),
    ("0\t3\t3\t0.5\t1\tnoon", "time: must be a number, got 'noon'"),
    ("0\t3\t3\t0.5\t1\t-3", "time: must be a time"),
    ("1000000000000000000000\t3\t3\t0.5\t1\t1", "idx: must be a whole"),
    ("٣\t3\t3\t0.5\t1\t1", "idx: must be a whole"),
]


@pytest.mark.parametrize("row, said", NO_NUMBERS)
def test_numbers_that_are_none(read, row, said):
    with pytest.raises(ValueError, match=f"a log, line 3: .*{said}"):
        read(HEADER + "9\t3\t3\t0.5\t1\t1\n" + row + "\n")


NO_LOGS = [
    ("", "is empty"),
    ("\n\n", "is empty"),
    (b"\xff\xfe\x00", "not text"),
    ("a\tb\n1\t2\n", "not a certification log: no column .'idx'"),
    ("idx\tlabel\tpredict\tcorrect\n", "no column radius"),
    (HEADER + HEADER, "line 2: the header stands here again"),
    (GOOD + HEADER + "40\t1\t1\t0.1\t1\t1\n", "line 4: the header stands here again"),
    (GOOD + GOOD.replace(HEADER, ""), "line 4: idx 0 stands in line 2 already"),
    ("idx\tlabel\tpredict\tradius\tradius\tcorrect\n", "names of their own"),
    ("idx\t\tlabel\tpredict\tradius\tcorrect\n", "names of their own"),
]


@pytest.mark.parametrize("text, said", NO_LOGS)
def test_files_that_are_no_log(read, text, said):
    with pytest.raises(ValueError, match=f"a log.*{said}"):
        read(text)


def test_a_folder_is_no_log(tmp_path):
    with pytest.raises(ValueError, match="must be a file, got a folder"):
        read_certification_log(tmp_path)


TIMES = [("0:00:15.1", 15.1), ("15.1", 15.1), ("1 day, 0:00:01", 86401), ("2 days, 3:04:05.5", 2 * 86400 + 11045.5),
         ("12:00:00", 43200), ("1e-3", 0.001), ("0", 0)]


@pytest.mark.parametrize("time, seconds", TIMES)
def test_times(read, time, seconds):
    assert read(HEADER + f"0\t3\t3\t0.5\t1\t{time}\n").seconds.tolist() == [pytest.approx(seconds, rel=1e-15)]


def test_what_may_be_there_besides(read):
    "Windows line ends, a byte order mark, empty lines, blanks, whole numbers with a point, True and False, other columns."
    lines = [b"\xef\xbb\xbfidx\tlabel\tcount\tpredict\tradius_L1\tradius_L2\tname\tcorrect", b"",
             b" 0\t3.0\t1250000.0\t3\tinf\t0\ta b\tTrue", b"1\t2\t7\t-1\t0\t0\t\tFalse", b"", b""]
    log = read(b"\r\n".join(lines))
    assert (
        log.idx.tolist() == [0, 1]
        and log["count"].tolist() == [1250000.0, 7.0]
        and log.correct.tolist() == [True, False]
    )
    assert log.radius_L1.tolist() == [np.inf, 0.0] and log.name.tolist() == ["a b", ""] and "seconds" not in log
    assert log_accuracy(log, [0, 1e9], "radius_L1").tolist() == [0.5, 0.5]


def test_not_certified_and_a_summary(read):
    text = HEADER + "0\t3\t3\t-1\t1\t1\n1\t3\t3\t-inf\t0\t1\n2\t3\t3\t0\t1\t1\n3\t3\t3\t0.75\t1\t1\n"
    log = read(text + "certified 2 of 4\ttime 0:00:04\n\n", uncertified=True, summary=True)
    assert log.radius.tolist() == [-np.inf, -np.inf, 0.0, 0.75]
    assert log.attrs["summary"] == ["certified 2 of 4\ttime 0:00:04"]
    assert log_accuracy(log, [0, 0.5, 0.75, 0.8]).tolist() == [0.5, 0.25, 0.25, 0]
    for options in (dict(), dict(summary=True)):
        with pytest.raises(ValueError, match="line 2: radius: .*uncertified=True"):
            read(text, **options)
    with pytest.raises(ValueError, match="line 6: 2 entries"):
        read(text + "certified 2 of 4\ttime 0:00:04\n", uncertified=True)
    for cut in ("4\t3\t3\t0.9", "4", "40\t1"): # a row that was cut is no summary
        with pytest.raises(ValueError, match="line 6: [1-4] entries"):
            read(text + cut, uncertified=True, summary=True)
    with pytest.raises(ValueError, match="line 2: 1 entries"): # nor is a line between rows
        read(HEADER + "mean\n0\t3\t3\t1\t1\t1\n", summary=True)
    for wrong in ("5\t3\t4\t-1\t1\t1\n", "5\t3\t3\t0.1\t0\t1\n"):
        with pytest.raises(ValueError, match="line 6: correct must mean"):
            read(text + wrong, uncertified=True)


def test_radii_asked_for_are_radii(read):
    log = read(GOOD)
    for radii in (-0.1, [0, np.nan], [-np.inf]):
        with pytest.raises(ValueError, match="radii must be >= 0"):
            log_accuracy(log, radii)


def test_what_is_written_can_be_read(tmp_path):
    table = dict(label=[1, 2], radius=[0.5, 1e-300], norm="l2", alpha=0.001, method="demo")
    path = tmp_path / "log"
    write_certification_log(path, Certificates(**table, index=[5, 3]), [1, 1], seconds=[0, 1e7])
    log = read_certification_log(path)
    assert log.radius.tolist() == [0.5, 1e-300] and log.seconds.tolist() == [0, 1e7] and log.idx.tolist() == [5, 3]
    cases = [(dict(index=[5, 5]), [1, 1], 0, "index must not repeat"), ({}, [1, -1], 0, "labels"),
             ({}, [0.5, 1], 0, "labels"), ({}, [1], 0, "labels must have shape"),
             ({}, [1, 1], -1, "seconds"), ({}, [1, 1], np.nan, "seconds")]
    for change, labels, seconds, said in cases:
        with pytest.raises(ValueError, match=said):
            write_certification_log(path, Certificates(**table | change), labels, seconds=seconds)
