"""What benchmarks/results/studies keeps of a study, and gives back."""

from pathlib import Path

from benchmarks import kept, requirements, worlds
from jobrec_jax.schema.files import write_json


def row(metric, value, seed=0, tau=None, variant='base', split='cold candidates'):
  return {'variant': variant, 'requirement': '1 of 2' if tau else '', 'system': 'policy',
          'split': split, 'perspective': 'policy', 'metric': metric, 'data_seed': 3, 'seed': seed,
          'tau': tau, 'value': value}


def test_values_come_back_as_they_were_to_six_decimals(tmp_path):
  rows = [row('ndcg@5', 0.25), row('ndcg@5', None, seed=1), row('true C', 1 / 3, tau=0.5),
          row('true C', 0.5, seed=1, tau=0.123456789)]
  kept.write(tmp_path / 'mine.json', {'question': 'Why?', 'values': rows})
  back = kept.read('mine', tmp_path)
  assert back['question'] == 'Why?'
  assert back['values'] == [*rows[:2], rows[2] | {'value': 0.333333},
                            rows[3] | {'tau': 0.123457}]
  assert len(Path(tmp_path / 'mine.json').read_text().splitlines()) == 5  # one a group


def test_what_no_table_shows_is_left_out(tmp_path):
  study = tmp_path / 'study'
  study.mkdir()
  shown = [row('ndcg@5', 0.5), row('true preference@5 at 10% of the way', 0.5),
           row('error of logit P, mean', 0.1, split=kept.PAIRS)]
  hidden = [row('violation@5', 0.5), row('ndcg@5', 0.5, variant='other')]
  write_json(study / kept.RESULTS, {
      'question': '', 'variants': {'base': '', 'other': ''}, 'changes': {'base': {}, 'other': {}},
      'level': 0.95, 'compared': [], 'systems': [], 'values': [*shown, *hidden]})
  write_json(study / kept.ORIGIN, {'once': 1.0})
  kept.take(study, tmp_path / 'kept')
  found = kept.read('study', tmp_path / 'kept')
  assert found['values'] == shown and found['runs'] == 2
  assert kept.origin('study', tmp_path / 'kept') == {'once': 1.0}


def test_a_study_is_of_what_its_variants_differ_in_and_not_of_what_all_change():
  def of(*changes):
    return {'changes': dict(enumerate(changes))}
  same = {'market.candidates': 300, 'evaluate.rivals': ['naive']}
  chains = of(same, same | {'experts.chain': 16})
  assert worlds.differ_in(chains) == {'experts.chain'}
  assert not worlds.is_of_worlds(chains) and not requirements.is_of_candidates(chains)
  sizes = of(same, same | {'market.candidates': 600})
  assert worlds.is_of_worlds(sizes) and requirements.is_of_candidates(sizes)
  assert worlds.is_of_worlds(of({}, {'market.rho_e': 0.5})) and not worlds.differ_in(of(same))
  assert requirements.is_of_requirements(of({}, {'policy.top_k': 5}))
