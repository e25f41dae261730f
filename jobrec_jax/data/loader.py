"""Grain pipelines of training lists: deterministic, shuffled, by process, from any step."""

from collections.abc import Callable

import grain

from jobrec_jax.data.missing import MissingLists
from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.data.training_lists import TrainingLists

EPOCHS = 10**9  # as good as endless; the length of an endless one in batches of 1 overflows
ListSource = TrainingLists | MissingLists


def list_dataset(lists: ListSource, finish: Callable[[dict], dict], batch: int, seed: int,
                 process: int = 0, processes: int = 1) -> grain.MapDataset:
  """Endless shuffled batches of lists.

  Args:
    lists: draws a list for each of its anchors.
    finish: turns drawn indices into the arrays of a step; runs in Grain's threads.
    batch: lists in a global batch; each process makes its share.
    seed: of shuffling and of the negatives.
    process, processes: this process and their number.

  Raises:
    ValueError: the batch does not divide by the number of processes.
  """
  if batch % processes:
    raise ValueError(f'batch must divide by {processes} processes, got {batch} lists')
  # Slicing after the shuffle gives the processes disjoint parts of one global order.
  return (grain.MapDataset.source(lists.anchors).seed(seed).shuffle().repeat(EPOCHS)
          .random_map(lambda anchor, rng: finish(lists.draw(anchor, rng)))
          .slice(slice(process, None, processes)).batch(batch // processes))


def finisher(blocks: BlockEncoder, centre: str, shared: bool = False) -> Callable[[dict], dict]:
  """What makes token blocks of a drawn list, beside its mask, label and weights.

  Around a candidate: candidate [Lc], job [J, Lj], alignment [J, La]. Around a job: candidate
  [J, Lc], alignment [J, La], and job [J, Lj], or [Lj] with `shared`: all that factored attention
  needs, which reads it once.
  """
  def finish(drawn: dict) -> dict:
    candidate, job = drawn['candidate'], drawn['job']
    lists = (blocks.candidate_lists(candidate[..., 0], job) if centre == 'candidate' else
             blocks.job_lists(candidate, job[..., 0], shared))
    return lists | {name: drawn[name] for name in ('mask', 'weight', 'label')}
  return finish


def iterate(*datasets: grain.MapDataset, start: int = 0, threads: int = 1,
            ahead: int = 2) -> grain.DatasetIterator:
  """An iterator over batches, zipped into a tuple.

  Args:
    datasets: a batch at each index.
    start: the index of the first batch; a stage resumes with the step that it reached.
    threads: that make batches; one keeps up with a step, and more would take its cores.
    ahead: batches that lie ready.
  """
  shortest = min(map(len, datasets))  # endless ones differ in length by their batch size alone
  zipped = grain.experimental.ZipMapDataset([d[start:shortest] for d in datasets])
  return iter(zipped.to_iter_dataset(grain.ReadOptions(threads, ahead)))
