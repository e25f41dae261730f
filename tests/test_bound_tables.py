"""Tables of what a requirement binds, from rows by hand."""

from benchmarks import requirements
from benchmarks.pages import MARK, TABLES

VARIANTS = ('base', 'top')


def row(variant, metric, value, requirement='', tau=None, seed=0, **more):
  return {'variant': variant, 'data_seed': 0, 'seed': seed, 'requirement': requirement, 'tau': tau,
          'system': 'policy', 'split': 'held-out lists', 'perspective': 'policy',
          'metric': metric, 'value': value} | more


def results():
  drawn = {'split': requirements.DRAWN}
  rows = []
  for seed in (0, 1):
    for k, tau in ((1, 0.5), (2, 0.7)):
      where = {'requirement': f'requirement {k} of 2', 'tau': tau, 'seed': seed}
      rows += [row('base', 'true C', tau - 0.01 * k, **where),
               row('top', 'true C', tau + 0.1 * seed, **where),
               row('base', 'predicted C', 0.5, **where, **drawn),
               row('base', 'estimated C', 0.6 + 0.2 * seed, **where, **drawn),
               row('base', 'true C', 0.6, **where, **drawn),
               row('base', requirements.REGRET, 0.3 - 0.1 * k, **where, split='cold candidates')]
    free = {'requirement': 'no requirement', 'tau': 0.0, 'seed': seed, 'split': 'cold candidates'}
    rows += [row('base', requirements.REGRET, 0.4, **free),
             row('base', requirements.LOSS, 0.05 + 0.02 * seed, seed=seed),
             row('base', 'calibration error', 0.02, seed=seed, system='chance to apply', **drawn)]
  return {'variants': dict.fromkeys(VARIANTS, ''), 'values': rows,
          'changes': {'base': {}, 'top': {'policy.top_k': 5}}}


def cells(table, name):
  return next([c.strip() for c in line.split('|')[1:-1]] for line in table.splitlines()
              if line.startswith(f'| {name} |'))


def test_gaps_between_truth_and_tau_by_hand():
  table = requirements.truth(results())
  assert cells(table, 'base')[1:] == ['−0.010 ± 0.000', '−0.020 ± 0.000', '−0.020']
  assert cells(table, 'top')[1:] == ['+0.050 ± 0.071', '+0.050 ± 0.071', '+0.050']


def test_gaps_vary_by_market_and_by_training_seed():
  """Top's are 0 and 0.1 of both seeds; in a second market 0.2 above."""
  one = results()
  assert cells(requirements.spread(one), 'top')[1:] == ['', '0.071 to 0.071']
  more = [r | {'data_seed': 1, 'value': r['value'] + 0.2} for r in one['values']]
  both = one | {'values': one['values'] + more}
  assert cells(requirements.spread(both), 'top')[1:] == ['0.141 to 0.141', '0.071 to 0.071']
  assert cells(requirements.spread(both), 'base')[1:] == ['0.141 to 0.141', '0.000 to 0.000']
  single = both | {'values': [r for r in both['values'] if not r['seed']]}
  assert cells(requirements.spread(single), 'top')[1:] == ['0.141 to 0.141', '']


def test_what_a_policy_loses_and_the_least_of_its_regrets():
  table = requirements.trade({**results(), 'variants': {'base': ''}})
  assert cells(table, 'base')[1:] == ['0.060 ± 0.014', '0.400 ± 0.000', '0.100 ± 0.000']
  table = requirements.regrets(results())
  assert cells(table, 'policy, no requirement')[1] == '0.400 ± 0.000'


def test_what_the_log_says_beside_the_truth():
  table = requirements.log(results())
  assert cells(table, '2 of 2')[1:] == ['0.500 ± 0.000', '0.700 ± 0.141', '0.600 ± 0.000',
                                        '+0.100 ± 0.141']
  assert cells(requirements.propensities(results()), 'calibration error')[1] == '0.020 ± 0.000'


def test_a_study_of_requirements_is_known_and_keeps_what_its_tables_read():
  of = results()
  assert requirements.is_of_requirements(of)
  assert not requirements.is_of_requirements({'changes': {'base': {}, 'a': {'model.width': 3}}})
  kept = {**of, 'values': requirements.kept_rows(of)}
  for name, table in requirements.TABLES.items():
    if name != 'trade':  # whose second variant has no row here
      assert table(kept) == table(of)
      assert TABLES[f'bound-{name}'](of, {}) == table(of)
      assert MARK.match(f'<!-- requirement bound-{name} -->\nold\n<!-- end -->')


def test_a_learning_curve_has_a_line_for_each_number_of_candidates():
  def at(variant, metric, value, system, perspective='policy', split='cold candidates'):
    return row(variant, metric, value, system=system, perspective=perspective, split=split)
  rows = [at(count, *kind) for count, loss in (('600', 0.05), ('1200', 0.04)) for kind in (
      (requirements.LOSS, loss, 'policy'),
      (requirements.LOSS, loss - 0.01, 'plug-in p_pref + μ p_qual'),
      ('ndcg@5', 0.9, 'preference expert', 'preference'),
      ('ndcg@5', 0.8, 'factorization machine with words', 'preference'),
      ('ndcg@5', 0.95, 'true P (ceiling)', 'preference'),
      (requirements.KNOWN, 0.8, 'preference expert'),
      ('correlation with Q, within candidates', 0.6, 'preference expert'),
      ('correlation with Q, within candidates', 0.6, 'true P'))]
  other = [at('600', 'ndcg@5', 0.1, 'preference expert', 'qualification'),
           at('600', 'ndcg@5', 0.1, 'preference expert', 'preference', 'warm'),
           at('600', requirements.LOSS, 0.1, 'exact dual, s_pref + μ p_qual')]
  study = {'variants': dict.fromkeys(('600', '1200'), ''), 'values': [*rows, *other],
           'changes': {'600': {}, '1200': {'market.candidates': 1200}}}
  assert requirements.is_of_candidates(study) and not requirements.is_of_requirements(study)
  assert requirements.kept_rows(study) == rows
  assert cells(requirements.candidates(study), '1,200')[1:] == [
      '0.040', '0.030', '0.800', '0.900', '0.950', '0.800', '0.250', '0.562']
