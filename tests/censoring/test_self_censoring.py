"""How much doubt kept candidates away is told from the log, where the log can tell."""

import numpy as np
import pytest
from scipy.special import expit

from jobrec_jax.censoring.doubt import MOST, fit_self_censoring


def drawn(doubt, exclusion=True, rows=6000, seed=0):
  """(features of preference, chance of being eligible, applied) of pairs that were shown.

  With the exclusion, most of what makes eligible, a grade, speaks to no wish; without it, the
  chance of being eligible is a function of what speaks to preference.
  """
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(rows, 3)) * (1, 1, 20)
  grade = rng.normal(size=rows)
  q = expit(2 * grade + 0.5 * x[:, 0]) if exclusion else expit(x @ (1.2, -0.8, 0.04))
  wants = expit(x @ (1.0, -0.7, 0.03) + 0.2)
  return x, q, rng.random(rows) < wants * (1 - doubt * (1 - q))


@pytest.mark.parametrize('doubt', [0.0, 0.3, 0.6])
@pytest.mark.parametrize('seed', range(3))
def test_the_doubt_is_recovered(doubt, seed):
  found = fit_self_censoring(*drawn(doubt, seed=seed))
  assert abs(found - doubt) < 0.1


def test_the_bound_is_kept_where_the_doubtful_never_apply():
  x, q, applied = drawn(0.0)
  found = fit_self_censoring(x, q, applied & (q > 0.5))
  assert 0.8 < found <= MOST < 1


@pytest.mark.parametrize('case', ['few rows', 'one chance for all', 'no doubt'])
def test_where_nothing_tells_there_is_none(case):
  x, q, applied = drawn(0.3 if case != 'no doubt' else 0.0, rows=40 if case == 'few rows' else 4000)
  if case == 'one chance for all':
    q = np.full(len(q), 0.5)
  assert fit_self_censoring(x, q, applied) == 0.0


def test_a_column_that_says_nothing_and_a_unit_change_nothing():
  x, q, applied = drawn(0.4)
  found = fit_self_censoring(x, q, applied)
  wide = np.concatenate([1000 * x, np.full((len(x), 1), 7.0)], axis=1)
  assert fit_self_censoring(wide, q, applied) == pytest.approx(found, abs=1e-3) and found > 0.3


def test_without_features_the_rate_alone_is_fitted():
  rng = np.random.default_rng(0)
  q = rng.random(5000)
  applied = rng.random(5000) < 0.7 * (1 - 0.5 * (1 - q))
  assert abs(fit_self_censoring(np.zeros((5000, 0)), q, applied) - 0.5) < 0.1


def test_what_cannot_be_fitted_is_named():
  x, q, applied = drawn(0.3, rows=30)
  for given in ((x[:-1], q, applied), (x, q[:-1], applied), (x, q, applied[:-1]),
                (x, q, np.ones(30, bool)), (x, q, np.zeros(30, bool))):
    with pytest.raises(ValueError, match=r'must be of the same pairs, of which some applied and '
                                         r'some did not, got \(\d+, 3\), \(\d+,\) and \d+ of \d+'):
      fit_self_censoring(*given)
