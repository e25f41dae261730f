"""Lists on a pretrained decoder: PyTorch transformers and PEFT against ours, one machine, one run.

  make smollm2
  make benchmark [ARGS='--quick --model=tiny --systems=torch_pairs,ours_exact --prompts=phrases']

The list and its prompts: `benchmarks.prompts`.

Every system runs in a process of its own, so that peaks of memory do not mix: the median of three
calls, or of as many as a minute holds, after a first one where something is compiled. Memory is the
peak while running, after the weights are loaded. Rows go to benchmarks/results/, those of less than
everything to a file of its own, `..._part.json`. On one GPU: `benchmarks.gpu`.
"""

import functools
import importlib.metadata
import json
import os
from pathlib import Path
import platform
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags
import numpy as np

from benchmarks.prompts import (
  PROMPTS,
  TOKENIZER,
  J,
  added_phrases,
  counts,
  gguf,
  pairs,
  parts,
  prompts,
  tokenizer,
)
from jobrec_jax.data.tokens import by_length, padded
from jobrec_jax.pipeline import provenance
from jobrec_jax.schema.files import write_rows

QUICK = flags.DEFINE_bool('quick', False, 'the ratios alone: twelve minutes on two cores')
ONLY = flags.DEFINE_list('systems', [], 'some of the systems; all if empty')
SOME = flags.DEFINE_list('prompts', [], 'some of the prompts; all if empty')
MODEL = flags.DEFINE_enum('model', 'smollm2', ['smollm2', 'random', 'tiny'],
                          'SmolLM2-135M, random weights of its sizes, or two random layers of '
                          'width 64 with its vocabulary')
RESULTS = Path(__file__).parent / 'results'
CPU = {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': ''}
CATALOGUE = 100
RANK, ALPHA, TARGETS = 16, 32.0, ('q', 'k', 'v', 'o')
SMOLLM2 = {'hidden_size': 576, 'num_hidden_layers': 30, 'num_attention_heads': 9,
           'num_key_value_heads': 3, 'head_dim': 64, 'intermediate_size': 1536,
           'vocab_size': 49152, 'rope_theta': 1e5, 'rms_norm_eps': 1e-5,
           'tie_word_embeddings': True}
TINY = SMOLLM2 | {'hidden_size': 64, 'num_hidden_layers': 2, 'num_attention_heads': 4,
                  'num_key_value_heads': 2, 'head_dim': 16, 'intermediate_size': 192}


def sizes() -> dict:
  return TINY if MODEL.value == 'tiny' else SMOLLM2


def random_folder() -> Path:
  """A Hugging Face directory of random weights, the same in every process."""
  folder = Path(tempfile.gettempdir()) / f'jobrec_jax_{MODEL.value}_{os.getuid()}'
  if not (folder / 'model.safetensors').exists():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**sizes())).save_pretrained(folder)
  return folder


def torch_model(dtype: str, prompt: str, lora: bool = False):
  import torch
  from transformers import AutoModelForCausalLM
  torch.set_num_threads(os.cpu_count())
  place = ((gguf().path.parent, gguf().path.name) if MODEL.value == 'smollm2' else
           (random_folder(), None))
  model = AutoModelForCausalLM.from_pretrained(place[0], gguf_file=place[1],
                                               dtype=getattr(torch, dtype)).model
  if parts(prompt)[0]:
    model.resize_token_embeddings(tokenizer(True).get_vocab_size())
  if lora:
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(model, LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0,
        target_modules=[f'{p}_proj' for p in TARGETS]))
  return torch, model.eval().to('cuda' if torch.cuda.is_available() else 'cpu')


def torch_read(torch, model, ids: np.ndarray, **more):
  mask = more.pop('mask', ids >= 0)
  return model(input_ids=torch.tensor(np.maximum(ids, 0), device=model.device).long(),
               attention_mask=torch.tensor(mask, device=model.device), **more)


def torch_jobs(torch, model, candidate: list[int], rows: np.ndarray, at_once: int = 10) -> None:
  """The candidate's keys and values once, then rows of its jobs over them."""
  whole = torch_read(torch, model, np.array([candidate]), use_cache=True).past_key_values
  for start in range(0, J, at_once):
    ids = rows[start:start + at_once]
    cache = type(whole)()
    for i, layer in enumerate(whole.layers):
      cache.update(layer.keys.expand(len(ids), -1, -1, -1),
                   layer.values.expand(len(ids), -1, -1, -1), i)
    mask = np.concatenate([np.ones((len(ids), len(candidate)), bool), ids >= 0], axis=1)
    torch_read(torch, model, ids, mask=mask, past_key_values=cache)


def torch_pairs(dtype: str, prompt: str):
  """Each pair alone, ten at a time, right-padded."""
  torch, model = torch_model(dtype, prompt)
  rows = pairs(prompt)

  def run():
    with torch.inference_mode():
      for start in range(0, J, 10):
        torch_read(torch, model, padded(rows[start:start + 10]))
  return run, {'tokens': sum(map(len, rows)), 'pairs': J}


def torch_shared(dtype: str, prompt: str):
  """The candidate's keys and values once, then its jobs in tens over them."""
  torch, model = torch_model(dtype, prompt)
  candidate, jobs, own = prompts(prompt)
  rows = padded([j + a for j, a in zip(jobs, own)])

  def run():
    with torch.inference_mode():
      torch_jobs(torch, model, candidate, rows)
  return run, {'tokens': len(candidate) + int((rows >= 0).sum()), 'pairs': J}


def torch_step(dtype: str, prompt: str):
  """Forward and backward of a list, pair by pair in tens, gradients of LoRA alone.

  The loss couples all pairs of a list, and the graphs of all of them at once do not fit 24 GB. So
  every ten is read for its scores, and again for its part of the gradient.
  """
  torch, model = torch_model(dtype, prompt, lora=True)
  rows = pairs(prompt)

  def score(start):
    ids = padded(rows[start:start + 10])
    out = torch_read(torch, model, ids).last_hidden_state
    return out[torch.arange(len(ids)), torch.tensor((ids >= 0).sum(1) - 1)].float().mean(-1)

  def run():
    with torch.no_grad():
      scores = torch.cat([score(start) for start in range(0, J, 10)])
    scores.requires_grad_()
    (torch.logsumexp(scores, 0) - scores[0]).backward()
    for start in range(0, J, 10):
      score(start).backward(scores.grad[start:start + 10])
    model.zero_grad()
  return run, {'tokens': sum(map(len, rows)), 'pairs': J}


def our_model(attention: str, dtype: str, prompt: str, blocks, lora: bool = False,
              per_expert: bool = False, remat: str = 'none'):
  """(model, params): the decoder's weights, new heads."""
  import flax.linen as nn
  import jax
  import jax.numpy as jnp

  from jobrec_jax.models.jobrec import JobRec, JobRecConfig
  from jobrec_jax.models.lora import LoraConfig
  from jobrec_jax.weights import families, gguf_decoder, huggingface
  adapters = LoraConfig(RANK, ALPHA, 0.0, TARGETS, per_expert) if lora else None
  how = {'dtype': dtype, 'lora': adapters, 'remat': remat}
  if MODEL.value != 'smollm2':
    directory = huggingface.open_directory(random_folder())
    decoder = families.decoder_config(directory.config, **how)
    weights = huggingface.load_decoder(directory, decoder, None, jnp.dtype(dtype))
  else:
    decoder = gguf_decoder.decoder_config(gguf(), **how)
    weights = gguf_decoder.load_decoder(gguf(), decoder, None, jnp.dtype(dtype))
  phrases, verdicts = parts(prompt)
  starts = np.cumsum([x.shape[-1] for x in blocks[:2]]).tolist()
  model = JobRec(JobRecConfig(decoder, attention=attention, job_start=starts[0],
                              pair_start=starts[1],
                              verdicts=3 * blocks[2].shape[-1] * (verdicts == 'vectors'),
                              words=tokenizer().get_vocab_size(),
                              phrases=added_phrases() if phrases else 0))

  def rest():
    made = model.init(jax.random.key(0), *blocks)['params']
    return nn.unbox({k: v for k, v in made.items() if k != 'decoder'})
  return model, jax.jit(rest)() | {'decoder': weights}


def our_blocks(prompt: str, lists: int = 1):
  """Blocks [lists, Lc], [lists, J, Lj] and [lists, J, La] of as many candidates."""
  used = 0
  for i in range(lists):
    first, *others = counts(prompt, i)
    used += first + sum(map(sum, others)) + 2 * J
  candidates, jobs, own = zip(*(prompts(prompt, i) for i in range(lists)))
  flat = [padded([row for rows in items for row in rows]) for items in (jobs, own)]
  return ((padded(candidates), *(x.reshape(lists, J, x.shape[1]) for x in flat)),
          {'tokens': used, 'pairs': lists * J})


def grouped(blocks):
  """The shorter half of the jobs with less padding."""
  candidate, jobs, own = blocks
  return candidate, *by_length(jobs, own)[:2]


def ours_exact(dtype: str, prompt: str, lists: int = 1):
  """The candidate once, every job behind it: equal to pair by pair."""
  import jax
  blocks, row = our_blocks(prompt, lists)
  model, params = our_model('exact', dtype, prompt, blocks)
  groups = grouped(blocks)
  score = jax.jit(lambda p, *x: model.apply({'params': p}, *x, method='score_groups').scores)
  return lambda: score(params, *groups).block_until_ready(), row


def ours_step(dtype: str, prompt: str, lists: int = 1, remat: str = 'selective'):
  """Forward and backward of the same lists, gradients of LoRA alone, products of kernels kept."""
  import jax
  blocks, row = our_blocks(prompt, lists)
  model, params = our_model('exact', dtype, prompt, blocks, lora=True, remat=remat)

  def loss(lora, params, *blocks):
    hidden = model.apply({'params': params | {'lora': lora}}, *blocks, method='score_groups').hidden
    scores = hidden[:, :, 0].mean(-1)
    return (jax.nn.logsumexp(scores, axis=1) - scores[:, 0]).mean()
  groups, grad = grouped(blocks), jax.jit(jax.grad(loss))
  return lambda: jax.block_until_ready(grad(params['lora'], params, *groups)), row


def ours_catalogue(dtype: str, prompt: str, per_expert: bool = False):
  """Some of 600 candidates against 100 jobs, all states on disk: the scorer, files to scores."""
  from jobrec_jax.data.market.simulator import MarketConfig, simulate
  from jobrec_jax.data.tokens import BlockEncoder, BlockFormat
  from jobrec_jax.scoring.experts import Experts
  from jobrec_jax.scoring.features import PairScorer, ScoringConfig
  from jobrec_jax.scoring.kept_states import BlockStates
  from jobrec_jax.sharding import MeshConfig, make_mesh
  dataset, _ = simulate(MarketConfig(candidates=600, jobs=CATALOGUE), 0)
  phrases, verdicts = parts(prompt)
  lengths = BlockFormat(*((80, 48, 24) if phrases else (216, 144, 10)), verdicts)
  blocks = BlockEncoder(dataset, tokenizer(phrases), lengths)
  assert not any(blocks.cut.values()), blocks.cut
  lists = tuple(blocks.candidate_lists(np.zeros(1, int), np.arange(J)[None]).values())
  model, params = our_model('factored', dtype, prompt, lists, per_expert, per_expert)
  folder = tempfile.TemporaryDirectory()
  states = BlockStates(Path(folder.name), model, params)
  scorer = PairScorer(Experts(model, params, tokenizer(phrases), lengths), blocks,
                      make_mesh(MeshConfig()), ScoringConfig(CATALOGUE, 1, folder.name))
  some = 4 if QUICK.value else 12
  candidate, job = np.repeat(np.arange(some), CATALOGUE), np.tile(np.arange(CATALOGUE), some)
  start = time.perf_counter()
  states(blocks.jobs, 'job')
  states(blocks.candidates[:some], 'candidate')
  encode = time.perf_counter() - start
  disk = sum(f.stat().st_size for f in Path(folder.name).rglob('*.npy'))

  def run(folder=folder):
    return scorer.scores(candidate, job)
  own = 2 * J + sum(counts(prompt)[2])
  return run, {'tokens': own * len(job) // J, 'pairs': len(job), 'blocks_encoded': CATALOGUE + some,
               'encode_seconds': encode, 'state_megabytes_a_block': disk / (CATALOGUE + some) / 1e6}


def machine(dtype: str, prompt: str):
  """The peak of a matrix product, 2,048 a side."""
  import jax
  import jax.numpy as jnp
  x = jnp.ones((2048, 2048), dtype)
  product = jax.jit(lambda x: x @ x)
  return (lambda: [product(x).block_until_ready() for _ in range(20)],
          {'flop': 20 * 2 * 2048 ** 3})


SYSTEMS = {'machine': machine, 'torch_pairs': torch_pairs, 'torch_shared': torch_shared,
           'ours_exact': ours_exact, 'ours_catalogue': ours_catalogue,
           'ours_catalogue_per_expert': functools.partial(ours_catalogue, per_expert=True),
           'torch_step': torch_step, 'ours_step': ours_step}
RUNS = [(system, prompt, dtype)
        for system, names in {
            'machine': ('none',), 'torch_pairs': ('published', 'schema', 'phrases'),
            'torch_shared': ('published',), 'ours_exact': PROMPTS,
            'ours_catalogue': PROMPTS[2:], 'ours_catalogue_per_expert': ('symbols',),
            'torch_step': ('published',), 'ours_step': PROMPTS}.items()
        for prompt in names for dtype in ('float32', 'bfloat16')]
RATIOS = {('machine', 'none'), ('torch_pairs', 'published'), ('ours_exact', 'published'),
          ('ours_exact', 'phrases+vectors'), ('ours_catalogue', 'vectors'),
          ('torch_step', 'published'), ('ours_step', 'published'), ('ours_step', 'phrases+vectors')}


def wanted(system: str, prompt: str, dtype: str) -> bool:
  if ONLY.value and system not in ONLY.value:
    return False
  if SOME.value and prompt not in (*SOME.value, 'none'):
    return False
  if dtype == 'float32':
    return not QUICK.value or (system, prompt) in RATIOS
  # On CPUs ours multiply in fp32: see the rows of `machine`. Of the peer, the published way.
  return not QUICK.value and (system, prompt) in RATIOS and not system.startswith('ours')


def peak_memory() -> float:
  """GB, since it was forgotten."""
  return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1e6


def one(system: str, prompt: str, dtype: str) -> dict:
  """Runs in a process of its own."""
  run, row = SYSTEMS[system](dtype, prompt)
  Path('/proc/self/clear_refs').write_text('5')  # forgets the peak

  def once():
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
  first = once()
  times = [first if system.startswith('torch') else once()]  # PyTorch compiles nothing
  while not QUICK.value and len(times) < 3 and sum(times) < 60:
    times.append(once())
  row |= {'seconds': statistics.median(times), 'first_seconds': first, 'peak_gb': peak_memory()}
  return row


def flop_a_token() -> float:
  """Of the layers' kernels, forward; attention's scores come on top."""
  s = sizes()
  D, kv = s['hidden_size'], s['num_key_value_heads'] * s['head_dim']
  return 2 * s['num_hidden_layers'] * (2 * D * D + 2 * D * kv + 3 * D * s['intermediate_size'])


def describe() -> dict:
  return {'commit': provenance.commit(), 'cores': os.cpu_count(), 'machine': platform.machine(),
          'python': platform.python_version(), 'malloc': os.environ.get('GLIBC_TUNABLES', ''),
          'xla_flags': os.environ.get('XLA_FLAGS', '')} | {
              name: importlib.metadata.version(name)
              for name in ('jax', 'torch', 'transformers', 'peft')}


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    print(json.dumps(one(*argv[1:])))
    return
  rows, about, failed = [], describe(), False
  prompt_tokens = {name: [float(np.mean(part)) for part in counts(name)] for name in PROMPTS}
  print('tokens of candidate, job and pair:', json.dumps(prompt_tokens), flush=True)
  for system, prompt, dtype in (run for run in RUNS if wanted(*run)):
    command = [sys.executable, '-m', 'benchmarks.backbone', system, prompt, dtype,
               f'--model={MODEL.value}', f'--quick={QUICK.value}', f'--tokenizer={TOKENIZER.value}']
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | CPU)
    name = {'system': system, 'prompt': prompt, 'dtype': dtype, 'model': MODEL.value}
    if done.returncode:
      print(f'{name}: failed\n{done.stderr[-2000:]}', file=sys.stderr, flush=True)
      failed = True
      continue
    row = name | json.loads(done.stdout.splitlines()[-1])
    if 'pairs' in row:
      row |= {'pairs_per_second': row['pairs'] / row['seconds'],
              'tokens_per_second': row['tokens'] / row['seconds']}
      # A step: forward, PyTorch's forward again, backward to activations; adapters are small.
      passes = {'torch_step': 3, 'ours_step': 2}.get(system, 1)
      row['flop'] = passes * row['tokens'] * flop_a_token()
    row['gflops'] = row.pop('flop') / row['seconds'] / 1e9
    rows.append({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} | about)
    print({k: v for k, v in rows[-1].items() if k not in about}, flush=True)
  whole = not (failed or QUICK.value or ONLY.value or SOME.value)
  where = RESULTS / f'backbone_{MODEL.value}{"" if whole else "_part"}.json'
  write_rows(where, rows)
  print(f'The rows are in {where}')
  sys.exit(failed)


if __name__ == '__main__':
  app.run(main)
