"""What the policy is asked for: ascending, rounded, and within reach."""

import pytest

from jobrec_jax.pipeline.policy import requirements
from jobrec_jax.pipeline.settings import PolicySettings


def test_requirements_ascend_whatever_the_order_of_the_setting():
  assert requirements(PolicySettings(taus=(0.7, 0.31234567, 0.5)), (0.3, 0.8)) == [
      0.3123, 0.5, 0.7]
  assert requirements(PolicySettings(grid=3), (0.3, 0.8)) == [0.35, 0.55, 0.75]


def test_what_is_already_met_can_be_asked_for_and_what_is_out_of_reach_cannot():
  assert requirements(PolicySettings(taus=(0.1,)), (0.3, 0.8)) == [0.1]
  with pytest.raises(ValueError, match=r'0\.1'):
    requirements(PolicySettings(taus=(0.1,), constraint='equality'), (0.3, 0.8))
  with pytest.raises(ValueError, match=r'0\.9'):
    requirements(PolicySettings(taus=(0.5, 0.9)), (0.3, 0.8))
