"""From records to token blocks: a tokenizer for the domain's text, and padded blocks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import copy
import dataclasses
import functools
import math
from pathlib import Path
import threading

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from jobrec_jax.data.clauses import AlignmentTokens, at_punctuation, reads_by_clause
from jobrec_jax.data.components import Components
from jobrec_jax.data.dataset import Dataset, pair_code
from jobrec_jax.data.pairs import PairAligner, chunks
from jobrec_jax.data.shorten import encode_records
from jobrec_jax.schema.align import align
from jobrec_jax.schema.files import write_text
from jobrec_jax.schema.render import LAYOUTS, VERDICTS, render_alignment, render_entity
from jobrec_jax.schema.schema import Entity

PAD = -1  # the id of padding, wherever it stands in a block; no tokenizer's id
BUCKETS = (0.5, 0.75, 1.0)  # shares of the padded block lengths that texts are trimmed to
MIN_FREQUENCY = 5  # of a trained tokenizer's tokens in its training text
_MULTIPLE = 8  # padded lengths are multiples of it, or the block's upper bound
_CUT_PAIRS = 65_536  # pairs that are counted as cut, at most


def train_tokenizer(texts: Iterable[str], vocab_size: int,
                    min_frequency: int = MIN_FREQUENCY) -> tokenizers.Tokenizer:
  """Trains a byte-level BPE tokenizer.

  Merges may span the words of a phrase but no punctuation: a short phrase such as ' gpa met,' can
  become one token, which keeps lists short. Symbols of verdicts stay a token each.

  Args:
    texts: training text, of training candidates and jobs alone.
    vocab_size: upper bound of the vocabulary, at least 256 (every byte).
    min_frequency: how often the texts must repeat what is merged: a token that training hardly
      meets learns nothing, and names whoever wrote it.

  Raises:
    ValueError: the vocabulary is too small.
  """
  if vocab_size < 256:
    raise ValueError(f'tokenizer.vocab_size must be at least 256, got {vocab_size}')
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = at_punctuation()
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
      vocab_size=vocab_size, min_frequency=min_frequency, show_progress=False,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
  return tokenizer


def padded(rows: Sequence[Sequence[int]], length: int | None = None) -> np.ndarray:
  """[N, L] int32 with `PAD` behind each row; of the longest's length, or cut to the one given."""
  length = max(map(len, rows)) if length is None else length
  out = np.full((len(rows), length), PAD, np.int32)
  for ids, row in zip(out, rows):
    ids[:len(row)] = row[:length]
  return out


def save_tokenizer(tokenizer: tokenizers.Tokenizer, path: Path) -> None:
  write_text(path, tokenizer.to_str())


def load_tokenizer(path: Path) -> tokenizers.Tokenizer:
  if not path.is_file():
    raise ValueError(f'{path}: must be a tokenizer, got no file')
  tokenizer = tokenizers.Tokenizer.from_file(str(path))
  tokenizer.encode_special_tokens = True  # A text that spells a special token stays text.
  return tokenizer


def corpus(dataset: Dataset, pairs: int = 2000, seed: int = 0, verdicts: str = 'words',
           layout: str = 'schema', without_layers: tuple[str, ...] = ()) -> list[str]:
  """The text that training meets: entities of the train split, and some of its alignments.

  Args:
    dataset: of which the train split alone is read.
    pairs: how many alignments, at most.
    seed: of their draw.
    verdicts, layout, without_layers: see `BlockFormat`.
  """
  train, schema = dataset.interactions.of('train'), dataset.schema.without(without_layers)
  rng = np.random.default_rng(seed)
  texts = [render_entity(schema, 'candidate', dataset.candidates[u], layout)
           for u in np.unique(train.candidate)]
  texts += [render_entity(schema, 'job', dataset.jobs[j], layout) for j in np.unique(train.job)]
  if layout == 'raw' or verdicts not in VERDICTS:
    return texts
  return texts + [
      render_alignment(align(schema, dataset.candidates[train.candidate[row]],
                             dataset.jobs[train.job[row]]), verdicts)
      for row in rng.permutation(len(train))[:pairs]]


@dataclasses.dataclass(frozen=True)
class BlockFormat:
  """Most tokens of the candidate, job and alignment blocks, and what they consist of.

  Attributes:
    candidate, job, alignment: in tokens; of the last in codes, if those are asked for. 0: not
      chosen yet, see `lengths.choose_lengths`.
    verdicts: one of `render.VERDICTS` for text; 'vectors' for `verdict_codes`, of which the model
      learns vectors; or 'none': alignment blocks are empty.
    layout: one of `render.LAYOUTS`. 'raw' has no verdicts: alignment blocks are empty.
    without_layers: layers of the schema that are left out, see `Schema.without`.
    numbers: whether a pair's verdicts and margins are numbers, too, beside its tokens.

  Raises:
    ValueError: `verdicts` or `layout` is none of these, or verdicts are asked of 'raw'.
  """

  candidate: int
  job: int
  alignment: int
  verdicts: str = 'words'
  layout: str = 'schema'
  without_layers: tuple[str, ...] = ()
  numbers: bool = False

  def __post_init__(self):
    allowed = (*VERDICTS, 'vectors', 'none')
    if self.verdicts not in allowed:
      raise ValueError(f'tokenizer.verdicts must be one of {allowed}, got {self.verdicts!r}')
    if self.layout not in LAYOUTS:
      raise ValueError(f'tokenizer.layout must be one of {LAYOUTS}, got {self.layout!r}')
    if self.layout == 'raw' and (self.verdicts, self.alignment) != ('words', 0):
      raise ValueError("tokenizer.verdicts must be 'words', and the alignment's length 0, where "
                       f"tokenizer.layout is 'raw', which has none, got {self.verdicts!r} and "
                       f'{self.alignment}')

  @property
  def bare(self) -> bool:
    """Whether alignment blocks are empty."""
    return self.layout == 'raw' or self.verdicts == 'none'

  @property
  def codes(self) -> int:
    """How many codes of verdicts there may be; 0 where alignment blocks are text."""
    return 3 * self.alignment if self.verdicts == 'vectors' else 0


class BlockEncoder:
  """Token blocks of a dataset's entities and pairs, padded with `PAD`; threads may share it.

  Blocks of a side are as long as its longest text, rounded up to a multiple of 8; the format's
  length is the upper bound, to which longer records are shortened (`data.shorten`).

  Attributes:
    candidates: [candidates, Lc] int32.
    jobs: [jobs, Lj] int32.
    tokenizer, vocab_size: as given, and its size.
    cut: how many candidates, jobs and distinct pairs had blocks longer than their length and lost
      tokens; pairs are counted as they are asked for, up to some 65,536.
    unread: what was lost of each block, in words; only of blocks that lost anything.
  """

  def __init__(self, dataset: Dataset, tokenizer: tokenizers.Tokenizer, form: BlockFormat,
               components: Components | None = None):
    self.tokenizer, self._form, self._components = tokenizer, form, components
    self._schema = dataset.schema.without(form.without_layers)
    self.vocab_size = tokenizer.get_vocab_size()
    self.cut, self.unread = {'candidate': 0, 'job': 0, 'alignment': 0}, {}
    self._by_clause = reads_by_clause(tokenizer)
    self.jobs = self._encode('job', dataset.jobs)
    self._job_words = self._words('job', self.jobs)
    self._pair_with(dataset, PairAligner(self._schema, dataset.candidates, dataset.jobs))

  def with_candidates(self, candidates: Sequence[Entity]) -> 'BlockEncoder':
    """The same jobs, which are not read again, and other candidates; it counts its own `cut`."""
    other = copy.copy(self)
    other.cut = {'candidate': 0, 'job': self.cut['job'], 'alignment': 0}
    other.unread = {k: v for k, v in self.unread.items() if k == 'job'}
    other.__dict__.pop('alignment_length', None)
    other._pair_with(dataclasses.replace(self._dataset, candidates=tuple(candidates)),
                     self._aligner.with_candidates(candidates))
    return other

  def _pair_with(self, dataset: Dataset, aligner: PairAligner) -> None:
    """Reads the dataset's candidates, and prepares their pairs with its jobs."""
    self._dataset = dataset
    self.candidates = self._encode('candidate', dataset.candidates)
    self._candidate_words = self._words('candidate', self.candidates)
    self._aligner = aligner
    self._tokens = None if self._form.codes or self._form.bare else AlignmentTokens(
        self._aligner, self._schema, self.tokenizer, self._form.verdicts, self._by_clause)
    self._cut_pairs, self._lock = set(), threading.Lock()

  def _encode(self, side: str, entities: Sequence[Entity]) -> np.ndarray:
    allowed = getattr(self._form, side)
    read = encode_records(self._schema, side, entities, self.tokenizer, allowed, self._form.layout)
    self.cut[side] = read.cut
    if read.cut:
      self.unread[side] = read.unread
    return padded(read.rows, min(allowed, _rounded(read.longest)))

  def _words(self, side: str, block: np.ndarray) -> np.ndarray | None:
    return self._components(side, block) if self._components else None

  @functools.cached_property
  def alignment_length(self) -> int:
    """The alignment block's length to which `alignments` of any pairs can be trimmed.

    It is the longest that can occur, rounded up to a multiple of 8 (not where blocks are codes),
    where all clauses can be listed and tell; else the configured one, its upper bound.
    """
    allowed = self._form.alignment
    if self._form.bare:
      return 0
    if self._form.codes:
      return min(allowed, len(self._aligner.fields))
    longest = self._tokens.longest()
    return allowed if longest is None else min(allowed, _rounded(longest))

  def alignments(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """Alignment blocks of pairs given by index: [...] and [...] -> [..., La] int32.

    La is the configured length; behind `alignment_length` there is nothing but padding.
    """
    u, j = candidate.ravel(), job.ravel()
    out = np.full((len(u), self._form.alignment), PAD, np.int32)
    if not self._form.bare:
      for part in chunks(len(u)):
        self._fill(out[part], u[part], j[part])
    return out.reshape(*candidate.shape, out.shape[1])

  def _fill(self, out: np.ndarray, candidate: np.ndarray, job: np.ndarray) -> None:
    if self._tokens is None:
      codes = self._aligner(candidate, job).verdict_codes()
      if codes.shape[1] > out.shape[1]:
        raise ValueError("tokenizer.alignment: with verdicts='vectors' it must hold the schema's "
                         f'{codes.shape[1]} fields with verdicts, got {out.shape[1]}')
      out[:, :codes.shape[1]] = codes
      return
    ids, length = self._tokens(candidate, job)
    place = np.arange(len(ids)) - np.repeat(np.cumsum(length) - length, length)
    row = np.repeat(np.arange(len(length)), length)
    long = length > out.shape[1]
    if long.any():
      kept = place < out.shape[1]
      ids, place, row = ids[kept], place[kept], row[kept]
      self._count_cut(candidate[long], job[long])
    out[row, place] = ids

  def numbers(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """The numbers of pairs given by index: [...] and [...] -> [..., N] float32.

    They are `PairAlignments.features`, then the components of the candidate's and of the job's
    words, as far as there are any.
    """
    u, j = candidate.ravel(), job.ravel()
    margins = 4 * len(self._aligner.fields) * self._form.numbers
    rank = self._components.rank if self._components else 0
    out = np.empty((len(u), margins + 2 * rank), np.float32)
    for part in chunks(len(u)):
      if margins:
        out[part, :margins] = self._aligner(u[part], j[part]).features()
      if rank:
        out[part, margins:margins + rank] = self._candidate_words[u[part]]
        out[part, margins + rank:] = self._job_words[j[part]]
    return out.reshape(*candidate.shape, out.shape[1])

  def numbers_over_jobs(self, candidate: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Those `numbers` of one candidate in which jobs differ, what jobs share standing once.

    Yields:
      Which of the N numbers, their values [V, n], and which row of them each job has: [J].
    """
    at = 0
    for values, row in self._aligner.over_jobs(candidate) if self._form.numbers else ():
      yield slice(at, at := at + 4), values, row
    if self._components:
      at += self._components.rank  # of the candidate, alike for all jobs
      yield slice(at, at + self._components.rank), self._job_words, np.arange(len(self.jobs))

  def speaks_to(self, perspective: str) -> np.ndarray:
    """[N] bool, which of `numbers` speak to a perspective: words do, and margins of its fields."""
    fields = [f.speaks_to(perspective) for f in self._aligner.fields] if self._form.numbers else []
    words = 2 * (self._components.rank if self._components else 0)
    return np.append(np.repeat(np.array(fields, bool), 4), np.ones(words, bool))

  def _pairs(self, candidate: np.ndarray, job: np.ndarray) -> dict[str, np.ndarray]:
    """What the experts read of pairs beside their two sides."""
    read = {'alignment': self.alignments(candidate, job)}
    counted = self._components or (self._form.numbers and self._aligner.fields)
    return read | {'numbers': self.numbers(candidate, job)} if counted else read

  def _count_cut(self, candidate: np.ndarray, job: np.ndarray) -> None:
    with self._lock:
      if len(self._cut_pairs) < _CUT_PAIRS:
        self._cut_pairs.update(pair_code(candidate, job).tolist())
        self.cut['alignment'] = len(self._cut_pairs)
        self.unread['alignment'] = (f"the last verdicts of {self.cut['alignment']} pairs (of more "
                                    f'than {self._form.alignment} tokens)')

  def candidate_lists(self, candidate: np.ndarray, job: np.ndarray) -> dict[str, np.ndarray]:
    """Blocks of lists of one candidate [B] and J jobs [B, J]: candidate [B, Lc], job [B, J, Lj]."""
    pairs = np.broadcast_to(candidate[..., None], job.shape)
    return {'candidate': self.candidates[candidate], 'job': self.jobs[job],
            **self._pairs(pairs, job)}

  def job_lists(self, candidate: np.ndarray, job: np.ndarray,
                shared: bool = False) -> dict[str, np.ndarray]:
    """Blocks of J candidates [B, J] and one job [B]: job [B, J, Lj], or [B, Lj] if `shared`."""
    pairs = np.broadcast_to(job[..., None], candidate.shape)
    return {'candidate': self.candidates[candidate],
            'job': self.jobs[job if shared else pairs], **self._pairs(candidate, pairs)}


def count_tokens(lists: Mapping[str, np.ndarray]) -> int:
  """Tokens, and codes of verdicts, in lists of blocks; padding is left out."""
  return sum(int((lists[block] != PAD).sum()) for block in ('candidate', 'job', 'alignment'))


def _rounded(length: int) -> int:
  return -(-length // _MULTIPLE) * _MULTIPLE


def bucket(tokens: np.ndarray) -> np.ndarray:
  """The least share of `BUCKETS` whose part of a block [..., L] holds its text: [...] float."""
  ends = [math.ceil(share * tokens.shape[-1]) for share in BUCKETS]
  return np.asarray(BUCKETS)[np.searchsorted(ends, _used(tokens))]


def _used(tokens: np.ndarray) -> np.ndarray:
  """[...]: where the text of blocks [..., L] ends."""
  real = tokens != PAD
  return np.where(real.any(-1), tokens.shape[-1] - np.argmax(real[..., ::-1], axis=-1), 0)


def by_length(items: np.ndarray, alignment: np.ndarray, groups: int = 2) -> tuple[
    tuple[np.ndarray, ...], tuple[np.ndarray, ...], np.ndarray]:
  """Lists' items from the shortest text to the longest, in groups: see `JobRec.score_groups`.

  Group lengths follow the texts; each new set of them compiles another program.

  Args:
    items: [B, J, L] int32 blocks of the side that lists do not share.
    alignment: [B, J, La] int32, as it is.
    groups: how many, of as near the same size as J allows.

  Returns:
    Of each group the blocks [B, J / groups, longest text]; of each the alignments; and which item
    stands where, [B, J]: the scores s of all groups are those of the items in their old order as
    `np.take_along_axis(s, np.argsort(order), 1)`.

  Raises:
    ValueError: no group, or more of them than items.
  """
  if not 1 <= groups <= items.shape[1]:
    raise ValueError(f'groups must be 1 to the {items.shape[1]} items of a list, got {groups}')
  used = _used(items)
  order = np.argsort(used, axis=1, kind='stable')
  parts = []
  for at in np.array_split(order, groups, axis=1):
    longest = np.take_along_axis(used, at, 1).max()
    parts.append([np.take_along_axis(x, at[..., None], 1)
                  for x in (items[..., :longest], alignment)])
  return *map(tuple, zip(*parts)), order
