"States of generators: no two positions share any, layouts are PyTorch's, and nothing but whole numbers is a seed."
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from robust_smooth.core.seeds import (BLOCK, STAGES, chunk_key, chunk_seed, chunk_size, mersenne_state, philox_state,
                                      step_seed, whole_seed)

HEAD, WORDS = 3, 624
TODAY = [3155882753, 4169786979, 2541468253, 1515351218, 3327410781]


def words(*position) -> np.ndarray:
    return mersenne_state(*position).view("<u8")[HEAD:HEAD + WORDS].astype(np.uint32)


def test_all_624_words_differ_between_any_two_positions():
    positions = list(itertools.product((0, 1), (0, 1, 2**31), STAGES, (0, 1, 40)))
    states = [words(*position) for position in positions]
    for one, other in itertools.combinations(states, 2):
        assert (one == other).sum() <= 2  # a word of 32 bits agrees by chance once in 4e9


def test_states_that_32_bits_of_seed_could_not_tell_apart():
    "10,000 images of CIFAR's size: 32-bit seeds coincide for some of these pairs of images, whole states never."
    seen = {mersenne_state(0, index, "estimation", chunk).tobytes() for index in range(1000) for chunk in range(10)}
    assert len(seen) == 10_000


def test_the_layout_is_that_of_pytorch():
    generator = torch.Generator().manual_seed(5)
    theirs = generator.get_state().numpy().view("<u8")
    ours = mersenne_state(0, 0, "selection", 0).view("<u8")
    assert ours.shape == theirs.shape
    assert ours[1] == theirs[1] and ours[2] == theirs[2] == 0
    assert (theirs[HEAD + WORDS:] == 0).all() and (ours[HEAD + WORDS:] == 0).all()
    assert theirs[HEAD] == 5  # the first word of a seeded Mersenne twister is its seed


@pytest.mark.parametrize("position", [(0, 0, "selection", 0), (7, 123, "estimation", 999)])
def test_pytorch_draws_what_a_mersenne_twister_with_these_words_draws(position):
    generator = torch.Generator()
    generator.set_state(torch.from_numpy(mersenne_state(*position)))
    drawn = torch.empty(3000, dtype=torch.int64).random_(-2**63, None, generator=generator)
    twister = np.random.MT19937()
    twister.state = dict(bit_generator="MT19937", state=dict(key=words(*position), pos=WORDS))
    high, low = twister.random_raw(6000).reshape(-1, 2).T
    assert np.array_equal(drawn.numpy().view(np.uint64), (high << np.uint64(32)) + low)


def test_bits_are_coin_tosses():
    tosses = np.unpackbits(np.stack([words(0, index, "estimation", 0) for index in range(50)]).view(np.uint8))
    assert binomtest(int(tosses.sum()), len(tosses), 0.5).pvalue > 1e-4


@pytest.mark.parametrize("make", [mersenne_state, philox_state, chunk_seed, chunk_key])
def test_what_is_no_position_is_refused(make):
    refused = [
        ((3.7, 0, "trial", 0), TypeError, "seed must be a whole number, got 3.7"),
        (("0", 0, "trial", 0), TypeError, "seed must be"),
        ((True, 0, "trial", 0), TypeError, "seed must be"),
        ((0, 1.5, "trial", 0), TypeError, "index must be"),
        ((0, 0, "guess", 0), ValueError, "stage must be"),
        ((0, 0, "trial", -1), ValueError, "chunk must be"),
    ]
    for wrong, error, match in refused:
        with pytest.raises(error, match=match):
            make(*wrong)


def test_numbers_of_any_kind_and_size_are_the_same_seed():
    assert chunk_key(np.int32(3), np.int64(4), "trial", 0) == chunk_key(3, 4, "trial", 0)
    assert chunk_key(-1, 0, "trial", 0) != chunk_key(2**64 - 1, 0, "trial", 0) != chunk_key(2**128 - 1, 0, "trial", 0)
    assert whole_seed(np.uint8(7)) == 7


def test_philox_chunks_are_apart_and_keys_differ_between_stages():
    states = [philox_state(0, 5, "estimation", chunk).view("<u8") for chunk in (0, 1, 2**31 - 1)]
    assert len({int(state[0]) for state in states}) == 1
    assert [int(state[1]) for state in states] == [0, 2**32, (2**31 - 1) * 2**32]
    images = itertools.product(range(5), range(50), STAGES)
    keys = {int(philox_state(seed, index, stage, 0).view("<u8")[0]) for seed, index, stage in images}
    assert len(keys) == 5 * 50 * len(STAGES)


@pytest.mark.parametrize("dim", [1, 2, 64, 131, 784, 3072, 2**17, 2**17 + 1, 10**7])
def test_chunks_divide_a_block_and_fit_a_cache(dim):
    chunk = chunk_size(dim)
    assert BLOCK % chunk == 0 and (chunk == 1 or chunk * dim <= 2**17)


def test_seeds_of_training_stay_what_they_were():
    others = [step_seed(0, 0, "epoch"), step_seed(3, 5, "layers")]
    assert [step_seed(0, 0), step_seed(0, 1), step_seed(1, 0), *others] == TODAY
