"""The code of a pair."""

from hypothesis import given, strategies as st
import numpy as np

from jobrec_jax.data.dataset import pair_code

INDEX = st.integers(0, 2**31 - 1)


@given(st.lists(st.tuples(INDEX, INDEX), min_size=2, max_size=6))
def test_codes_are_ordered_and_told_apart_as_pairs_are(pairs):
  candidate, job = np.array(pairs, np.int32).T
  codes = pair_code(candidate, job)
  assert codes.dtype == np.int64
  by_code = [pairs[i] for i in np.argsort(codes, kind='stable')]
  assert by_code == sorted(pairs) and len(set(codes.tolist())) == len(set(pairs))


def test_codes_broadcast():
  assert pair_code(np.array([[1], [2]]), np.array([3, 4])).shape == (2, 2)
