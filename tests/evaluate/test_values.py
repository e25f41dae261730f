"""Labels are 0 and 1, probabilities lie in [0, 1]: whatever else comes is named, and no metric is
made of it."""

import numpy as np
import pytest

from jobrec_jax.evaluate.comparison import holm
from jobrec_jax.evaluate.control import hypervolume
from jobrec_jax.evaluate.deconflation import deconflation_rows
from jobrec_jax.evaluate.eligibility import (
    expected_eligibility,
    reliability,
    violation_rate_at_k,
)
from jobrec_jax.evaluate.leave_one_out import (
    ranking_metrics_without,
    violation_rate_without,
)
from jobrec_jax.evaluate.ranking import ranking_metrics
from jobrec_jax.evaluate.statistics import Groups
from jobrec_jax.evaluate.values import binary, probability

SCORES = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
MASK = np.array([[True, True, True], [True, True, False]])


def with_one(value, dtype=object):
  """[2, 3] zeros and ones, with `value` in list 1 at item 1."""
  values = np.array([[1, 0, 1], [1, 0, 0]], dtype)
  values[1, 1] = value
  return values


@pytest.mark.parametrize('metrics', [ranking_metrics, ranking_metrics_without])
@pytest.mark.parametrize('value, dtype, said', [
    (-1, np.int8, '-1'), (np.nan, float, 'nan'), (2, int, '2'), (0.5, np.float32, '0.5'),
    (4.0, float, '4.0'), ('1', 'U1', "'1'")])
def test_relevance_is_zero_or_one(metrics, value, dtype, said):
  message = rf'^relevance must be bool, or 0 and 1, got {said} in list 1 at item 1 \(1 of 6 are'
  relevance = with_one(value, dtype)
  if dtype == 'U1':  # text of a CSV file: the first one is named
    message = "^relevance must be bool, or 0 and 1, got '1' in list 0 at item 0 "
  with pytest.raises(ValueError, match=message):
    metrics(SCORES, relevance, MASK)


def test_zeros_and_ones_of_any_type_are_labels_and_padding_is_not_looked_at():
  expected = ranking_metrics(SCORES, with_one(False, bool), MASK)
  for dtype in (np.int8, np.float32, np.int64):
    relevance = with_one(0, dtype)
    relevance[1, 2] = -1 if dtype != np.float32 else np.nan
    for name, values in ranking_metrics(SCORES, relevance, MASK).items():
      np.testing.assert_array_equal(values, expected[name])


PER_CENT = with_one(87.0, float)


@pytest.mark.parametrize('call, name', [
    (lambda q: violation_rate_at_k(SCORES, q, MASK, 2), 'eligible'),
    (lambda q: violation_rate_without(SCORES, q, MASK, 2), 'eligible'),
    (lambda q: expected_eligibility(np.full((2, 3), 0.3), q, MASK), 'q')])
@pytest.mark.parametrize('value', [87.0, -0.2, np.nan, np.inf])
def test_qualification_is_a_probability(call, name, value):
  message = rf'^{name} must be probabilities in \[0, 1\], got {value} in list 1 at item 1 '
  with pytest.raises(ValueError, match=message):
    call(with_one(value, float))
  padded = with_one(0.0, float)
  padded[1, 2] = value
  assert np.isfinite(call(padded)[0]).all()


@pytest.mark.parametrize('value', [55.0, np.nan, -1.0])
def test_whatever_takes_probabilities_of_pairs_refuses_others(value):
  p, y = np.array([0.2, 0.7, value]), np.array([0.0, 1.0, 1.0])
  for call in (lambda: reliability(p, y), lambda: reliability(y, p)):
    with pytest.raises(ValueError, match=rf'^[py] must be [^;]*, got {value} in row 2 '):
      call()
  if not np.isnan(value):
    with pytest.raises(ValueError, match=rf'^p must be .*, got {value} in row 2 '):
      holm(p)
    groups = Groups(np.arange(3), np.arange(3), (3, 3))
    with pytest.raises(ValueError, match=rf'^Q must be .*, got {value} in row 2 '):
      deconflation_rows(y, (y, p), 'preference', groups)


def test_points_that_are_not_finite_are_named():
  with pytest.raises(ValueError, match=r'^points must be finite, got nan'):
    hypervolume(np.array([[1.0, np.nan]]), (0, 0))
  with pytest.raises(ValueError, match=r'^reference must be finite, got inf'):
    hypervolume(np.array([[1.0, 1.0]]), (0, np.inf))


def test_a_mask_of_another_shape_is_named():
  for check in (binary, probability):
    with pytest.raises(ValueError, match=r'^x must be \(3,\) like mask, got \(2,\)'):
      check('x', np.zeros(2, int), np.ones(3, bool))
