"""Writing with SmolLM2-135M: ours against transformers' generate, free and under a grammar.

  make smollm2
  taskset -c 0 python -m benchmarks.writing        minutes on one core; adds to benchmarks/results

32 pairs of a simulated market are read, then written about, greedily, in fp32. Free texts have 16
tokens each. Under the grammar texts are reasons for qualification, by `generate.claims`: ours has
its automata on the device, the peer asks llguidance on the host for a mask of every row at every
token. Tokens a second are of writing alone, and of CPU time, which other programs do not lengthen;
reading the prompts and making the automata stand beside. Ours are of a second call, for the first
one compiles. `masks` walks at random through the reasons of many pairs and compares what may follow
with what llguidance would take, at 10,000 states: of all tokens that share their letters with the
texts, and 500 others.
"""

import copy
import dataclasses
import importlib.metadata
import json
import os
from pathlib import Path
import subprocess
import sys
import time

from absl import app
import numpy as np

from benchmarks.prompts import gguf
from jobrec_jax.pipeline import provenance
from jobrec_jax.schema.files import write_rows

ROWS, TOKENS, LONGEST = 32, 16, 160
RESULTS = Path(__file__).parent / 'results/writing.json'


def market():
  """Pairs (candidate, job) of a market, their prompts, and their languages."""
  from benchmarks.prompts import prompts
  from jobrec_jax.data.market.simulator import MarketConfig, simulate
  from jobrec_jax.generate.claims import pattern, pieces, sayable
  dataset, _ = simulate(MarketConfig(candidates=20, jobs=50), 0)  # that of `prompts`
  shared, jobs, own = prompts('schema')
  said = [sayable(dataset.schema, dataset.candidates[0], job, 'qualification')
          for job in dataset.jobs[:ROWS]]
  return shared, jobs[:ROWS], own[:ROWS], [(pattern(s), pieces(s)) for s in said]


def ours() -> list[dict]:
  import flax.linen as nn
  import jax
  import jax.numpy as jnp

  from jobrec_jax.data.tokens import padded
  from jobrec_jax.generate.automaton import Vocabulary, automaton, stacked
  from jobrec_jax.generate.decode import Writing, decode, programs, written
  from jobrec_jax.models.jobrec import JobRec, JobRecConfig
  from jobrec_jax.models.writer import Start, read_pairs, writer_lora
  from jobrec_jax.weights.gguf_decoder import decoder_config, load_decoder
  from jobrec_jax.weights.gguf_tokenizer import load_tokenizer
  shared, jobs, own, languages = market()
  lists = {'candidate': padded([shared]), 'job': padded(jobs)[None],
           'alignment': padded(own)[None]}
  config = decoder_config(gguf())
  model = JobRec(JobRecConfig(config, (16,)))
  params = {'decoder': load_decoder(gguf(), config, dtype=jnp.float32)}
  rest = jax.eval_shape(lambda: nn.unbox(model.init(jax.random.key(0), *lists.values())))['params']
  params |= {k: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), v)
             for k, v in rest.items() if k != 'decoder'}
  writing = Writing(model, dataclasses.replace(config, lora=writer_lora(16)), params, {})
  writing = writing._replace(writer=nn.unbox(writing.module.init(
      jax.random.key(0), jnp.zeros((1, config.width))))['params'])
  vocabulary = Vocabulary(load_tokenizer(gguf()))
  tables, built = timed(lambda: stacked([automaton(*of, vocabulary) for of in languages]))
  read = jax.jit(lambda params: read_pairs(model, params, lists))
  jax.block_until_ready(read(params))
  pairs, seconds = timed(lambda: jax.block_until_ready(read(params)))
  first = jnp.broadcast_to(params['decoder']['embedding'][1], (1, ROWS, config.width))
  start = Start(first, jnp.zeros_like(first))
  rows = []
  for name, of, most, jump in (('ours, free', None, TOKENS, 1),
                               ('ours, grammar', tables, LONGEST, 1),
                               ('ours, grammar, jumps', tables, LONGEST, 4)):
    def write(of=of, most=most, jump=jump):
      return jax.block_until_ready(decode(writing, pairs.of(0), start, of, most, jump=jump))
    write()
    before = programs()
    texts, took = timed(write)
    rows.append({'system': name, 'tokens': sum(map(len, written(texts)[0])), 'seconds': took,
                 'turns': int(texts.turns), 'whole': int(texts.whole.sum()),
                 'compiled when warm': programs() - before, 'reading seconds': seconds,
                 'automata seconds': 0.0 if of is None else built})
  return rows


def timed(f):
  """What a call gives, and its CPU seconds."""
  begun = time.process_time()
  found = f()
  return found, time.process_time() - begun


def peer() -> list[dict]:
  from llguidance import LLMatcher
  from llguidance.hf import from_tokenizer
  from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
  import torch
  from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList
  path = Path(gguf().path)
  shared, jobs, own, languages = market()
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
  model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name,
                                               dtype=torch.float32).eval()
  prompts = [shared + j + o for j, o in zip(jobs, own)]
  longest, end = max(map(len, prompts)), tokenizer.eos_token_id
  ids = torch.tensor([[end] * (longest - len(p)) + p for p in prompts])
  mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
  words = from_tokenizer(tokenizer)

  def read():
    with torch.no_grad():
      return model(ids[:, :-1], attention_mask=mask[:, :-1], logits_to_keep=1).past_key_values
  cache, seconds = timed(read)

  def generate(most, stops, processors=()):
    """Goes on from what was read: of the prompts the last token alone is read again."""
    kept = copy.deepcopy(cache)
    with torch.no_grad():
      return timed(lambda: model.generate(
          ids, attention_mask=mask, past_key_values=kept, do_sample=False, max_new_tokens=most,
          pad_token_id=end, eos_token_id=end if stops else None,
          logits_processor=LogitsProcessorList(processors)))

  class Masks:
    """Asks for every row's mask on the host."""

    def __init__(self):
      self.matchers = [LLMatcher(words, LLMatcher.grammar_from_regex(p)) for p, _ in languages]
      self.bits, self.begun = allocate_token_bitmask(ROWS, words.vocab_size), False

    def __call__(self, tokens, scores):
      for i, matcher in enumerate(self.matchers):
        if self.begun and not matcher.is_stopped():
          matcher.consume_token(int(tokens[i, -1]))
        if not matcher.is_stopped():
          fill_next_token_bitmask(matcher, self.bits, i)
      self.begun = True
      allowed = np.unpackbits(self.bits.view(np.uint8), axis=1, bitorder='little')
      stopped = [matcher.is_stopped() for matcher in self.matchers]
      allowed[stopped] = np.arange(allowed.shape[1]) == end
      return scores.masked_fill(~torch.from_numpy(allowed[:, :scores.shape[1]].astype(bool)),
                                -torch.inf)
  generate(2, False)  # what the first call alone does
  rows = []
  for name, most, masked in (('transformers, free', TOKENS, False),
                             ('transformers, llguidance', LONGEST, True)):
    out, took = generate(most, masked, [Masks()] if masked else [])
    new = out[:, longest:]
    count = int((new != end).sum()) if masked else new.numel()
    rows.append({'system': name, 'tokens': count, 'seconds': took, 'turns': new.shape[1],
                 'whole': int((new == end).any(1).sum()) if masked else 0,
                 'reading seconds': seconds})
  return rows


def masks(states: int = 10_000) -> list[dict]:
  """How many of so many states allow other tokens than llguidance does, asked token by token."""
  from llguidance import LLMatcher
  from llguidance.hf import from_tokenizer
  from transformers import AutoTokenizer

  from jobrec_jax.data.market.simulator import MarketConfig, simulate
  from jobrec_jax.generate.automaton import Vocabulary, automaton
  from jobrec_jax.generate.claims import pattern, pieces, sayable
  from jobrec_jax.schema.schema import PERSPECTIVES
  from jobrec_jax.weights.gguf_tokenizer import load_tokenizer
  path = Path(gguf().path)
  words = from_tokenizer(AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name))
  vocabulary = Vocabulary(load_tokenizer(gguf()))
  spoken = [i for i, b in enumerate(vocabulary.bytes) if b]
  rng, seen, other = np.random.default_rng(0), 0, 0
  for preset in ('students', 'nursing'):
    dataset, _ = simulate(MarketConfig(preset, candidates=100, jobs=50), 0)
    until = states * (1 + (preset == 'nursing')) // 2
    while seen < until:
      candidate, job = (x[rng.integers(len(x))] for x in (dataset.candidates, dataset.jobs))
      said = sayable(dataset.schema, candidate, job, PERSPECTIVES[rng.integers(2)])
      made = automaton(pattern(said), pieces(said), vocabulary)
      near = {t for of in vocabulary.within(pieces(said)).values() for t in of}
      asked = sorted(near | set(rng.choice(spoken, 500).tolist()))
      for _ in range(4):
        oracle = LLMatcher(words, LLMatcher.grammar_from_regex(pattern(said)))
        state = 0
        while seen < until:
          mine = made.allowed(state)
          allowed = [t for t in asked if oracle.validate_tokens([t])]
          same = np.array_equal(allowed, mine[np.isin(mine, asked)])
          seen, other = seen + 1, other + (not same or
                                           oracle.is_accepting() != (vocabulary.size in mine))
          token = int(rng.choice(mine))
          if token == vocabulary.size:
            break
          state = made.step(state, token)
          oracle.consume_token(token)
  return [{'system': 'masks', 'states': seen, 'states that differ': other}]


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    print(json.dumps({'ours': ours, 'peer': peer, 'masks': masks}[argv[1]]()))
    return
  about = {'commit': provenance.commit(), 'cores': len(os.sched_getaffinity(0))} | {
      name: importlib.metadata.version(name) for name in ('jax', 'torch', 'transformers')}
  rows = []
  for side in ('masks', 'ours', 'peer'):
    done = subprocess.run([sys.executable, '-m', 'benchmarks.writing', side], check=True,
                          capture_output=True, text=True)
    for row in json.loads(done.stdout.splitlines()[-1]):
      if 'seconds' in row:
        row['tokens a second'] = row['tokens'] / row['seconds']
      rows.append({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} | about)
      print({k: v for k, v in rows[-1].items() if k not in about}, flush=True)
  write_rows(RESULTS, rows)


if __name__ == '__main__':
  app.run(main)
