"""The script on a small market: what a review removes, and people who review in several goes."""

import csv
import io
import json

import numpy as np
import pytest

from experiments import refine
from jobrec_jax.data.files.jsonl import write_jsonl
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.selection import machine_labels
from jobrec_jax.pipeline.settings import RefineSettings, Settings
from jobrec_jax.refine.review import VERDICTS
from jobrec_jax.schema.schema import PERSPECTIVES
from jobrec_jax.schema.settings import build


def settings(candidates, jobs, **changes):
  return build(Settings, {'market': {'candidates': candidates, 'jobs': jobs},
                          'policy': {'list_length': 10}, 'refine': changes})


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('refine')
  refine.main(Run(path, settings(300, 60)))
  return path


def test_the_machine_errs_about_its_own_perspective():
  dataset, truth = simulate(MarketConfig(candidates=60, jobs=20, rho_x=-0.5), 0)
  rules = RefineSettings(pairs=500, flip=0.2)
  for name, labels in machine_labels(rules, 3, dataset, truth).items():
    pairs = labels.candidate, labels.job
    outcome = truth.wants if name == 'preference' else truth.eligible
    np.testing.assert_array_equal(labels.truth, outcome[pairs])
    np.testing.assert_allclose(labels.open, getattr(truth, name)[pairs])
    assert len(set(zip(*pairs))) == 500
    assert abs((labels.machine != labels.truth).mean() - 0.2) < 4 * np.sqrt(0.16 / 500)


def rows_of(path):
  return list(csv.DictReader(io.StringIO(path.read_text(), newline='')))


def log_of(folder):
  return [json.loads(line) for line in (folder / 'provenance.jsonl').read_text().splitlines()]


@pytest.mark.slow
def test_doubt_finds_three_times_the_errors_of_chance(folder):
  found = json.loads((folder / 'refine.json').read_text())
  assert found['missing_verdicts'] == 0
  for s in found['perspectives'].values():
    assert s['pairs'] == 18_000 and s['chosen'] == s['reviewed'] == 1800
    assert 0.13 < s['errors_before'] / s['pairs'] < 0.17
    assert s['ratio'] == s['errors_removed'] / s['random_errors_removed'] >= 3
    assert 3 < s['lift'] < s['oracle_lift'] < 1 / 0.13
    assert 0.1 < s['estimated_flip'] < 0.2
    assert s['errors_after'] == s['errors_before'] - s['errors_removed']


@pytest.mark.slow
def test_experts_error_rates_are_found(folder):
  for s in json.loads((folder / 'refine.json').read_text())['perspectives'].values():
    assert [e['true_error'] for e in s['experts']] == [0.05, 0.1, 0.1, 0.15, 0.2]
    for e in s['experts']:
      assert e['verdicts'] == 1080
      # Four standard errors of a share among as many verdicts.
      assert abs(e['error'] - e['true_error']) < 0.048
    assert len(s['cohen_kappa']) == 10 and 0.3 < s['fleiss_kappa'] < 0.8


@pytest.mark.slow
def test_every_change_names_its_experts_and_is_in_the_labels(folder):
  log = log_of(folder)
  assert len(log) == 3600
  for row in log:
    assert len(row['verdicts']) == 3
    assert row['changed'] == (row['label'] != row['machine']) == bool(row['changed_by'])
    for name in row['changed_by']:
      assert VERDICTS[row['verdicts'][name]] == row['label']
  for name, column in (('preference', 'label_pref'), ('qualification', 'label_qual')):
    labels = {(r['user'], r['item']): int(r[column])
              for r in rows_of(folder / f'labels_{name}.csv')}
    assert len(labels) == 18_000
    for row in log:
      if row['perspective'] == name:
        assert labels[row['candidate'], row['job']] == row['label']


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes(folder):
  names = ('provenance.jsonl', 'refine.json', 'labels_preference.csv')
  before = {name: (folder / name).read_bytes() for name in names}
  for name in names:
    (folder / name).unlink()
  refine.main(Run(folder, settings(300, 60)))
  assert {name: (folder / name).read_bytes() for name in names} == before


@pytest.mark.slow
def test_other_settings_make_another_selection(folder, tmp_path):
  before = json.loads((folder / 'refine.json').read_text())
  run = Run(tmp_path, settings(300, 60, budget=0.05), folder / 'store')
  refine.main(run)
  found = json.loads((tmp_path / 'refine.json').read_text())
  assert found['review'] != before['review']
  assert {s['chosen'] for s in found['perspectives'].values()} == {900}
  assert len(list((folder / 'store').glob('selection-*'))) == 2
  assert len(list((folder / 'store').glob('data-*'))) == 1


def fill(sheet, out, answers):
  """Saves a copy of a reviewer's sheet with the first answers in it."""
  rows = rows_of(sheet)
  for row, answer in zip(rows, answers):
    row['verdict'] = answer
  with out.open('w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def test_people_review_in_several_goes(tmp_path, capsys):
  config = settings(40, 20, reviewers='people', people=('ann', 'bo', 'cy'), budget=0.05, verdicts=2)
  refine.main(Run(tmp_path, config))
  said = capsys.readouterr().out
  assert 'review_ann.html' in said and 'cy: 0 of ' in said and 'Put the files' in said
  assert not (tmp_path / 'refine.json').exists()
  sheets = {name: tmp_path / 'review' / f'review_{name}.csv' for name in ('ann', 'bo', 'cy')}
  assert sum(len(rows_of(s)) for s in sheets.values()) == 2 * 2 * 40
  untouched = {p: p.read_bytes() for p in (tmp_path / 'review').iterdir()}

  # Ann is half done; her sheet is then lost to nobody, and the others join later.
  fill(sheets['ann'], tmp_path / 'verdicts' / 'ann.csv', ['yes', 'no', 'unsure', 'no'])
  refine.main(Run(tmp_path, config))
  assert 'ann: 4 of ' in capsys.readouterr().out
  found = json.loads((tmp_path / 'refine.json').read_text())
  assert found['missing_verdicts'] == 160 - 4
  given = [row['verdicts'] for row in log_of(tmp_path) if row['verdicts']]
  assert given == [{'ann': v} for v in ('yes', 'no', 'unsure', 'no')]
  assert all(r['changed_by'] in ([], ['ann']) for r in log_of(tmp_path))

  for name, sheet in sheets.items():
    rows = len(rows_of(sheet))
    answers = ['yes', 'no', 'unsure', 'no', *('yes' if i % 3 else 'no' for i in range(rows - 4))]
    fill(sheet, tmp_path / 'verdicts' / f'{name}.csv', answers)
  refine.main(Run(tmp_path, config))
  found = json.loads((tmp_path / 'refine.json').read_text())
  assert found['missing_verdicts'] == 0 and set(found['perspectives']) == set(PERSPECTIVES)
  assert 'Put the files' not in capsys.readouterr().out
  assert {p: p.read_bytes() for p in (tmp_path / 'review').iterdir()} == untouched
  for s in found['perspectives'].values():
    assert 'ratio' not in s and all('true_error' not in e for e in s['experts'])

  fill(sheets['bo'], tmp_path / 'verdicts' / 'later.csv', ['no'])
  with pytest.raises(ValueError, match=r'later\.csv:2: verdict of bo on \w+ must be the one of'):
    refine.main(Run(tmp_path, config))


def test_verdicts_and_pages_of_another_selection_are_refused(tmp_path):
  """Other settings choose other pairs, of which the people were asked nothing."""
  rules = {'reviewers': 'people', 'people': ('ann', 'bo'), 'budget': 0.05, 'verdicts': 1}
  refine.main(Run(tmp_path, settings(40, 20, **rules)))
  sheet = tmp_path / 'review' / 'review_ann.csv'
  other = Run(tmp_path, settings(40, 20, **rules | {'budget': 0.1}))
  with pytest.raises(ValueError, match=r'review_ann\.csv:2: review must be .*of another review'):
    refine.main(other)
  fill(sheet, tmp_path / 'verdicts' / 'ann.csv', ['yes'])
  for path in (tmp_path / 'review').iterdir():
    path.unlink()
  with pytest.raises(ValueError, match=r'verdicts/ann\.csv:2: review must be .*of another review'):
    refine.main(other)
  assert not (tmp_path / 'refine.json').exists()


def test_observed_labels_are_taken_once(market):
  dataset, _ = market
  rules = RefineSettings(('qualification',), 100, reviewers='people')
  log = dataset.interactions
  twice = type(dataset)(dataset.schema, dataset.candidates, dataset.jobs, type(log)(
      *(np.concatenate([x, x]) for x in vars(log).values())))
  one, two = (machine_labels(rules, 0, d, None)['qualification'] for d in (dataset, twice))
  observed = log.qualification >= 0
  np.testing.assert_array_equal(one.machine, log.qualification[observed] == 1)
  for a, b in zip(one[:3], two[:3]):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('changes, message', [
    ({'perspectives': ('preference', 'hired')}, r"refine\.perspectives must be .*'hired'"),
    ({'perspectives': ()}, r'refine\.perspectives must be some of'),
    ({'reviewers': 'robots'}, r"refine\.reviewers must be one of .*'people'.*got 'robots'"),
    ({'budget': 1.5}, r'refine\.budget must be .*in \[0, 1\], got 1\.5'),
    ({'flip': 0.5}, r'refine\.flip must be .*in \[0, 0\.49\], got 0\.5'),
    ({'verdicts': 6}, r'refine\.verdicts must be at most the 5 reviewers, got 6'),
    ({'error_rates': (0.1, 0.1, 0.6)}, r'refine\.error_rates must be .*in \[0, 0\.5\)'),
    ({'people': ('a', 'b', 'b/c')}, r'refine\.people: reviewers must have different names'),
])
def test_a_bad_setting_names_its_key(changes, message):
  with pytest.raises(ValueError, match=message):
    settings(40, 20, **changes)


def test_simulated_experts_need_a_truth(tmp_path, dataset):
  write_jsonl(dataset, tmp_path / 'data')
  rules = build(Settings, {'data': {'source': 'jsonl', 'folder': str(tmp_path / 'data')}})
  with pytest.raises(ValueError, match=r"refine\.reviewers must be 'people' where data\.source"):
    refine.main(Run(tmp_path / 'run', rules))
