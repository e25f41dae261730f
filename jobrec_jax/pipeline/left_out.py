"""What of the road a run's data leave out, and why, in sentences for the report."""

from collections.abc import Iterator, Sequence

from jobrec_jax.baselines.rivals import RIVALS
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.pipeline.perspectives import has_contrast, perspectives, split_sizes, why_absent
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.scores import EvaluationLists
from jobrec_jax.schema.schema import PERSPECTIVES

SAYS = {'preference': 'who applied', 'qualification': 'who was accepted and who was rejected'}
WITHOUT = {'preference': 'jobs, and candidates for a job, are ranked by p_qual alone',
           'qualification': 'there is no p_qual either: jobs are ranked by preference alone'}


def left_out(run: Run) -> list[str]:
  """A sentence or two on each part; none where the data allow all of them."""
  dataset, truth = run.get(run.road.data)
  lists: EvaluationLists = run.get(run.road.lists)
  taught = perspectives(dataset)
  said = [_absent(dataset, p, run.settings.data.source == 'tables')
          for p in PERSPECTIVES if p not in taught]
  if truth is None:
    said += _unmeasured(dataset, taught, lists)
  return said + _rivals(dataset, taught, run.settings.evaluate.rivals)


def _absent(dataset: Dataset, perspective: str, tables: bool) -> str:
  """An expert that was not trained, and which column would change that."""
  column = (f'the column that {perspective} of [tables.interactions] names in the schema file, or '
            f'its stage funnel.{perspective}' if tables else f'the labels of {perspective} in the '
            'interactions')
  return (f'The {perspective} expert was not trained: {why_absent(dataset, perspective)} '
          f'(pairs: {split_sizes(dataset)}). What says {SAYS[perspective]} is {column}. Without '
          'both experts there is no policy, no requirement τ, and nothing measured of them; '
          f'{WITHOUT[perspective]}.')


def _rivals(dataset: Dataset, taught: Sequence[str], names: Sequence[str]) -> list[str]:
  """Rivals that the labels teach nothing, and those that know nobody new."""
  said = []
  for perspective in taught:
    lost = [name for name in names if perspective in RIVALS[name].perspectives
            and not RIVALS[name].can_learn(dataset, perspective)]
    if lost:
      said.append(f'No rivals in {perspective} here: {", ".join(lost)}. The labels of the train '
                  'split that they learn from are all alike or absent, which teaches them nothing.')
  warm = [name for name in names if RIVALS[name].warm_only]
  if warm:
    said.append(f'{", ".join(warm)}: knowing whom they rank for by interactions alone, they rank '
                'by popularity where training has seen none, so for every cold candidate in '
                'preference and every cold job in qualification.')
  return said


def _unmeasured(dataset: Dataset, taught: tuple[str, ...],
                lists: EvaluationLists) -> Iterator[str]:
  """Where the labels of the test tell nothing of an expert."""
  test = dataset.interactions.of('test')
  if 'preference' in taught and not has_contrast(test, 'preference'):
    length = lists.wanted.job.shape[1]
    yield ('The test split holds no candidate who applied to some of the jobs shown to them and '
           'not to others. So preference is measured on lists of one applied job among up to '
           f'{length} that training sees and the candidate did not apply to; nobody knows which of '
           'these they saw.')
  if 'qualification' in taught and not has_contrast(test, 'qualification'):
    labelled = test.where(test.qualification >= 0)
    yield ('How the qualification expert ranks, and how right p_qual is, was not measured: the '
           f'test split holds no job with both accepted and rejected applicants ({len(labelled)} '
           'decisions). A larger share for the test (data.shares) may hold some.')
