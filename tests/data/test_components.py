"""Words as numbers: the principal components of tf-idf, as scikit-learn has them step by step."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfTransformer

from jobrec_jax.data.components import SIDES, Components

V, N, L, R = 30, 50, 12, 4
RNG = np.random.default_rng(0)


def drawn(n=N):
  block = RNG.integers(0, V - 5, (n, L)).astype(np.int32)  # the last ids never occur
  block[np.arange(L)[None] >= RNG.integers(1, L + 1, n)[:, None]] = -1
  return block


BLOCKS = {side: drawn() for side in SIDES}
FITTED = Components.fit(BLOCKS, V, R)


def counts(block):
  return np.stack([np.bincount(row[row >= 0], minlength=V) for row in block])


@pytest.mark.parametrize('side', SIDES)
def test_they_are_the_leading_components_of_tf_idf(side):
  new = drawn(20)
  tfidf = TfidfTransformer(sublinear_tf=True).fit(counts(BLOCKS[side]))
  pca = PCA(R, whiten=True).fit(tfidf.transform(counts(BLOCKS[side])).toarray())
  expected = pca.transform(tfidf.transform(counts(new)).toarray())
  found = FITTED(side, new)
  assert found.dtype == np.float32 and found.shape == (20, R)
  for a, b in zip(found.T, expected.T):
    np.testing.assert_allclose(a * np.sign(a @ b), b, atol=1e-4)


@pytest.mark.parametrize('side', SIDES)
def test_over_the_records_of_the_fit_each_has_mean_0_and_variance_1(side):
  found = FITTED(side, BLOCKS[side])
  np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(np.cov(found.T), np.eye(R), atol=1e-4)


def test_the_sides_have_components_of_their_own():
  assert not np.allclose(FITTED('candidate', BLOCKS['job']), FITTED('job', BLOCKS['job']))


def test_padding_and_the_order_of_tokens_are_nothing():
  block = BLOCKS['job'][:5]
  expected = FITTED('job', block)
  np.testing.assert_allclose(FITTED('job', block[:, ::-1]), expected, atol=1e-6)
  wider = np.concatenate([block, np.full((5, 3), -1, np.int32)], 1)
  np.testing.assert_array_equal(FITTED('job', wider), expected)


def test_a_record_without_a_token_is_the_mean_one():
  empty = np.full((2, L), -1, np.int32)
  assert not FITTED('candidate', empty).any()
  assert FITTED('candidate', empty[:, :0]).shape == (2, R)


@pytest.mark.parametrize('block', [
    BLOCKS['job'][:1], np.repeat(BLOCKS['job'][:1], 9, 0), BLOCKS['job'][:0],
    np.full((4, L), -1, np.int32)])
def test_records_that_all_say_the_same_have_zeros(block):
  found = Components.fit({'candidate': BLOCKS['candidate'], 'job': block}, V, R)
  assert not found('job', BLOCKS['job']).any() and found('candidate', BLOCKS['candidate']).any()


def test_fewer_records_than_components_leave_zeros_behind():
  found = Components.fit({side: block[:3] for side, block in BLOCKS.items()}, V, R)
  assert found.rank == R
  said = found('job', BLOCKS['job'][:3])
  assert said[:, :2].all() and not said[:, 2:].any()


def test_they_are_the_same_each_time():
  again = Components.fit(BLOCKS, V, R)
  for side in SIDES:
    for name, x in FITTED.arrays[side].items():
      np.testing.assert_array_equal(again.arrays[side][name], x)
