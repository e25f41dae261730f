"""The lists that `benchmarks.backbone` and `.gpu` read, in words of SmolLM2's tokenizer.

A list is one candidate with 50 jobs of the simulated market. Its prompts:

| prompt | a pair reads |
|---|---|
| published | a task description, then all attributes of both sides by name, as published |
| schema | our blocks, every field of the schema in them, verdicts in words |
| symbols | the same blocks, verdicts as one symbol each |
| vectors | the same blocks, verdicts as learned vectors in the readouts |
| phrases | the blocks of `schema`, a token for each phrase that another market's texts repeat |
| phrases+vectors | the same tokens, verdicts as in `vectors` |
"""

import functools
import itertools
from pathlib import Path

from absl import flags

PROMPTS = 'published', 'schema', 'symbols', 'vectors', 'phrases', 'phrases+vectors'
J = 50
TOKENIZER = flags.DEFINE_string(
    'tokenizer', '', "a file of SmolLM2's tokenizer, as `tokenizers` saves it; empty: its model's, "
    'which is fetched')
TASK = ('You advise both students and the people who hire them. Read the record of a student and '
        'the record of a research position. Say how likely the student is to apply, and how likely '
        'the employer is to find the student eligible.\n')


@functools.cache
def gguf():
  from jobrec_jax.weights.fetch import fetch
  from jobrec_jax.weights.gguf_file import open_gguf
  return open_gguf(fetch('smollm2-135m-instruct'))


@functools.cache
def tokenizer(phrases: bool = False):
  """SmolLM2's; with the phrases of a market whose texts no benchmark reads."""
  from jobrec_jax.data.market.simulator import MarketConfig, simulate
  from jobrec_jax.data.phrases import add_phrases
  from jobrec_jax.data.tokens import corpus, load_tokenizer
  from jobrec_jax.weights import gguf_tokenizer
  if not phrases:
    return (load_tokenizer(Path(TOKENIZER.value)) if TOKENIZER.value else
            gguf_tokenizer.load_tokenizer(gguf()))
  dataset, _ = simulate(MarketConfig(candidates=300, jobs=100), 1)
  return add_phrases(tokenizer(), corpus(dataset), 1000)


def dump(schema, side: str, entity) -> str:
  """All attributes by their column names, lists as Python writes them."""
  values = {a.name: entity[a.name] for a in schema.attributes(side)}
  said = [f'{name}: {list(x) if isinstance(x, tuple) else x}' for name, x in values.items()]
  return ', '.join([f'id: {entity.id}', *said])


def parts(prompt: str) -> tuple[bool, str | None]:
  """Whether its phrases are tokens, and how `BlockFormat` calls its verdicts."""
  verdicts = {'published': None, 'symbols': 'symbols', 'vectors': 'vectors',
              'phrases+vectors': 'vectors'}.get(prompt, 'words')
  return prompt.startswith('phrases'), verdicts


@functools.cache
def prompts(name: str, candidate: int = 0):
  """A candidate's list: token ids of what it shares, of its jobs, and each pair's own, or codes."""
  from jobrec_jax.data.market.simulator import MarketConfig, simulate
  from jobrec_jax.schema.align import align, verdict_codes
  from jobrec_jax.schema.render import render_alignment, render_entity
  dataset, _ = simulate(MarketConfig(candidates=20, jobs=J), 0)
  schema, person = dataset.schema, dataset.candidates[candidate]
  phrases, verdicts = parts(name)

  def ids(text):
    return tokenizer(phrases).encode(text, add_special_tokens=False).ids
  if verdicts is None:
    jobs = [ids(f'Position: {dump(schema, "job", job)}\nAnswer:') for job in dataset.jobs]
    # 'Position: id: J00' is common to the list, too.
    start = sum(1 for _ in itertools.takewhile(lambda x: len(set(x)) == 1, zip(*jobs)))
    return (ids(f'{TASK}Student: {dump(schema, "candidate", person)}\n') + jobs[0][:start],
            [job[start:] for job in jobs], [[] for _ in jobs])
  aligned = [align(schema, person, job) for job in dataset.jobs]
  return (ids(render_entity(schema, 'candidate', person)),
          [ids(render_entity(schema, 'job', job)) for job in dataset.jobs],
          [verdict_codes(a) if verdicts == 'vectors' else ids(render_alignment(a, verdicts))
           for a in aligned])


def counts(name: str, candidate: int = 0) -> tuple[int, list[int], list[int]]:
  """Tokens of what the list shares, of each job, and of each pair."""
  shared, jobs, own = prompts(name, candidate)
  spent = parts(name)[1] != 'vectors'
  return len(shared), [len(x) for x in jobs], [len(x) * spent for x in own]


def added_phrases() -> int:
  return tokenizer(True).get_vocab_size() - tokenizer().get_vocab_size()


def pairs(name: str, candidate: int = 0) -> list[list[int]]:
  shared, jobs, own = prompts(name, candidate)
  return [shared + j + a for j, a in zip(jobs, own)]
