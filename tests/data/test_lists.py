"""Training and evaluation lists: what they hold and which negatives they draw."""

import dataclasses

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.data.dataset import Interactions, Truth
from jobrec_jax.data.lists import (
    PreferenceLists,
    QualificationLists,
    calibration_halves,
    candidates_of,
    catalogue_of,
    fixed_lists,
    labelled_lists,
    load_lists,
    negatives_policy,
    policy_lists,
    save_lists,
    truth_lists,
    uniform_lists,
    warm_jobs,
)
from jobrec_jax.data.sampled_lists import Grid, sampled_lists


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


@given(logs(), st.integers(1, 6), st.sampled_from(['exposed', 'uniform']), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_preference_lists(log, negatives, policy, seed):
  lists = PreferenceLists(log, negatives, policy)
  label = labels(log, 'preference')
  assert len(lists) == sum(v == 1 for v in label.values())
  longest = 0
  for positive in lists.positives:
    drawn = lists.draw(positive, np.random.default_rng(seed))
    u, jobs, mask = int(drawn['candidate']), drawn['job'].tolist(), drawn['mask']
    assert len(jobs) == len(mask) == 1 + lists.negatives
    assert label[u, jobs[0]] == 1 and mask[0]
    taken = [j for j, m in zip(jobs[1:], mask[1:]) if m]
    longest = max(longest, len(taken))
    assert len(set(taken)) == len(taken)
    allowed = ({j for (v, j), y in label.items() if v == u and y == 0} if policy == 'exposed' else
               {j for _, j in label if label.get((u, j)) != 1})
    assert set(taken) <= allowed
    assert len(taken) == min(negatives, len(allowed))
  assert lists.negatives == max(1, longest)  # no list is padded further than the data ask for


@given(logs(), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_qualification_lists(log, negatives, seed):
  weights = np.arange(len(log)) + 1.0
  lists = QualificationLists(log, negatives, weights)
  label = labels(log, 'qualification')
  weight, longest = dict(zip(label, weights)), 0
  for positive in lists.positives:
    drawn = lists.draw(positive, np.random.default_rng(seed))
    job, people, mask = int(drawn['job']), drawn['candidate'].tolist(), drawn['mask']
    assert label[people[0], job] == 1 and mask[0]
    taken = [u for u, m in zip(people[1:], mask[1:]) if m]
    rejected = {u for (u, j), y in label.items() if j == job and y == 0}
    assert set(taken) <= rejected and len(set(taken)) == len(taken)
    assert len(taken) == min(negatives, len(rejected))
    assert drawn['weight'].tolist() == [weight[u, job] for u in people]
    longest = max(longest, len(taken))
  assert lists.negatives == max(1, longest)


def test_where_nothing_was_shown_without_an_application_negatives_are_uniform(dataset):
  log = dataset.interactions
  assert negatives_policy(log, 'exposed') == 'exposed'
  assert negatives_policy(log.where(log.preference == 1), 'exposed') == 'uniform'


@pytest.mark.parametrize('make', [PreferenceLists, QualificationLists])
def test_fixed_lists_are_the_same_every_time_and_each_has_a_negative(dataset, make):
  source = make(dataset.interactions.of('train'), 3)
  lists = fixed_lists(source, 50, 7)
  assert all(len(x) == 50 for x in lists.values()) and lists['mask'][:, :2].all()
  for name, again in fixed_lists(source, 50, 7).items():
    np.testing.assert_array_equal(again, lists[name])
  assert any((lists[name] != x).any() for name, x in fixed_lists(source, 50, 8).items())
  contrasted = sum(len(source.pool(p)) > 0 for p in source.positives)
  pairs = [x if x.ndim == 1 else x[:, 0] for x in (lists['candidate'], lists['job'])]
  counts = np.unique(np.stack(pairs), axis=1, return_counts=True)[1]
  assert len(counts) == min(50, contrasted) and np.ptp(counts) <= 1  # they take turns


def test_nothing_is_measured_where_no_positive_has_a_negative(dataset):
  log = dataset.interactions.of('validation')
  assert fixed_lists(PreferenceLists(log.where(log.preference == 1), 3), 8, 0) is None
  assert fixed_lists(QualificationLists(log.where(log.qualification != 0), 3), 8, 0) is None


def test_a_log_without_positives_fails(dataset):
  log = dataset.interactions
  with pytest.raises(ValueError, match='no application'):
    PreferenceLists(log.where(log.preference == 0), 3)
  with pytest.raises(ValueError, match='no accepted applicant'):
    QualificationLists(log.where(log.qualification != 1), 3)
  with pytest.raises(ValueError, match='preference_policy'):
    PreferenceLists(log, 3, 'hard')


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
