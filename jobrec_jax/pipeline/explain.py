"""A run's reasons, judged: those of held-out pairs, beside rivals', against the true causes."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple

from absl import logging
import numpy as np

from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.lists import candidates_of, warm_jobs
from jobrec_jax.data.market.causes import Explained
from jobrec_jax.data.market.simulator import Market
from jobrec_jax.evaluate.reasons import Case, estimates, ratios
from jobrec_jax.evaluate.statistics import Groups, interval, make_groups
from jobrec_jax.generate.causes import telling
from jobrec_jax.generate.claims import Sayable, clauses, read, sayable
from jobrec_jax.generate.market import MarketReasons
from jobrec_jax.generate.rivals import attribution, template
from jobrec_jax.pipeline.censoring import scorer
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.pipeline.training_settings import ExplainSettings
from jobrec_jax.report.results import ResultRow, range_of
from jobrec_jax.schema import streams
from jobrec_jax.schema.files import null_for_nan, read_json, write_json
from jobrec_jax.schema.schema import PERSPECTIVES, Entity

WRITER, FREE = 'writer', 'writer without grammar'
DELETION, TEMPLATE, TRUTH = 'deletion of fields', 'templates', 'the truth (ceiling)'
SPLIT, SHOWN = 'held-out pairs', 3
COMPARED = ('causal recall', 'faithfulness', 'right judgements')


class Example(NamedTuple):
  """A reason as it was written, and which of its claims are true, and are of the true causes.

  What a text is said to speak for is true where it is so in truth.
  """

  candidate: str
  job: str
  perspective: str
  claims: list[str]
  true: list[bool]
  causes: list[bool]


def in_words(e: Example) -> str:
  """An example in a line: its claims, ✓ where they are true, else ✗, and ★ for true causes."""
  marks = [f'{c} {"✓" if t else "✗"}{"★" if k else ""}'
           for c, t, k in zip(e.claims, e.true, e.causes)]
  return f'{e.candidate}, {e.job}, {e.perspective}: {"; ".join(marks) or "nothing"}'


class Judged(NamedTuple):
  """Rows of every system, and the first few reasons, unedited."""

  rows: list[ResultRow]
  examples: list[Example]


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Held-out pairs of a data set, [N] indices."""

  dataset: Dataset
  candidate: np.ndarray
  job: np.ndarray

  @classmethod
  def drawn(cls, dataset: Dataset, count: int, seed: int) -> 'Pairs':
    """Different pairs of test candidates and jobs that training has seen."""
    people, jobs = candidates_of(dataset, 'test'), warm_jobs(dataset)
    rng = streams.rng(seed, 'pairs to explain')
    codes = rng.permutation(len(people) * len(jobs))[:count]
    u, j = np.divmod(codes, len(jobs))
    return cls(dataset, people[u], jobs[j])

  def sayable(self, perspective: str) -> list[tuple[Sayable, ...]]:
    d = self.dataset
    return [sayable(d.schema, d.candidates[u], d.jobs[j], perspective)
            for u, j in zip(self.candidate, self.job)]


def without(candidate: Entity, attributes: Sequence[str]) -> Entity:
  """The candidate's record with some attributes blank."""
  return Entity(candidate.id, {**candidate.attributes, **dict.fromkeys(attributes)})


def deletions(bench: Bench, pairs: Pairs) -> dict[str, list[dict[str, float]]]:
  """By perspective, of each pair and field by how much the expert's score falls without it."""
  d, fields = pairs.dataset, pairs.dataset.schema.fields
  whole = [*np.unique(pairs.candidate)]
  people = [d.candidates[u] if f is None else without(d.candidates[u], f.candidate)
            for u in whole for f in (None, *fields)]
  changed = dataclasses.replace(d, candidates=tuple(people))
  each = 1 + len(fields)
  row = np.searchsorted(whole, pairs.candidate)[:, None] * each + np.arange(each)
  job = np.broadcast_to(pairs.job[:, None], row.shape)
  found = scorer(bench, bench.inputs['experts'], changed).scores(row, job, 'deleted fields')
  return {p: [dict(zip((f.name for f in fields), (x[0] - x[1:]).tolist())) for x in of]
          for p, of in zip(PERSPECTIVES, (found.preference, found.qualification))}


def make_explained(bench: Bench, market: Callable[[], Market]) -> None:
  """Writes reasons of held-out pairs, and judges them and their rivals'."""
  settings: ExplainSettings = bench.settings['explain']
  dataset, writer = bench.inputs['data'].dataset, bench.inputs['writer']
  pairs = Pairs.drawn(dataset, settings.pairs, bench.settings['seed'])
  reasons, moved = MarketReasons(Explained(market())), deletions(bench, pairs)
  seen = [np.zeros(len(x), bool) for x in (dataset.candidates, dataset.jobs)]
  groups = make_groups(seen).of(pairs.candidate, pairs.job)
  rows, examples = [], []
  for perspective in PERSPECTIVES:
    said = pairs.sayable(perspective)
    causes = reasons.parts(pairs.candidate, pairs.job, perspective)
    cases = [Case(*of) for of in zip(said, causes, moved[perspective])]
    of_pairs = dataset, pairs.candidate, pairs.job, perspective
    texts = {name: [w.text for w in writer.write(*of_pairs, grammar=name == WRITER,
                                                 beams=settings.beams)]
             for name in (WRITER, FREE)}
    logging.info('explain: %d reasons of %s written', len(said), perspective)
    counts = [len(clauses(text)) for text in texts[WRITER]]
    texts |= {DELETION: [attribution(c.said, c.moved, n) for c, n in zip(cases, counts)],
              TEMPLATE: [template(c.said, n) for c, n in zip(cases, counts)],
              TRUTH: [reasons.reason(c.said, c.causes, n) for c, n in zip(cases, counts)]}
    rows += judged(texts, cases, dataset, groups, perspective, settings.level)
    examples += shown(texts[WRITER], cases, pairs, perspective)
  write_json(bench.folder / 'explained.json', {
      'rows': [null_for_nan(dataclasses.asdict(r)) for r in rows],
      'examples': [e._asdict() for e in examples]}, indent=1)


def judged(texts: dict[str, list[str]], cases: Sequence[Case], dataset: Dataset, groups: Groups,
           perspective: str, level: float) -> list[ResultRow]:
  """Every system's numbers, and the writer's paired differences to its rivals."""
  found = {name: estimates(ratios(of, cases, dataset.schema), groups) for name, of in texts.items()}
  rows = [(name, None, metric, e) for name, of in found.items() for metric, e in of.items()]
  rows += [(WRITER, rival, metric, found[WRITER][metric] - found[rival][metric])
           for rival in (DELETION, TEMPLATE) for metric in COMPARED]
  return [ResultRow(name, None, SPLIT, perspective, metric, *interval(
      e, level, range_of('' if against else metric)), against) for name, against, metric, e in rows]


def shown(texts: Sequence[str], cases: Sequence[Case], pairs: Pairs,
          perspective: str) -> list[Example]:
  """The first reasons, whatever they are."""
  found = []
  for n in range(min(SHOWN, len(texts))):
    d, case = pairs.dataset, cases[n]
    claims = read(texts[n], d.schema, case.said)
    top = telling(case.said, case.causes)
    true = [c.true and (not c.side or (c.side == 'for') == (case.causes[c.field] > 0))
            for c in claims]
    found.append(Example(d.candidates[pairs.candidate[n]].id, d.jobs[pairs.job[n]].id, perspective,
                         [c.words for c in claims], true, [c.field in top for c in claims]))
  return found


def read_explained(bench: Bench) -> Judged:
  about: dict[str, Any] = read_json(bench.folder / 'explained.json')
  numbers = ('value', 'low', 'high')
  return Judged([ResultRow(**(r | {k: np.nan if r[k] is None else r[k] for k in numbers}))
                 for r in about['rows']], [Example(**e) for e in about['examples']])
