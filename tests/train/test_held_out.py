"""A stage that is measured on lists it does not learn from keeps its best parameters, and ends."""

import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.sharding import MeshConfig, make_mesh
from jobrec_jax.train import loop as loops
from jobrec_jax.train.experts import Kind, held_out_loss
from jobrec_jax.train.loop import DivergenceError, HeldOut
from tests.train import tiny

STEPS = 24  # measured at every second one


@pytest.fixture(autouse=True)
def near(monkeypatch):
  monkeypatch.setattr(loops, 'APART', 1)


def rising(state, batch, key):
  """a = 0, 1, 2, 3, ... after so many updates, whatever the batch."""
  a = state.trainable['a'] * 0 + state.step + 1
  return state.replace(step=state.step + 1, trainable={'a': a}), {'train/loss': a[0]}


def distance(to):
  def measure(trainable, frozen, batch):
    return {'validation/loss': jnp.abs(trainable['a'][0] - to) + batch.sum()}
  return measure


def held_out(patience=3, to=7.3, batches=((0.5, 0.5), (1.5, -0.5))):
  return HeldOut(distance(to), [np.array(b, np.float32) for b in batches], patience)


def run(folder, steps=STEPS, update=rising, data=tiny.batches, of=None, **options):
  mesh = make_mesh(MeshConfig(), jax.devices()[:2])
  with tiny.Checkpoints(folder / 'checkpoints', tiny.IDENTITY) as checkpoints:
    loop = loops.Loop('tiny', steps, checkpoints, loops.MetricsWriter(folder / 'metrics.jsonl'),
                      **{'log_every': 5, 'save_seconds': 0.0, 'held_out': of or held_out()}
                      | options)
    return loops.train(loop, update, tiny.first_state(), data, jax.random.key(1), mesh)


def test_it_ends_after_so_many_measurements_and_keeps_the_best(tmp_path, caplog):
  with caplog.at_level(logging.INFO, 'absl'):
    state = run(tmp_path)
  assert int(state.step) == 14 and int(state.best.step) == 8
  assert state.trainable['a'].tolist() == [14] * 3 and state.kept['a'].tolist() == [8] * 3
  rows = {r['step']: r.get('validation/loss') for r in tiny.rows(tmp_path)}
  assert rows == {1: None, 5: None, **{
      step: pytest.approx(abs(step - 7.3) + 1, abs=1e-5) for step in range(2, 15, 2)}}
  assert ('tiny: the parameters of step 8 are kept; the lowest validation loss of 14 steps is '
          '1.7000; stopped before step 24') in caplog.text
  assert 'tiny: step 8/24, loss 8.0000, validation 1.7000' in caplog.text


def test_a_loss_that_falls_to_the_end_ends_nothing(tmp_path):
  state = run(tmp_path, 23, of=held_out(1, to=100))
  assert int(state.step) == int(state.best.step) == 23  # the last step is measured, too
  assert state.kept['a'].tolist() == state.trainable['a'].tolist() == [23] * 3


def test_newer_parameters_are_kept_where_the_loss_is_hardly_higher(tmp_path):
  """The losses of steps 0, 2, 4, ...: within 2% of the lowest of all so far, or not."""
  losses = np.float32([4, 3, 2, 2.03, 2.05, 2.039, 2.06, 2.07, 2.08, 2.09, 2.0])
  kept = []
  for patience in (9, 3):
    curve = HeldOut(lambda t, f, batch: {'validation/loss': batch[t['a'][0].astype(int) // 2]},
                    [losses], patience)
    state = run(tmp_path / str(patience), 20, of=curve)
    kept.append((int(state.best.step), int(state.step), float(state.best.lowest)))
  assert kept == [(20, 20, 2.0), (10, 16, 2.0)]


def test_the_start_is_kept_where_no_step_betters_it(tmp_path, caplog):
  with caplog.at_level(logging.INFO, 'absl'):
    state = run(tmp_path, of=held_out(to=0))
  assert int(state.step) == 6 and int(state.best.step) == 0 and float(state.best.lowest) == 1
  assert state.kept['a'].tolist() == tiny.first_state().trainable['a'].tolist()
  assert 'tiny: at its start validation 1.0000' in caplog.text
  assert 'tiny: the parameters of step 0 are kept; the lowest validation loss of 6' in caplog.text


def test_without_lists_that_are_held_out_the_last_parameters_are_kept(tmp_path):
  state = tiny.run(tmp_path, 3)
  assert state.best == () and state.kept is state.trainable


def test_measurements_are_few_and_not_close(tmp_path, monkeypatch):
  monkeypatch.undo()
  for steps, every in ((4, 20), (100, 20), (300, 25), (350, 30), (1200, 100)):
    loop = loops.Loop('tiny', steps, None, None, held_out=held_out())
    assert loop.every == every
    at = [step for step in range(1, steps + 1) if loop.measures(step)]
    assert at == sorted({*range(every, steps + 1, every), steps}) and len(at) <= 12


def test_killed_behind_its_best_step_it_keeps_the_same_to_the_bit(tmp_path):
  """Real updates, with noise, that pass by what the measurement likes best."""
  measured = HeldOut(lambda t, f, batch: {'validation/loss': jnp.abs(t['a'][2] - 1.92)},
                     [np.zeros(2, np.float32)], 4)
  whole = run(tmp_path / 'whole', update=tiny.UPDATE, of=measured)
  best = int(whole.best.step)
  assert best >= 4 and int(whole.step) == best + 8
  for pieces in ((best + 1,), (best, best + 3), (1, best - 1)):
    folder = tmp_path / str(pieces)
    for stop in pieces:
      def failing(step, stop=stop):
        yield from itertools.islice(tiny.batches(step), stop - step)
        raise OSError('the disk of the data is gone')
      with pytest.raises(OSError, match='of the data'):
        run(folder, update=tiny.UPDATE, data=failing, of=measured)
    again = run(folder, update=tiny.UPDATE, of=measured)
    assert tiny.bits(again) == tiny.bits(whole)
    assert np.asarray(again.kept['a']).tobytes() == np.asarray(whole.kept['a']).tobytes()


def test_a_stage_that_ended_early_is_restored_as_it_is(tmp_path):
  first = run(tmp_path)
  before = (tmp_path / 'metrics.jsonl').read_bytes()
  assert tiny.bits(run(tmp_path)) == tiny.bits(first)
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before


def test_a_measurement_that_is_not_finite_stops_the_run(tmp_path):
  with pytest.raises(DivergenceError, match=r'validation/loss is nan at step 2; the newest '
                                            r'checkpoint on disk is of step 1'):
    run(tmp_path, of=HeldOut(lambda t, f, batch: {'validation/loss': jnp.where(
        t['a'][0] < 2, 1.0, jnp.nan)}, [np.zeros(2, np.float32)], 3))


def test_keeping_the_best_compiles_no_step_again(tmp_path, caplog):
  def update(*given):  # no test before has compiled it
    return rising(*given)
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    run(tmp_path, update=update)
  compiled = [r.getMessage() for r in caplog.records if 'Compiling' in r.getMessage()]
  assert sum('jit(update)' in x for x in compiled) == 1, compiled
  assert sum('jit(measure)' in x for x in compiled) == 1, compiled


@pytest.mark.slow
def test_the_held_out_loss_is_that_of_the_scores_with_nothing_dropped(model: JobRec, dataset,
                                                                      blocks):
  """With lists around both sides, of two lengths, one of them without a positive."""
  kinds = [Kind('preference', 'candidate'), Kind('qualification', 'candidate'),
           Kind('qualification', 'job')]
  mask = [np.array([[True, True, True], [True, True, False]]), np.ones((2, 2), bool),
          np.ones((2, 2), bool)]
  u, j = np.array([0, 1]), np.arange(6).reshape(2, 3)
  lists = [blocks.candidate_lists(u, j), blocks.candidate_lists(u + 2, j[:, :2]),
           blocks.job_lists(np.array([[3, 4], [5, 6]]), np.array([7, 8]))]
  weight = [m * w for m, w in zip(mask, (1.0, 0.5, 2.0))]
  label = np.array([True, True]), np.array([True, False]), np.array([True, True])
  batch = tuple(x | {'mask': m, 'weight': w.astype(np.float32), 'label': y}
                for x, m, w, y in zip(lists, mask, weight, label))
  params = model.init(jax.random.key(0), *lists[0].values())['params']
  s = [np.asarray(model.apply({'params': params}, *x.values()).scores, np.float64) for x in lists]
  s_pref, *s_qual = s[0][..., 0], s[1][..., 1], s[2][..., 1]
  c = 0.3
  p = 1 / (1 + np.exp(-s_pref)) * (1 - c / (1 + np.exp(s[0][..., 1])))
  logit = np.log(p / (1 - p))

  def losses(*parts):
    """Means of (logits, mask, weight, label) over lists."""
    nce, bce = [], []
    for z, m, w, y in zip(*(itertools.chain(*x) for x in zip(*parts))):
      nce.append((np.log(np.exp(z[m]).sum()) - z[0]) * y)
      bce.append((w * (np.logaddexp(0, z) - z * (np.arange(len(z)) == 0) * y)).sum())
    return np.mean(nce), np.mean(bce)
  pref = losses((logit, mask[0], weight[0], label[0]))
  qual = losses(*zip(s_qual, mask[1:], weight[1:], label[1:]))
  found = held_out_loss(model, kinds, 0.7, c)({'model': params}, {}, batch)
  expected = {'preference_contrast': pref[0], 'preference_entropy': pref[1],
              'qualification_contrast': qual[0], 'qualification_entropy': qual[1],
              'loss': pref[0] + qual[0] + 0.7 * (pref[1] + qual[1])}
  assert {k: float(x) for k, x in found.items()} == pytest.approx(
      {f'validation/{k}': x for k, x in expected.items()}, rel=1e-4)
  alone = held_out_loss(model, kinds[1:], 0.7)({'model': params}, {}, batch[1:])
  assert set(alone) == {f'validation/{k}' for k in (
      'qualification_contrast', 'qualification_entropy', 'loss')}
  assert float(alone['validation/loss']) == pytest.approx(qual[0] + 0.7 * qual[1], rel=1e-4)
