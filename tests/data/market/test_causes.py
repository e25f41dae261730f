"""The parts of fields add up to the market's logits, and sentences say what was drawn."""

import numpy as np
import pytest

from jobrec_jax.data.market.causes import Explained
from jobrec_jax.data.market.simulator import MarketConfig, make_market
from jobrec_jax.schema.schema import PERSPECTIVES


def drawn(**knobs):
  return Explained(make_market(MarketConfig(candidates=60, jobs=15, **knobs), 3))


@pytest.mark.parametrize('knobs', [
    {}, {'version': '1'}, {'domain': 'nursing', 'rho_x': -0.4}, {'texts': 'sentences'}], ids=str)
def test_the_parts_add_up_to_the_logits(knobs):
  explained = drawn(**knobs)
  grid = np.meshgrid(np.arange(60), np.arange(15), indexing='ij')
  causes = explained.causes(*grid)
  for logit, perspective in zip(explained.market.logits(explained.market.columns(0), *grid),
                                PERSPECTIVES):
    np.testing.assert_allclose(causes.logit(perspective), logit, atol=1e-9)
    assert causes.parts[perspective].shape == (60, 15, len(causes.fields))
    np.testing.assert_allclose(causes.parts[perspective].mean((0, 1)), 0, atol=1e-9)


def test_a_field_that_changes_changes_its_own_part_alone():
  """Of the wishes, whose terms no other pair of the candidate has a say in."""
  explained = drawn(rho_x=0.0)
  causes = explained.causes(np.arange(60)[:, None], np.arange(15))
  fields = dict(zip(causes.fields, np.moveaxis(causes.parts['preference'], -1, 0)))
  assert {name for name, part in fields.items() if np.ptp(part) > 1e-9} == {
      'skills', 'mode', 'industry', 'story'}
  assert len(np.unique(fields['industry'].round(9))) == 2  # met or not


@pytest.mark.parametrize('knobs', [{}, {'texts': 'sentences'}, {'domain': 'nursing'}], ids=str)
def test_sentences_say_the_taste_and_the_grade_that_were_drawn(knobs):
  explained = drawn(**knobs)
  market = explained.market
  columns, grammar = market.columns(0), market.domain.grammar
  (narrative,) = [n for n, s in market.domain.candidate.items() if type(s).__name__ == 'Narrative']
  tables = grammar.narrative_tables['candidate']
  for row, leaning in zip(columns.codes[narrative], columns.leanings):
    told = [explained.leanings['candidate'].get(tables[k]) for k in row]
    for axis in range(len(grammar.axes)):
      poles = [of[1] for of in told if of and of[0] == axis]
      assert len(poles) == grammar.statements
      assert poles.count(0) == leaning[axis]
  (name, *_) = [n for n, s in market.domain.candidate.items() if type(s).__name__ == 'Project']
  texts = [market.domain.project_table[k] for k in columns.codes[name].ravel()]
  np.testing.assert_array_equal([explained.grades[t] + 2 for t in texts],
                                columns.latents.grades[:, 0])
