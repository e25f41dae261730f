"""Each sentence says what its rows say, and turns round when they do."""

import dataclasses

import numpy as np
import pytest

from jobrec_jax.report.findings import EFFECTIVE_SHARE, LOGGED, findings
from jobrec_jax.report.results import ResultRow, result_tables

NAN = float('nan')
COLD = ('cold candidates', 'preference')


def row(system, metric='ndcg@5', value=0.5, around=0.05, tau=None, case=COLD, against=None):
  return ResultRow(system, tau, *case, metric, value, value - around, value + around, 150, against)


def paired(value, rival='logistic regression', case=COLD, around=0.03):
  return row(f'{case[1]} expert', value=value, around=around, case=case, against=rival)


def said(rows):
  """The only sentence, its verdict, and that its place is a row of a table."""
  (finding,) = findings(rows)
  tables = {t.title: [r[0] for r in t.rows] for t in result_tables(rows)}
  assert finding.place[1] in tables[finding.place[0]]
  return finding.text, finding.verdict


@pytest.mark.parametrize('value, words, verdict', [
    (0.21, 'preference expert beats logistic regression by 0.210 NDCG@5 [0.180, 0.240].', 'yes'),
    (-0.21, 'loses to logistic regression by 0.210 NDCG@5 [0.180, 0.240].', 'no'),
    (-0.001, 'does not beat logistic regression: −0.001 NDCG@5 [−0.031, 0.029].', 'open')])
def test_an_expert_beside_its_rival(value, words, verdict):
  text, found = said([paired(value)])
  assert text.startswith('On cold candidates the ') and text.endswith(words) and found == verdict


def test_the_strongest_rival_is_named_and_the_beaten_ones_are():
  both = [paired(0.2, 'popularity'), paired(0.1)]
  assert 'beats the strongest rival, logistic regression, by 0.100' in said(both)[0]
  assert said([both[0], paired(0.01)])[0].endswith('[−0.020, 0.040]; it beats popularity.')


def test_each_case_and_perspective_has_a_sentence_of_its_own():
  rows = [paired(0.2), paired(0.2, case=('both cold', 'qualification'))]
  first, second = findings(rows)
  assert first.text.startswith('On cold candidates the preference expert')
  assert second.text.startswith('With both cold the qualification expert')


@pytest.mark.parametrize('value, words, verdict', [
    (0.1, 'reads the narratives: blanked, it loses 0.100', 'yes'),
    (-0.1, 'is misled by the narratives: blanked, it gains 0.100', 'no'),
    (0.01, 'makes nothing of the narratives', 'open')])
def test_blanked_narratives(value, words, verdict):
  text, found = said([paired(value, 'preference expert, narratives blanked')])
  assert words in text and found == verdict


def control(gap, covered=1.0):
  return [ResultRow('policy', tau, 'stage 2 lists', 'policy', '|C − τ|', g, NAN, NAN, 300)
          for tau, g in ((0.5, 0.0), (0.6, gap))] + [
      ResultRow('policy', tau, 'held-out lists', 'policy', 'τ in the interval of C', c, NAN, NAN, 9)
      for tau, c in ((0.5, 1.0), (0.6, covered))]


def test_requirements_kept_in_prediction():
  text, verdict = said(control(0.001))
  assert text == ('Every requirement τ is kept in prediction (largest gap 0.001); on held-out '
                  'lists τ lies in the interval of C at 2 of 2.') and verdict == 'yes'
  text, verdict = said(control(0.02, 0.0))
  assert '1 of 2 requirements τ are not kept in prediction (largest gap 0.020, at τ 0.6)' in text
  assert 'at 1 of 2' in text and verdict == 'no'


@pytest.mark.parametrize('values, words, verdict', [
    ((0.5, 0.5), 'falls short of τ, most at τ 0.6, the highest, by 0.100: true C is 0.500', 'no'),
    ((0.5, 0.58), 'no shortfall of τ can be told from chance; the largest is 0.020', 'open'),
    ((0.52, 0.7), 'every requirement τ is reached, least clearly at τ 0.5', 'yes')])
def test_requirements_in_truth(values, words, verdict):
  rows = [row('policy', 'true C', value, tau=tau, case=('held-out lists', 'policy'))
          for tau, value in zip((0.5, 0.6), values)]
  text, found = said([row('policy', 'true C', 0.1, tau=0.0, case=('held-out lists', 'policy')),
                      *rows])  # at tau 0 nothing is asked
  assert words in text and found == verdict


@pytest.mark.parametrize('estimated, share, words, verdict', [
    (0.52, 0.5, 'does not speak against the believed C at any requirement: at τ 0.6 the outcomes '
     'of test applicants make it 0.620 [0.570, 0.670], and 0.600 is believed.', 'yes'),
    (0.3, 0.5, 'speaks against the believed C at 2 of 2 requirements: at τ 0.6 the outcomes of '
     'test applicants make it 0.400 [0.350, 0.450], and 0.600 is believed.', 'no'),
    (0.52, 0.08, 'leave 8% of the outcomes, so that few decide.', 'no')])
def test_what_the_log_says_of_belief(estimated, share, words, verdict):
  case = (LOGGED, 'policy')
  rows = [row('policy', name, value + more, tau=tau, case=case)
          for tau, more, part in ((0.5, 0.0, 0.99), (0.6, 0.1, 1.0))
          for name, value in (('predicted C', 0.5), ('estimated C', 0.5 + part * (estimated - 0.5)),
                              ('true C', 0.1))]  # which is no promise kept or broken here
  rows.append(row('chance to apply', EFFECTIVE_SHARE, share, case=case))
  text, found = said(rows)
  assert words in text and found == verdict


@pytest.mark.parametrize('last, ndcg, words, verdict', [
    (0.7, 0.4, 'raises the true eligibility of the five recommended, from 0.500 [0.450, 0.550] to '
     '0.700 [0.650, 0.750], and costs 0.100 NDCG@5.', 'yes'),
    (0.54, 0.6, 'may raise', 'open'), (0.49, 0.6, 'does not raise', 'no')])
def test_the_price_of_the_highest_requirement(last, ndcg, words, verdict):
  rows = [row('policy', 'true eligibility@5', v, tau=t, case=('cold candidates', 'policy'))
          for t, v in ((0.6, last), (0.0, 0.5))]
  rows += [row('policy', value=v, tau=t) for t, v in ((0.0, 0.5), (0.6, ndcg))]
  text, found = said(rows)
  assert text.startswith('From no requirement to τ 0.6 the policy ') and words in text
  assert found == verdict and ('gains 0.100' in text) == (ndcg == 0.6)


def on_the_way(*kept):
  """Rows at 10% and 25% of the way, of which the policy keeps so much."""
  rows = []
  for share, own in zip((10, 25), kept):
    metric, case = f'true preference@5 at {share}% of the way', ('cold candidates', 'policy')
    rows += [row('policy', metric, own, case=case),
             row('true P + μ Q (ceiling)', metric, 0.9, case=case),
             row('policy', metric, own - 0.9, case=case, against='true P + μ Q (ceiling)'),
             row('true P + μ Q (ceiling)', metric.replace('preference', 'eligibility'),
                 0.5 + share / 100, case=case)]
  return rows


@pytest.mark.parametrize('kept, words, verdict', [
    ((0.86, 0.8), 'At a true eligibility of 0.750 (25% of the way from P to Q) the policy keeps a '
     'true preference of 0.800 [0.750, 0.850]; the best possible is 0.900, the difference −0.100 '
     '[−0.150, −0.050].', 'no'),
    ((0.86, NAN), 'At a true eligibility of 0.600 (10% of the way from P to Q) the policy keeps a '
     'true preference of 0.860', 'open'),
    ((NAN, NAN), 'The five that the policy recommends never reach a true eligibility of 0.600 (10% '
     'of the way from P to Q), where the best possible true preference is 0.900.', 'no')])
def test_preference_kept_at_equal_eligibility(kept, words, verdict):
  text, found = said(on_the_way(*kept))
  assert text.startswith(words) and found == verdict


@pytest.mark.parametrize('more, gap, words, verdict', [
    ((0.1, 0.01), -0.05, 'At 1 of 2 requirements the policy keeps more true preference than the '
     'plug-in p_pref + μ p_qual at equal eligibility, where luck alone would let 0.05; most '
     'clearly at τ 0.5, 0.100 [0.050, 0.150] more; against the frontier of the truth it loses '
     '0.100 [0.050, 0.150] on average, the plug-in 0.120 [0.070, 0.170].', 'yes'),
    ((0.01, 0.02), 0.01, 'At no requirement can more true preference be told in the policy than in '
     'the plug-in p_pref + μ p_qual at equal eligibility: ', 'open'),
    ((-0.1, NAN), 0.1, 'It is a dial for the requirement and no more.', 'no')])
def test_the_policy_beside_a_plug_in_that_nobody_trains(more, gap, words, verdict):
  case, plug_in = ('cold candidates', 'policy'), 'plug-in p_pref + μ p_qual'
  loss = 'loss of true preference@5'
  rows = [row('policy', loss, 0.1, case=case), row(plug_in, loss, 0.12, case=case),
          row('policy', loss, gap, case=case, against=plug_in)]
  rows += [row('policy', 'true preference@5 at equal eligibility', x, tau=t, case=case,
               against=plug_in) for t, x in zip((0.5, 0.6), more)]
  text, found = said(rows)
  assert words in text and found == verdict


@pytest.mark.parametrize('own, other, words, verdict', [
    (0.6, 0.01, 'follows P (partial correlation 0.600 [0.550, 0.650]); given P, nothing of Q can '
     'be told in it', 'yes'),
    (0.6, 0.2, 'something of Q is left in it', 'no'), (0.6, -0.2, 'something of Q is left', 'no'),
    (0.01, 0.0, 'does not follow P', 'no')])
def test_separation(own, other, words, verdict):
  case = ('uniform test pairs', 'policy')
  within = ', within candidates'
  text, found = said([
      row('preference expert', f'correlation with P given Q{within}', own, case=case),
      row('preference expert', f'correlation with Q given P{within}', other, case=case)])
  assert text.startswith('Within candidates, given Q, the preference expert ')
  assert words in text and found == verdict


@pytest.mark.parametrize('left, words, verdict', [
    (-0.01, 'Given the score, P and Q correlate at −0.010 [−0.060, 0.040]: what is left comes of '
     'what it does not know of P, and nothing of Q is taken for it.', 'yes'),
    (0.2, 'nothing of Q is taken for it', 'yes'),
    (-0.2, 'it leans on Q more than P does.', 'no')])
def test_attenuation_is_no_conflation(left, words, verdict):
  case, within = ('uniform test pairs', 'policy'), ', within candidates'
  text, found = said([row('preference expert', f'correlation {of}{within}', value, case=case)
                      for of, value in (('with P given Q', 0.8), ('with Q given P', 0.2),
                                        ('of P and Q given the score', left))])
  assert words in text and found == verdict


@pytest.mark.parametrize('raw, verdict', [(0.3, 'yes'), (0.01, 'no')])
def test_calibration(raw, verdict):
  case = ('uniform test pairs', 'qualification')
  text, found = said([row('qualification expert', 'calibration error', 0.02, NAN, case=case),
                      row('qualification expert', 'calibration error by job', 0.1, case=case),
                      row('qualification expert, uncalibrated', 'calibration error', raw, NAN,
                          case=case)])
  assert 'off by 0.020' in text and 'within a job by 0.100 [0.050, 0.150]' in text
  assert ('did not help' in text) == (verdict == 'no') and found == verdict


def test_canaries_and_systems_worse_than_chance():
  rows = [row('canary: constant', value=0.3), row('canary: id hash', value=0.3),
          row('popularity', value=0.3), row('true P (ceiling)', value=0.9)]
  canary, below = findings(rows)
  assert canary.text.startswith('No canary beats chance (1 looked at)') and canary.verdict == 'yes'
  assert below.text == 'Worse than chance: nothing.' and below.verdict == 'yes'
  rows[1] = row('canary: id hash', value=0.4)
  rows[2] = row('popularity', value=0.2)
  canary, below = findings(rows)
  assert '1 of 1 canaries beat chance' in canary.text and 'canary: id hash' in canary.text
  assert canary.verdict == 'no' and canary.place == ('cold candidates: preference',
                                                     'canary: id hash')
  assert below.text.startswith('Worse than chance: popularity') and below.verdict == 'no'


def test_what_the_rows_lack_is_not_spoken_of():
  assert findings([]) == []
  rows = [dataclasses.replace(paired(0.2), value=NAN, low=NAN, high=NAN)]
  assert findings(rows) == []
  assert findings([row('preference expert', 'mrr', np.float64(0.4))]) == []
