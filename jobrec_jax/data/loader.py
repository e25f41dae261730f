"""Grain pipelines of training lists: deterministic, shuffled, from any step, a part by process."""

from collections.abc import Callable

import grain
import numpy as np

from jobrec_jax.data.missing import MissingLists
from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.data.training_lists import TrainingLists

EPOCHS = 10**9  # as good as endless; the length of an endless one in batches of 1 overflows
ListSource = TrainingLists | MissingLists


def list_dataset(lists: ListSource, finish: Callable[[dict], dict], batch: int, seed: int,
                 rows: np.ndarray | None = None) -> grain.MapDataset:
  """Endless shuffled batches of lists, in one order whoever makes them.

  Args:
    lists: draws a list for each of its anchors.
    finish: turns drawn indices into the arrays of a step; runs in Grain's threads.
    batch: lists in a global batch.
    seed: of shuffling and of the negatives.
    rows: [n] of each batch that this process makes, as its devices hold no others; None for all.
  """
  drawn = (grain.MapDataset.source(lists.anchors).seed(seed).shuffle().repeat(EPOCHS)
           .random_map(lambda anchor, rng: finish(lists.draw(anchor, rng))))
  if rows is None:
    return drawn.batch(batch)
  return grain.MapDataset.source(_Rows(drawn, batch, rows)).batch(len(rows))


class _Rows:
  """Some rows of every batch, one after the other; each is drawn as it is for all of them."""

  def __init__(self, drawn: grain.MapDataset, batch: int, rows: np.ndarray):
    self._drawn, self._batch, self._rows = drawn, batch, [int(row) for row in rows]

  def __len__(self) -> int:
    return len(self._drawn) // self._batch * len(self._rows)

  def __getitem__(self, index: int) -> dict:
    step, row = divmod(index, len(self._rows))
    return self._drawn[step * self._batch + self._rows[row]]


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
