"""Random numbers by pair: uniform, independent, and the same whoever asks."""

import numpy as np
from scipy import stats

from jobrec_jax.data.market.draws import bernoulli_positions, pair_normal, pair_uniform
from jobrec_jax.schema import streams


def test_pair_draws_are_uniform_and_independent():
  u, j = np.arange(400)[:, None], np.arange(500)
  x, y = (pair_uniform(0, name, u, j) for name in ('a', 'b'))
  assert stats.kstest(x.ravel(), 'uniform').pvalue > 1e-3
  assert x.min() > 0 and x.max() < 1
  limit = 4.5 / np.sqrt(x.size)
  neighbours = [(x, y), (x[1:], x[:-1]), (x[:, 1:], x[:, :-1]), (x, pair_uniform(1, 'a', u, j)),
                (x[:400, :400], x[:400, :400].T)]
  for a, b in neighbours:
    off = ~np.eye(*a.shape, dtype=bool)
    assert abs(np.corrcoef(a[off], b[off])[0, 1]) < limit
  # Also jointly: a chi-square over a grid of cells finds what a correlation overlooks.
  counts = np.histogram2d(x[:, 1:].ravel(), x[:, :-1].ravel(), 20)[0]
  assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_a_pair_has_its_draw_whoever_asks():
  u, j = np.meshgrid(np.arange(30), np.arange(20), indexing='ij')
  grid = pair_normal(5, 'a', u, j)
  order = np.random.default_rng(0).permutation(u.size)
  alone = [pair_normal(5, 'a', a, b) for a, b in zip(u.ravel()[order], j.ravel()[order])]
  np.testing.assert_array_equal(grid.ravel()[order], alone)
  assert pair_normal(5, 'a', 2, 3) != pair_normal(5, 'a', 3, 2)


def test_sparse_trials_are_bernoulli():
  hits = np.zeros(50)
  gaps = []
  for block in range(2000):
    at = bernoulli_positions(streams.rng(0, 'x', block), 0.2, 50)
    assert (np.diff(at) > 0).all() and (at < 50).all()
    hits[at] += 1
    gaps.append(len(at))
  assert stats.chisquare(hits, np.full(50, hits.mean())).pvalue > 1e-3
  assert abs(np.var(gaps) - 50 * 0.2 * 0.8) < 1
  np.testing.assert_array_equal(bernoulli_positions(streams.rng(0, 'x'), 1.0, 7), np.arange(7))
