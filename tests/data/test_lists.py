"""Training and evaluation lists: what they hold and which negatives they draw."""

import dataclasses

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.data import lists
from jobrec_jax.data.dataset import Interactions, Truth
from jobrec_jax.data.lists import (
  UNSEEN,
  calibration_halves,
  candidates_of,
  catalogue_of,
  labelled_lists,
  load_lists,
  policy_lists,
  save_lists,
  stage_2_of,
  truth_lists,
  uniform_lists,
  unseen_candidates,
  warm_jobs,
)
from jobrec_jax.data.sampled_lists import Grid, sampled_lists
from jobrec_jax.data.training_lists import (
  LabelledLists,
  SampledLists,
  fixed_lists,
  negatives_policy,
  preference_lists,
)


@st.composite
def logs(draw) -> Interactions:
  """A log of distinct pairs with at least one application and one acceptance."""
  candidates, jobs = draw(st.integers(1, 5)), draw(st.integers(2, 6))
  cell = st.sampled_from([None, (0, -1), (1, 0), (1, 1), (1, -1)])
  cells = draw(st.lists(cell, min_size=candidates * jobs, max_size=candidates * jobs))
  cells[draw(st.integers(0, len(cells) - 1))] = (1, 1)
  rows = [(i // jobs, i % jobs, *c) for i, c in enumerate(cells) if c is not None]
  u, j, preference, qualification = np.array(rows, np.int32).T
  return Interactions(u, j, preference.astype(np.int8), qualification.astype(np.int8),
                      np.zeros(len(u), np.int8), np.ones(len(u), np.float32))


def labels(log: Interactions, name: str) -> dict[tuple[int, int], int]:
  pairs = zip(log.candidate.tolist(), log.job.tolist())
  return dict(zip(pairs, getattr(log, name).tolist()))


def others_of(centre: str) -> str:
  return 'job' if centre == 'candidate' else 'candidate'


def check_shape(drawn, lists):
  n = 1 + lists.negatives
  assert set(drawn) == {'candidate', 'job', 'mask', 'weight', 'label'}
  assert all(drawn[k].shape == (n,) for k in ('candidate', 'job', 'mask', 'weight'))
  assert drawn['label'].shape == () and drawn['weight'].dtype == np.float32
  assert drawn['mask'][0] and (np.diff(drawn['mask'].astype(int)) <= 0).all()
  assert (drawn['weight'][~drawn['mask']] == 0).all()


@given(logs(), st.integers(1, 6), st.sampled_from(['preference', 'qualification']),
       st.sampled_from(['candidate', 'job']), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_labelled_lists(log, negatives, perspective, centre, seed):
  own = np.arange(len(log)) / 10 + 1.0
  lists = LabelledLists(log, perspective, centre, negatives, own)
  label = labels(log, perspective)
  weight_of = dict(zip(label, own))
  known = sum(y >= 0 for y in label.values())
  of = {c: [[k for k, y in label.items() if k[centre == 'job'] == c and y == want]
            for want in (1, 0)] for c in getattr(log, centre).tolist()}
  rng, longest, lists_of, total = np.random.default_rng(seed), 0, {}, 0.0
  for anchor in lists.anchors:
    drawn = lists.draw(anchor, rng)
    check_shape(drawn, lists)
    (c,) = set(drawn[centre].tolist())
    yes, no = of[c]
    pairs = list(zip(drawn['candidate'].tolist(), drawn['job'].tolist()))
    real = [pair for pair, m in zip(pairs, drawn['mask']) if m]
    assert len(set(real)) == len(real) and drawn['label'] == bool(yes)
    taken = real[1:] if yes else real
    assert set(taken) <= set(no) and (not yes or real[0] in yes)
    assert len(real) == (1 + min(negatives, len(no)) if yes else
                         min(1 + lists.negatives, len(no)))
    longest = max(longest, len(taken)) if yes else longest
    lists_of[c] = lists_of.get(c, 0) + 1
    wanted = [1.0] * len(real)
    share = len(yes) if yes else -(-len(no) // (1 + lists.negatives))
    for i, pair in enumerate(real):
      if not (yes and i == 0):
        wanted[i] = len(no) / (share * len(taken))
      wanted[i] *= weight_of[pair] * len(lists) / known
    np.testing.assert_allclose(drawn['weight'][drawn['mask']], wanted, rtol=1e-5)
    total += sum(w / weight_of[pair] for w, pair in zip(wanted, real))
    assert [label[pair] for pair in zip(lists._log.candidate[lists.pool(anchor)].tolist(),
                                        lists._log.job[lists.pool(anchor)].tolist())] == [0] * len(
                                            no)
  assert lists.negatives == max(1, longest)  # no list is padded further than the data ask for
  assert len(lists) == len(lists.anchors) == sum(lists_of.values())
  for c, (yes, no) in of.items():  # who has no positive is heard, too; without a label, nobody
    assert lists_of.get(c, 0) == (len(yes) or -(-len(no) // (1 + lists.negatives)))
  assert total == pytest.approx(len(lists), rel=1e-5)  # every label counts 1 of an epoch
  assert lists.contrasted() == any(yes and no for yes, no in of.values())


@given(logs(), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_sampled_lists(log, negatives, seed):
  lists = SampledLists(log, negatives)
  label = labels(log, 'preference')
  assert len(lists) == len(lists.anchors) == sum(v == 1 for v in label.values())
  longest, some = 0, False
  for anchor in lists.anchors:
    drawn = lists.draw(anchor, np.random.default_rng(seed))
    check_shape(drawn, lists)
    (u,) = set(drawn['candidate'].tolist())
    jobs, mask = drawn['job'].tolist(), drawn['mask']
    assert drawn['label'] and not drawn['weight'].any()  # nothing is known of the others
    assert (u, jobs[0]) == (log.candidate[anchor], log.job[anchor]) and label[u, jobs[0]] == 1
    taken = [j for j, m in zip(jobs[1:], mask[1:]) if m]
    allowed = {j for _, j in label if label.get((u, j)) != 1}
    assert set(taken) <= allowed and len(set(taken)) == len(taken) == min(negatives, len(allowed))
    assert set(lists.pool(anchor).tolist()) == allowed
    longest, some = max(longest, len(taken)), some or bool(allowed)
  assert lists.negatives == max(1, longest) and lists.contrasted() == some


@pytest.mark.parametrize('centre', ['candidate', 'job'])
def test_who_has_no_positive_is_heard_in_whole_over_the_epochs(centre):
  """A centre of seven negatives alone in lists of up to three: three lists, each with any."""
  pairs = [(0, 0, 1), (0, 1, 0), (0, 2, 0), *((1, j, 0) for j in range(7))]
  u, j, y = np.array(pairs if centre == 'candidate' else [(j, u, y) for u, j, y in pairs]).T
  log = Interactions(u.astype(np.int32), j.astype(np.int32), y.astype(np.int8),
                     np.full(10, -1, np.int8), np.zeros(10, np.int8), np.ones(10, np.float32))
  lists = LabelledLists(log, 'preference', centre, 2)
  assert len(lists) == 4 and lists.contrasted()
  rng, seen = np.random.default_rng(0), {}
  for _ in range(400):
    drawn = [lists.draw(a, rng) for a in lists.anchors]
    assert [bool(d['label']) for d in drawn] == [True, False, False, False]
    for d in drawn[1:]:
      assert (d[centre] == 1).all() and d['mask'].all()
      np.testing.assert_allclose(d['weight'], 7 / 9 * 4 / 10, rtol=1e-6)
      for item in d[others_of(centre)].tolist():
        seen[item] = seen.get(item, 0) + 1
    np.testing.assert_allclose(drawn[0]['weight'], 4 / 10, rtol=1e-6)
  assert set(seen) == set(range(7))
  np.testing.assert_allclose(list(seen.values()), 400 * 9 / 7, rtol=0.15)


def test_what_a_policy_makes_of_preference_lists(dataset):
  log = dataset.interactions.of('train')
  for policy, centre in (('exposed', 'candidate'), ('exposed', 'job'), ('uniform', 'candidate')):
    lists = preference_lists(log, 3, policy, centre)
    assert isinstance(lists, SampledLists) == (policy == 'uniform')
    drawn = lists.draw(lists.anchors[0], np.random.default_rng(0))
    assert len(set(drawn[centre].tolist())) == 1 and len(set(drawn[others_of(centre)].tolist())) > 1


def test_where_nothing_was_shown_without_an_application_negatives_are_uniform(dataset):
  log = dataset.interactions
  assert negatives_policy(log, 'exposed') == 'exposed'
  assert negatives_policy(log.where(log.preference == 1), 'exposed') == 'uniform'


SOURCES = {'sampled': lambda log: SampledLists(log, 3), **{
    f'{p} by {c}': lambda log, p=p, c=c: LabelledLists(log, p, c, 3)
    for p in ('preference', 'qualification') for c in ('candidate', 'job')}}


@pytest.mark.parametrize('make', SOURCES.values(), ids=SOURCES)
def test_fixed_lists_are_the_same_every_time_and_take_turns(dataset, make):
  source = make(dataset.interactions.of('train'))
  lists = fixed_lists(source, 50, 7)
  assert all(len(x) == 50 for x in lists.values()) and lists['mask'][:, 0].all()
  assert lists['label'].any() and lists['mask'][:, 1].any()
  for name, again in fixed_lists(source, 50, 7).items():
    np.testing.assert_array_equal(again, lists[name])
  assert any((lists[name] != x).any() for name, x in fixed_lists(source, 50, 8).items())
  whole = fixed_lists(source, 2 * len(source), 7)
  pairs = np.stack([whole['candidate'][:, 0], whole['job'][:, 0]])[:, whole['label']]
  firsts, counts = np.unique(pairs, axis=1, return_counts=True)
  assert (counts == 2).all()  # nobody comes again before all have been there
  assert firsts.shape[1] == len(source) - (~whole['label']).sum() // 2


@pytest.mark.parametrize('centre', ['candidate', 'job'])
def test_nothing_is_measured_where_no_positive_has_a_negative(dataset, centre):
  log = dataset.interactions.of('validation')
  alone = LabelledLists(log.where(log.preference == 1), 'preference', centre, 3)
  assert fixed_lists(alone, 8, 0) is None
  accepted = LabelledLists(log.where(log.qualification != 0), 'qualification', centre, 3)
  assert fixed_lists(accepted, 8, 0) is None
  everything = log.where((log.preference == 1) & (log.candidate == log.candidate[0]))
  assert fixed_lists(SampledLists(everything, 3), 8, 0) is None


@pytest.mark.parametrize('centre', ['candidate', 'job'])
def test_a_log_without_positives_fails(dataset, centre):
  log = dataset.interactions
  nobody = log.where(log.preference == 0)
  for make in (lambda: LabelledLists(nobody, 'preference', centre, 3),
               lambda: SampledLists(nobody, 3), lambda: preference_lists(nobody, 3, 'exposed')):
    with pytest.raises(ValueError, match='the split holds no application'):
      make()
  with pytest.raises(ValueError, match='the split holds no accepted applicant'):
    LabelledLists(log.where(log.qualification != 1), 'qualification', centre, 3)


@pytest.mark.parametrize('split', ['train', 'test'])
def test_policy_lists(dataset, split):
  lists = policy_lists(dataset, split, items=6, count=50, seed=1)
  log = dataset.interactions.of(split)
  applied = set(zip(log.candidate[log.preference == 1].tolist(),
                    log.job[log.preference == 1].tolist()))
  assert lists.mask.all() and (lists.relevance.sum(1) == 1).all()
  assert (np.diff(lists.job, axis=1) > 0).all()
  assert (lists.candidate == lists.candidate[:, :1]).all()
  assert np.isin(lists.job, warm_jobs(dataset)).all()
  for row in range(len(lists)):
    for u, j, relevant in zip(lists.candidate[row].tolist(), lists.job[row].tolist(),
                              lists.relevance[row]):
      assert ((u, j) in applied) == relevant
  counts = np.unique(lists.candidate[:, 0], return_counts=True)[1]
  assert counts.max() - counts.min() <= 1


def test_what_a_candidate_applied_to_in_another_split_is_no_negative(dataset):
  """Training candidates' applications that the test keeps."""
  lists, log = policy_lists(dataset, 'train', items=8, count=400, seed=2), dataset.interactions
  def applied(split):
    mine = log.of(split)
    return set(zip(*(getattr(mine, k)[mine.preference == 1].tolist() for k in (
        'candidate', 'job'))))
  kept = {u for u, _ in applied('warm')} & set(lists.candidate[:, 0].tolist())
  assert kept  # there are some who could meet theirs
  negative = lists.mask & ~lists.relevance
  shown = set(zip(lists.candidate[negative].tolist(), lists.job[negative].tolist()))
  assert not shown & applied('warm') and not shown & applied('train')
  # Who applied to all but one job, in whatever split, has lists of two.
  u, jobs = int(log.candidate[log.split == 0][0]), warm_jobs(dataset)
  mine = log.candidate == u
  few = log.where(~mine)
  all_but_one = dataclasses.replace(few, **{f.name: np.append(getattr(few, f.name), x).astype(
      getattr(few, f.name).dtype) for f, x in zip(dataclasses.fields(few), (
          np.full(len(jobs) - 1, u), jobs[1:], np.ones(len(jobs) - 1), np.full(len(jobs) - 1, -1),
          np.where(np.arange(len(jobs) - 1) < 2, 0, 3), np.ones(len(jobs) - 1)))})
  lists = policy_lists(dataclasses.replace(dataset, interactions=all_but_one), 'train', 8, 400, 2)
  rows = lists.candidate[:, 0] == u
  assert rows.any() and (lists.mask[rows].sum(1) == 2).all()
  assert (lists.job[rows][:, 0] == jobs[0]).all()


def test_stage_2_has_the_lists_of_new_candidates_where_there_are_enough(dataset, monkeypatch):
  half, held_back = calibration_halves(dataset)
  new = unseen_candidates(dataset)
  assert set(new) == set(candidates_of(dataset, 'validation')) | set(half)
  assert not set(new) & (set(candidates_of(dataset, 'train')) | set(held_back))
  few = stage_2_of(dataset)
  assert len(new) < UNSEEN and few.wanted.keys() <= set(candidates_of(dataset, 'train'))
  jobs = catalogue_of(dataset, 'train')
  train = policy_lists(dataset, 'train', 6, 50, 1)
  assert policy_lists(dataset, 'train', 6, 50, 1, jobs, few.wanted).fingerprint() == (
      train.fingerprint())

  monkeypatch.setattr(lists, 'UNSEEN', 5)
  found = stage_2_of(dataset)
  drawn = policy_lists(dataset, 'train', 6, 50, 1, found.jobs, found.wanted)
  assert set(drawn.candidate.ravel()) <= set(new) and 'does not know' in found.whose
  log = dataset.interactions
  log = log.where((log.preference == 1) & np.isin(log.candidate, new))
  applied = set(zip(log.candidate.tolist(), log.job.tolist()))
  for u, j, relevant in zip(drawn.candidate.ravel(), drawn.job.ravel(), drawn.relevance.ravel()):
    assert ((u, j) in applied) == relevant
  assert (drawn.relevance.sum(1) == 1).all() and np.isin(drawn.job, warm_jobs(dataset)).all()


def test_policy_lists_follow_from_the_seed(dataset):
  same = [policy_lists(dataset, 'train', 6, 40, seed).fingerprint() for seed in (1, 1, 2)]
  assert same[0] == same[1] != same[2]
  with pytest.raises(ValueError, match=r'policy.list_length must be at least 2, got 1'):
    policy_lists(dataset, 'train', 1, 40, 1)


def test_policy_lists_are_as_long_and_as_many_as_the_data_allow(dataset):
  """Six jobs, all that some applied to: lists of what is there, the rest masked."""
  jobs = np.arange(3, 9)
  lists = policy_lists(dataset, 'train', 50, 10_000, 1, jobs)
  log = dataset.interactions.of('train')
  chosen = (log.preference == 1) & np.isin(log.job, jobs)
  wanted = {u: set(log.job[chosen & (log.candidate == u)].tolist()) for u in log.candidate[chosen]}
  whole = dataset.interactions
  taken = {u: set(whole.job[(whole.candidate == u) & (whole.preference == 1)]) & set(jobs)
           for u in wanted}
  some = {u: x for u, x in wanted.items() if len(taken[u]) < 6}
  assert set(lists.candidate[:, 0]) == set(some) and len(lists) == sum(map(len, some.values()))
  assert lists.job.shape[1] == max(7 - len(taken[u]) for u in some) < 50
  assert not lists.mask.all() and (lists.relevance.sum(1) == 1).all()
  for u, job, mask, relevant in zip(lists.candidate, lists.job, lists.mask, lists.relevance):
    listed = job[mask].tolist()
    assert listed == sorted(set(listed)) and mask[:len(listed)].all()
    assert set(listed) == set(jobs.tolist()) - taken[u[0]] | {int(job[relevant][0])}
    assert int(job[relevant][0]) in some[u[0]] and mask[relevant].all()
    assert np.isin(job[~mask], jobs).all()


def test_policy_lists_need_somebody_with_a_choice(dataset):
  log = dataset.interactions.of('train')
  everything = np.unique(log.job[(log.preference == 1) & (log.candidate == log.candidate[0])])
  log = log.where((log.candidate == log.candidate[0]) & (log.preference == 1))
  with pytest.raises(ValueError, match='^the train split must hold candidates who applied to some '
                                       f'of the {len(everything)} jobs .* and not to all, got '):
    policy_lists(dataclasses.replace(dataset, interactions=log), 'train', 6, 4, 1)


def test_where_the_test_has_jobs_of_its_own_alone_its_lists_are_drawn_from_these(dataset):
  log, jobs = dataset.interactions, warm_jobs(dataset)
  np.testing.assert_array_equal(catalogue_of(dataset, 'cold_candidates'), jobs)
  apart = dataclasses.replace(dataset, interactions=log.where(
      np.isin(log.job, jobs[::2]) == (log.split == 0)))
  assert set(catalogue_of(apart, 'train')) == set(warm_jobs(apart)) <= set(jobs[::2])
  own = catalogue_of(apart, 'test')
  assert set(own) == set(apart.interactions.of('test').job) and not set(own) & set(jobs[::2])
  assert np.isin(policy_lists(apart, 'test', 6, 20, 1).job, own).all()


def test_the_calibration_halves_share_nobody(dataset):
  fitted, held_back = calibration_halves(dataset)
  assert not set(fitted.tolist()) & set(held_back.tolist())
  assert sorted([*fitted, *held_back]) == candidates_of(dataset, 'calibration').tolist()
  assert fitted.tolist() == candidates_of(dataset, 'calibration').tolist()[::2]


def test_uniform_lists_need_no_application_and_have_every_label(market):
  _, truth = market
  candidates, jobs = np.array([3, 9, 1, 7]), np.arange(2, 20)
  lists = uniform_lists(truth.eligible, candidates, jobs, 6, 1)
  assert lists.candidate.tolist() == [[u] * 6 for u in candidates]
  assert (np.diff(lists.job, axis=1) > 0).all() and np.isin(lists.job, jobs).all()
  np.testing.assert_array_equal(lists.relevance, truth.eligible[lists.candidate, lists.job])
  assert lists.mask.all()
  assert lists.fingerprint() == uniform_lists(truth.eligible, candidates, jobs, 6, 1).fingerprint()
  drawn = uniform_lists(truth.eligible, np.zeros(6000, int), jobs, 6, 0).job
  counts = np.bincount(drawn.ravel(), minlength=20)[2:]
  assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)
  whole = uniform_lists(truth.eligible, candidates, jobs, 50, 1)
  assert whole.mask.all() and whole.job.tolist() == [jobs.tolist()] * 4
  with pytest.raises(ValueError, match=r'policy.list_length must be at least 1, got 0'):
    uniform_lists(truth.eligible, candidates, jobs, 0, 1)


def test_truth_lists_rank_the_whole_grid(market):
  _, truth = market
  candidates, jobs = np.array([3, 9, 1]), np.array([2, 0])
  preference = truth_lists(truth, 'preference', candidates, jobs)
  assert preference.candidate.tolist() == [[3] * 2, [9] * 2, [1] * 2]
  assert (np.sort(preference.job, 1) == [0, 2]).all()
  np.testing.assert_array_equal(preference.relevance,
                                truth.wants[preference.candidate, preference.job])
  qualification = truth_lists(truth, 'qualification', candidates, jobs)
  assert qualification.job.tolist() == [[2] * 3, [0] * 3]
  assert (np.sort(qualification.candidate, 1) == [1, 3, 9]).all()
  np.testing.assert_array_equal(qualification.relevance,
                                truth.eligible[qualification.candidate, qualification.job])


def test_truth_lists_have_an_order_of_their_own(market):
  _, truth = market
  lists = truth_lists(truth, 'preference', np.arange(20), np.arange(10))
  assert len({tuple(row) for row in lists.job.tolist()}) == 20


@pytest.mark.parametrize('perspective', ['preference', 'qualification'])
def test_labelled_lists_hold_the_labels_of_a_split(dataset, perspective):
  lists = labelled_lists(dataset, 'test', perspective)
  log = dataset.interactions.of('test')
  label = {k: v for k, v in labels(log, perspective).items() if v >= 0}
  key = lists.candidate if perspective == 'preference' else lists.job
  assert (key == key[:, :1]).all()
  assert not (lists.relevance & ~lists.mask).any()
  seen = set()
  for u, j, relevant, real in zip(*(x.ravel().tolist() for x in (
      lists.candidate, lists.job, lists.relevance, lists.mask))):
    if real:
      assert label[u, j] == relevant and (u, j) not in seen
      seen.add((u, j))
  kept = lists.relevance.sum(1)
  assert ((kept > 0) & (kept < lists.mask.sum(1))).all()


def test_stored_lists_come_back_and_are_checked(tmp_path, market):
  _, truth = market
  path = tmp_path / 'lists.npz'
  lists = {p: truth_lists(truth, p, np.arange(20), np.arange(10)) for p in ('preference',
                                                                            'qualification')}
  save_lists(path, lists)
  lists['other'] = truth_lists(truth, 'preference', np.arange(20), np.arange(10), 0, 'job')
  save_lists(path, lists)
  back = load_lists(path)
  assert {k: (v.perspective, v.centre, v.fingerprint()) for k, v in back.items()} == {
      k: (v.perspective, v.centre, v.fingerprint()) for k, v in lists.items()}
  assert [v.centre for v in back.values()] == ['candidate', 'job', 'job']
  assert [p.name for p in tmp_path.iterdir()] == ['lists.npz']
  arrays = dict(np.load(path))
  del arrays['preference|job']
  np.savez(path, **arrays)
  with pytest.raises(ValueError, match=r"lists\.npz: must hold lists, got no array 'preference"):
    load_lists(path)
  path.write_bytes(b'PK\x03\x04 torn')
  with pytest.raises(ValueError, match=r'lists\.npz: must hold NumPy arrays'):
    load_lists(path)


@pytest.mark.parametrize('perspective', ['preference', 'qualification'])
def test_sampled_lists_have_one_positive_and_nothing_taken(market, perspective):
  _, truth = market
  rng = np.random.default_rng(1)
  grid = rng.permutation(60)[:25], rng.permutation(20)[:12]
  rows = np.ix_(*grid)
  part = Truth(*(getattr(truth, f.name)[rows] for f in dataclasses.fields(Truth)))
  taken = np.random.default_rng(0).random((25, 12)) < 0.3
  lists = sampled_lists(Grid(*grid, part, taken), perspective, length=6, seed=0)
  outcome = truth.wants if perspective == 'preference' else truth.eligible
  assert lists.job.shape[1] <= 6 and (lists.relevance.sum(1) == 1).all()
  np.testing.assert_array_equal(lists.relevance, outcome[lists.candidate, lists.job] & lists.mask)
  forbidden = {(grid[0][a], grid[1][b]) for a, b in zip(*np.nonzero(taken))}
  seen = list(zip(lists.candidate[lists.mask], lists.job[lists.mask]))
  assert not forbidden & set(seen) and len(seen) == len(set(seen))
  assert lists.relevance[:, 0].mean() < 0.6  # the positive stands anywhere
  with pytest.raises(ValueError, match=f'no {perspective} list has both'):
    sampled_lists(Grid(*grid, part, np.ones((25, 12), bool)), perspective, length=6, seed=0)
