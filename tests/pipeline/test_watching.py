"""What a run's stages hand to whoever watches."""

import dataclasses
import logging
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.data.tokens import count_tokens
from jobrec_jax.pipeline import policy
from jobrec_jax.pipeline.road import resources
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.settings import PolicySettings
from jobrec_jax.schema.files import load_arrays
from jobrec_jax.scoring.policy import PolicyInputs
from jobrec_jax.train.loop import MetricsWriter
from jobrec_jax.train.watch import Watching
from tests.pipeline.tiny import tiny_settings

P = PolicySettings(lists=7, batch=3, list_length=5, epochs=4, width=4, knots=3, grid=2,
                   start='preference')


def make_policy(folder, watching):
  rng = np.random.default_rng(0)
  inputs = PolicyInputs(*(jnp.asarray(rng.normal(size=size), jnp.float32) for size in (
      (7, 5, 2, 3), (7, 5), (7, 5))), jnp.zeros(7, jnp.int32), jnp.ones((7, 5), bool))
  folder.mkdir()
  policy.make_policy(SimpleNamespace(
      folder=folder, inputs={'inputs': inputs}, settings={'policy': P, 'seed': 0},
      resources=SimpleNamespace(watching=watching)))


@pytest.fixture
def sink(monkeypatch):
  """Every (step, scalars) that TensorBoard would get."""
  rows = []
  monkeypatch.setattr('jobrec_jax.train.watch.TensorBoard', lambda folder: SimpleNamespace(
      write=lambda step, scalars: rows.append((step, scalars)), close=lambda: rows.append(folder)))
  return rows


def test_the_policy_tells_its_course_by_epoch_and_its_speed(tmp_path, sink, caplog):
  with caplog.at_level(logging.INFO, 'absl'):
    make_policy(tmp_path / 'policy-0123', Watching(('tensorboard',), True, str(tmp_path)))
  *rows, folder = sink
  assert folder == tmp_path / 'tensorboard/policy-0123'
  assert [step for step, _ in rows] == [2, 4, 6, 8]  # an epoch is two batches of three lists
  history = load_arrays(tmp_path / 'policy-0123/history.npz')
  for epoch, (_, scalars) in enumerate(rows):
    for name, values in history.items():
      shown = [x for key, x in scalars.items() if key.startswith(f'policy/{name}/tau=')]
      np.testing.assert_array_equal(np.float32(shown), values[epoch])
  kept, = MetricsWriter(tmp_path / 'policy-0123/metrics.jsonl').read()
  assert (kept.pop('stage'), kept.pop('step')) == ('policy', 8)
  assert set(kept) == {'speed/step_seconds', 'speed/share_of_peak', 'speed/memory_mib'}
  assert kept.items() <= rows[-1][1].items() and kept['speed/step_seconds'] > 0
  told = [r.getMessage() for r in caplog.records]
  assert 'policy: compiling 4 epochs for 3 requirements as one program' in told
  assert list(tmp_path.glob('profile/policy-0123/plugins/profile/*/*.trace.json.gz'))


def test_watching_changes_no_bit_of_the_policy(tmp_path, sink):
  make_policy(tmp_path / 'a', Watching())
  make_policy(tmp_path / 'b', Watching(('tensorboard',), folder=str(tmp_path)))
  for name in ('params.safetensors', 'history.npz', 'policy.json'):
    assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()
  assert not (tmp_path / 'profile').exists()


def test_a_run_hands_its_folder_on_and_no_key_holds_what_is_watched(tmp_path):
  plain = Run(tmp_path, tiny_settings())
  watched = Run(tmp_path, tiny_settings(), watching=Watching(('tensorboard',), True))
  assert watched.store.resources == dataclasses.replace(
      resources(tiny_settings()), watching=Watching(('tensorboard',), True, str(tmp_path)))
  assert [s.key for s in plain.stages()] == [s.key for s in watched.stages()]


def test_real_tokens_are_counted():
  lists = {'candidate': np.array([[4, 0, -1]]), 'job': np.array([[[5, -1], [-1, -1]]]),
           'alignment': np.array([[[7], [8]]]), 'mask': np.ones((1, 2), bool)}
  assert count_tokens(lists) == 5
