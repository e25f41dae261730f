"""Items' attention by a fused kernel equals our own, with XLA in cuDNN's place."""

import dataclasses
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.models import fused_attention
from tests.models.test_chunks import blocks, gradient

ATTEND = fused_attention.attend_rows


@pytest.fixture
def asked(monkeypatch):
  """Queries and sets of keys that the kernel was asked for, as programs were traced."""
  found = []

  def told(q, keys, *args):
    found.append((q.shape[1], len(keys)))
    return ATTEND(q, keys, *args, implementation='xla')
  monkeypatch.setattr(fused_attention, 'fits', lambda q, platform: True)
  monkeypatch.setattr(fused_attention, 'attend_rows', told)
  return found


@pytest.mark.parametrize('attention, sets', [('exact', 2), ('factored', 3)])
def test_scores_and_gradients_are_those_of_our_own(monkeypatch, model, asked, attention, sets):
  """With padding in every block, and odd lengths."""
  model = model.clone(config=dataclasses.replace(model.config, attention=attention, job_start=8,
                                                 pair_start=16))
  candidates, jobs, own = blocks()
  candidates[0, 4:] = jobs[1, 2, 3:] = own[2, 3, 2:] = 0
  data = candidates, jobs, own
  variables = nn.unbox(model.init(jax.random.key(0), *data))
  found = gradient(model, data)(variables)
  assert {of for _, of in asked} == {sets}
  monkeypatch.setattr(fused_attention, 'fits', lambda q, platform: False)
  expected = gradient(model, data)(variables)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)


def test_a_query_that_sees_nothing_stays_finite():
  q = jnp.ones((2, 3, 4, 8))
  k = jnp.ones((2, 5, 2, 8))
  out = fused_attention.attend_rows(q, [k], [k], [jnp.zeros((2, 1, 5), bool)], 'xla')
  assert out.shape == q.shape and np.isfinite(out).all()


@pytest.mark.parametrize('named, found', [('9.0', 9.0), ('10.3', 10.3), ('gfx90a', 0.0),
                                          (None, 0.0)])
def test_capability_is_that_of_nvidia(monkeypatch, named, found):
  device = types.SimpleNamespace(**{} if named is None else {'compute_capability': named})
  monkeypatch.setattr(jax, 'local_devices', lambda: [device])
  assert fused_attention.capability.__wrapped__() == found


@pytest.mark.parametrize('platform, dtype, width, taken', [
    ('gpu', jnp.bfloat16, 64, True), ('cuda', jnp.bfloat16, 128, True),
    ('gpu', jnp.float32, 64, False), ('cpu', jnp.bfloat16, 64, False),
    ('tpu', jnp.bfloat16, 64, False), ('gpu', jnp.bfloat16, 256, False),
    ('gpu', jnp.bfloat16, 60, False)])
def test_who_takes_it(monkeypatch, platform, dtype, width, taken):
  monkeypatch.setattr(fused_attention, 'capability', lambda: 8.0)
  assert fused_attention.fits(jnp.zeros((1, 1, 1, 1, width), dtype), platform) == taken


def test_an_old_gpu_keeps_our_own(monkeypatch):
  monkeypatch.setattr(fused_attention, 'capability', lambda: 7.5)
  assert not fused_attention.fits(jnp.zeros((1, 1, 1, 1, 64), jnp.bfloat16), 'gpu')
