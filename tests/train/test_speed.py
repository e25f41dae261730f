"""How fast training is: matrix products counted by hand, clocks turned by hand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.sharding import MeshConfig, make_mesh, over_lists
from jobrec_jax.train import speed
from jobrec_jax.train.loop import MetricsWriter
from tests.train import tiny

X, W = np.ones((4, 8), np.float32), np.ones((8, 16), np.float32)
ONE = 2 * 4 * 8 * 16  # operations of X @ W


def flops_of(f, *args) -> dict[str, int]:
  return dict(speed.matrix_flops(jax.jit(f).trace(*args).jaxpr.jaxpr))


def test_a_product_counts_two_operations_for_each_term():
  assert flops_of(lambda x, w: x @ w, X, W) == {'float32': ONE}
  assert flops_of(lambda x, w: jnp.einsum('bij,bjk->bik', x, w), X[:, :, None], W[:4, None]) == {
      'float32': 2 * 4 * 8 * 16}
  assert flops_of(lambda x: x + 1, X) == {}
  both = flops_of(lambda x, w: (x @ w, x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)), X, W)
  assert both == {'float32': ONE, 'bfloat16': ONE}


def test_gradients_count_as_far_as_they_are_asked_for():
  def loss(w, x):
    return (x @ w).sum()
  assert flops_of(jax.value_and_grad(loss), W, X) == {'float32': 2 * ONE}
  assert flops_of(jax.value_and_grad(loss, (0, 1)), W, X) == {'float32': 3 * ONE}


def test_what_is_repeated_counts_each_time():
  square = np.ones((8, 8), np.float32)

  def scanned(x):
    return jax.lax.scan(lambda x, _: (x @ square, None), x, None, length=5)
  assert flops_of(scanned, X) == {'float32': 5 * 2 * 4 * 8 * 8}
  assert flops_of(jax.jit(jax.checkpoint(scanned)), X) == {'float32': 5 * 2 * 4 * 8 * 8}

  def loop(x):
    return jax.lax.while_loop(lambda x: x.sum() < 10, lambda x: x @ square, x)
  assert flops_of(loop, X) == {'float32': 2 * 4 * 8 * 8}

  def either(x):
    return jax.lax.cond(x.sum() > 0, lambda x: x, lambda x: x @ square @ square, x)
  assert flops_of(either, X) == {'float32': 2 * 2 * 4 * 8 * 8}


def test_products_of_every_device_count():
  mesh = make_mesh(MeshConfig())
  lists = np.ones((8, 4, 8), np.float32)
  assert flops_of(over_lists(lambda w, x: x @ w, mesh), W, lists) == {'float32': 8 * ONE}


def test_the_peak_is_measured_once_whatever_mesh_holds(monkeypatch):
  measured = []
  monkeypatch.setattr(speed, '_measure', lambda dtype: measured.append(dtype) or 5.0)
  speed.matrix_peak.cache_clear()
  assert [speed.matrix_peak(d) for d in ('float32', 'bfloat16', 'float32')] == 3 * [5.0]
  assert measured == ['float32', 'bfloat16']
  assert speed.ideal_seconds({'float32': 10, 'bfloat16': 5}) == 3.0
  speed.matrix_peak.cache_clear()


def test_a_measured_peak_is_a_number_of_operations_a_second(monkeypatch):
  monkeypatch.setattr(speed, '_SIDE', {'cpu': 64})
  clock = iter(np.arange(100.0))
  monkeypatch.setattr(speed.time, 'perf_counter', lambda: next(clock))
  assert speed._measure('float32') == 2 * 64**3 * jax.device_count()


def test_a_speedometer_tells_of_the_steps_between_two_looks(monkeypatch):
  now = [10.0]
  monkeypatch.setattr(speed.time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(speed, 'matrix_peak', lambda dtype: 100.0)
  monkeypatch.setattr(speed, 'memory', lambda: 7.0)
  meter = speed.Speedometer({'float32': 30})
  assert meter.look(1, 50) == {}
  now[0] += 6
  assert meter.look(4, 50) == {'speed/step_seconds': 2.0, 'speed/tokens_per_second': 25.0,
                               'speed/share_of_peak': 0.15, 'speed/memory_mib': 7.0,
                               'speed/goodput': 1.0}
  now[0] += 1
  assert meter.look(5, None) == {'speed/step_seconds': 1.0, 'speed/share_of_peak': 0.3,
                                 'speed/memory_mib': 7.0, 'speed/goodput': 1.0}


def test_goodput_is_the_share_of_all_time_since_the_first_attempt_began(monkeypatch):
  """An attempt at 100 s did 30 s of steps that count and died; at 150 s it is started again."""
  now = [150.0]
  for clock in ('monotonic', 'time'):
    monkeypatch.setattr(speed.time, clock, lambda: now[0])
  monkeypatch.setattr(speed, 'matrix_peak', lambda dtype: 100.0)
  meter = speed.Speedometer({'float32': 30}, began=100.0, spent=30.0)
  now[0] += 20  # it compiles
  meter.look(11, None)
  now[0] += 10
  assert meter.look(21, None)['speed/goodput'] == (30 + 10) / 80
  now[0] += 5
  meter.look(21, None)  # a held-out loss was measured
  now[0] += 15
  assert meter.look(31, None)['speed/goodput'] == (30 + 10 + 15) / 100


def test_goodput_goes_on_after_a_kill_without_the_steps_that_are_done_again(tmp_path, monkeypatch):
  """Steps take 2 s. The first attempt is killed behind step 7, of which 4 are on disk."""
  now = [1000.0]
  for clock in ('monotonic', 'time'):
    monkeypatch.setattr(speed.time, clock, lambda: now[0])

  def slow(step, last=99):
    for number, batch in enumerate(tiny.batches(step), step):
      now[0] += 2.0
      if number == last:
        raise KeyboardInterrupt
      yield batch
  tiny.run(tmp_path, 4, slow, began=1000.0)
  with pytest.raises(KeyboardInterrupt):
    tiny.run(tmp_path, 10, lambda step: slow(step, 7), save_seconds=1e9, began=1000.0)
  assert now[0] == 1000 + 16
  now[0] += 84
  tiny.run(tmp_path, 10, slow, began=1000.0)
  rows = {r['step']: r for r in MetricsWriter(tmp_path / 'metrics.jsonl').read()}
  # Steps 2 to 4 and 6 to 10 are measured, 1 and 5 compile; 2 s each, 112 s in all.
  assert rows[10]['speed/goodput'] == pytest.approx(16 / 112)


@pytest.mark.parametrize('said, expected', [({'peak_bytes_in_use': 3 << 20}, 3.0), (None, 9.0)])
def test_memory_is_the_devices_where_it_says(said, expected, monkeypatch):
  device = SimpleNamespace(memory_stats=lambda: said)
  monkeypatch.setattr(speed.jax, 'local_devices', lambda: [device])
  monkeypatch.setattr(speed, 'peak_memory', lambda: 9)
  assert speed.memory() == expected


def test_rows_of_the_loop_hold_the_speed_and_no_step_waits_for_it(tmp_path, monkeypatch):
  """The host fetches from the device on log steps alone, as it does without them."""
  fetched, get = [], jax.device_get
  monkeypatch.setattr(jax, 'device_get', lambda x: (
      fetched.append(1) if isinstance(x, dict) and 'train/loss' in x else None, get(x))[1])
  tiny.run(tmp_path, 9, log_every=4, save_seconds=1e9, tokens=lambda batch: batch.size)
  first, *rest = MetricsWriter(tmp_path / 'metrics.jsonl').read()
  assert [row['step'] for row in (first, *rest)] == [1, 4, 8, 9] and len(fetched) == 4
  assert not [name for name in first if name.startswith(speed.PREFIX)]
  for row in rest:
    assert row['speed/tokens_per_second'] == pytest.approx(24 / row['speed/step_seconds'])
    assert 0 < row['speed/share_of_peak'] < 1 and row['speed/memory_mib'] > 10
