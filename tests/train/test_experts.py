"""The qualification expert's losses and their weights."""

import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.train.experts import qualification_losses


def test_weighted_contrast_finds_the_odds_of_being_eligible():
  """Two kinds of candidates, as many of each; kind 1 applies nine times as often as kind 0.

  Kind 1 is eligible with probability 0.8, kind 0 with 0.5: log odds that are log 4 apart, however
  few of kind 0 apply. All lists of one accepted and one rejected applicant, as often as they occur.
  """
  applies, eligible = np.array([0.1, 0.9]), np.array([0.5, 0.8])
  accepted, rejected = 100 * applies * eligible, 100 * applies * (1 - eligible)
  lists = [(a, b) for a in (0, 1) for b in (0, 1)
           for _ in range(round(accepted[a] * rejected[b]))]
  kind = np.array(lists)
  weight = (1 / applies)[kind].astype(np.float32)
  mask = np.ones(kind.shape, bool)

  def contrast(odds):
    return qualification_losses(jnp.asarray(odds)[kind], mask, weight)[0]

  gradient = jax.grad(contrast)
  np.testing.assert_allclose(gradient(np.array([0.3, 0.3 + np.log(4)], np.float32)), 0, atol=1e-6)
  assert abs(gradient(np.zeros(2, np.float32))).min() > 0.01


def test_masked_applicants_have_no_say():
  scores = np.array([[1.0, -0.5, 9.0], [0.2, 0.1, -7.0]], np.float32)
  mask = np.array([[True, True, False]] * 2)
  weight = np.array([[1.5, 0.5, 0.0], [2.0, 1.0, 0.0]], np.float32)
  whole = qualification_losses(scores, mask, weight)
  np.testing.assert_allclose(whole, qualification_losses(scores[:, :2], mask[:, :2], weight[:, :2]),
                             rtol=1e-6)
  gradient = jax.grad(lambda s: sum(qualification_losses(s, mask, weight)))(scores)
  assert np.isfinite(gradient).all() and (gradient[:, 2] == 0).all()
