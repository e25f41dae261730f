"""SmolLM2-135M on lists: PyTorch transformers and PEFT against ours; same weights, text, threads.

  make smollm2 && python -m benchmarks.backbone [--quick] [--systems=torch_pairs,ours_exact]

A list is one candidate with 50 jobs of the simulated market. Every system runs in a process of its
own, so that peaks of memory do not mix; medians after a warm-up. Rows go to
benchmarks/results/backbone.json. `machine` is this machine's peak of a matrix product.
"""

import json
import os
from pathlib import Path
import platform
import resource
import statistics
import subprocess
import sys
import time

from absl import app, flags
import numpy as np

QUICK = flags.DEFINE_bool('quick', False, 'one repetition, no training step of PyTorch')
ONLY = flags.DEFINE_list('systems', [], 'some of the systems; all if empty')
RESULTS = Path(__file__).parent / 'results/backbone.json'
J = 50
RANK, ALPHA = 16, 32.0
PROJECTIONS = ('q', 'k', 'v', 'o')


def gguf_path() -> Path:
  from jobrec_jax.weights.fetch import fetch_smollm2
  return fetch_smollm2()


def texts(verdicts: str):
  """A candidate's text, 50 jobs' and 50 alignments', of the simulated market."""
  from jobrec_jax.data.simulator import MarketConfig, simulate
  from jobrec_jax.schema.align import align
  from jobrec_jax.schema.render import render_alignment, render_entity
  dataset, _ = simulate(MarketConfig(candidates=20, jobs=J), 0)
  schema, candidate = dataset.schema, dataset.candidates[0]
  return (render_entity(schema, 'candidate', candidate),
          [render_entity(schema, 'job', job) for job in dataset.jobs],
          [render_alignment(align(schema, candidate, job), verdicts) for job in dataset.jobs])


def blocks(verdicts: str):
  """The token ids of the same texts, one list for each, and of the blocks of a whole list."""
  from jobrec_jax.weights import gguf_file, gguf_tokenizer
  tokenizer = gguf_tokenizer.load_tokenizer(gguf_file.open_gguf(gguf_path()))
  def ids(text):
    return tokenizer.encode(text, add_special_tokens=False).ids
  candidate, jobs, alignments = texts(verdicts)
  return ids(candidate), [ids(x) for x in jobs], [ids(x) for x in alignments]


def timed(run, repeat: int) -> tuple[float, float]:
  """(seconds of the first call, median seconds of the next)."""
  def once():
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
  first = once()
  return first, statistics.median(once() for _ in range(repeat))


def pad(rows: list[list[int]], value: int) -> np.ndarray:
  out = np.full((len(rows), max(map(len, rows))), value, np.int32)
  for row, ids in zip(out, rows):
    row[:len(ids)] = ids
  return out


def torch_model(dtype: str, lora: bool = False):
  import torch
  from transformers import AutoModelForCausalLM
  torch.set_num_threads(os.cpu_count())
  path = gguf_path()
  model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name,
                                               dtype=getattr(torch, dtype)).model
  if lora:
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(model, LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0,
        target_modules=[f'{p}_proj' for p in PROJECTIONS]))
  return torch, model.eval()


def torch_pairs(dtype: str, repeat: int) -> dict:
  """Each pair alone, ten at a time, right-padded: the published way of scoring, our text."""
  torch, model = torch_model(dtype)
  candidate, jobs, alignments = blocks('words')
  rows = [candidate + j + a for j, a in zip(jobs, alignments)]

  def run():
    with torch.inference_mode():
      for start in range(0, J, 10):
        ids = pad(rows[start:start + 10], -1)
        model(input_ids=torch.tensor(np.maximum(ids, 0)).long(),
              attention_mask=torch.tensor(ids >= 0))
  first, median = timed(run, repeat)
  return {'seconds': median, 'first': first, 'tokens': sum(map(len, rows))}


def torch_shared(dtype: str, repeat: int) -> dict:
  """The candidate's keys and values once, then its jobs as a batch over them."""
  torch, model = torch_model(dtype)
  candidate, jobs, alignments = blocks('words')
  rows = pad([j + a for j, a in zip(jobs, alignments)], -1)
  prefix = torch.tensor([candidate]).long()

  def run():
    with torch.inference_mode():
      for start in range(0, J, 10):
        ids = rows[start:start + 10]
        if start == 0:
          whole = model(input_ids=prefix, use_cache=True).past_key_values
        cache = type(whole)()
        for i, layer in enumerate(whole.layers):
          cache.update(layer.keys.expand(len(ids), -1, -1, -1),
                       layer.values.expand(len(ids), -1, -1, -1), i)
        mask = np.concatenate([np.ones((len(ids), len(candidate)), bool), ids >= 0], axis=1)
        model(input_ids=torch.tensor(np.maximum(ids, 0)).long(), past_key_values=cache,
              attention_mask=torch.tensor(mask))
  first, median = timed(run, repeat)
  return {'seconds': median, 'first': first, 'tokens': len(candidate) + int((rows >= 0).sum())}


def torch_step(dtype: str, repeat: int) -> dict:
  """Forward and backward of a list, pair by pair in tens, gradients of LoRA alone."""
  torch, model = torch_model(dtype, lora=True)
  candidate, jobs, alignments = blocks('words')
  rows = [candidate + j + a for j, a in zip(jobs, alignments)]

  def run():
    scores = []
    for start in range(0, J, 10):
      ids = pad(rows[start:start + 10], -1)
      out = model(input_ids=torch.tensor(np.maximum(ids, 0)).long(),
                  attention_mask=torch.tensor(ids >= 0)).last_hidden_state
      last = torch.tensor((ids >= 0).sum(1) - 1)
      scores.append(out[torch.arange(len(ids)), last].float().mean(-1))
    (torch.logsumexp(torch.cat(scores), 0) - scores[0][0]).backward()
    model.zero_grad()
  first, median = timed(run, repeat)
  return {'seconds': median, 'first': first, 'tokens': sum(map(len, rows))}


def our_model(attention: str, dtype: str, lora: bool = False, remat: bool = False):
  import flax.linen as nn
  import jax
  import jax.numpy as jnp

  from jobrec_jax.models.jobrec import PAD, JobRec, JobRecConfig
  from jobrec_jax.models.lora import LoraConfig
  from jobrec_jax.weights import gguf_file
  file = gguf_file.open_gguf(gguf_path())
  adapters = LoraConfig(RANK, ALPHA, 0.0, PROJECTIONS) if lora else None
  decoder = gguf_file.decoder_config(file, dtype=dtype, lora=adapters, remat=remat)
  candidate, jobs, alignments = blocks('symbols' if attention == 'factored' else 'words')
  data = (pad([candidate], PAD), pad(jobs, PAD)[None], pad(alignments, PAD)[None])
  starts = np.cumsum([x.shape[-1] for x in data[:2]]).tolist()
  model = JobRec(JobRecConfig(decoder, attention=attention, job_start=starts[0],
                              pair_start=starts[1]))

  def rest():
    made = model.init(jax.random.key(0), *data)['params']
    return nn.unbox({k: v for k, v in made.items() if k != 'decoder'})
  params = jax.jit(rest)()
  params['decoder'] = gguf_file.load_decoder(file, decoder, None, jnp.dtype(dtype))
  used = len(candidate) + sum(map(len, jobs)) + sum(map(len, alignments)) + 2 * J
  return jax, model, params, data, used


def ours_exact(dtype: str, repeat: int) -> dict:
  """The candidate once, every job and alignment behind it: equal to pair by pair."""
  jax, model, params, data, used = our_model('exact', dtype)
  score = jax.jit(lambda p, *x: model.apply({'params': p}, *x).scores)
  first, median = timed(lambda: score(params, *data).block_until_ready(), repeat)
  return {'seconds': median, 'first': first, 'tokens': used}


def ours_factored(dtype: str, repeat: int) -> dict:
  """Both sides' states kept: only the alignment, in symbols, and the readouts are read."""
  jax, model, params, data, _ = our_model('factored', dtype)
  candidate, job, alignment = data
  encode = jax.jit(model.apply, static_argnames=('method', 'side'))
  left = encode({'params': params}, candidate, side='candidate', method='encode')
  right = encode({'params': params}, job[0], side='job', method='encode')
  right = jax.tree.map(lambda x: x[:, :, None], right)
  score = jax.jit(lambda p, *x: model.apply({'params': p}, *x, method='score_pairs').scores)
  args = (params, left, candidate >= 0, right, job >= 0, alignment)
  first, median = timed(lambda: score(*args).block_until_ready(), repeat)
  return {'seconds': median, 'first': first, 'tokens': int((alignment >= 0).sum()) + 2 * J}


def ours_step(dtype: str, repeat: int) -> dict:
  """Forward and backward of the same list, gradients of LoRA alone, layers rematerialised."""
  jax, model, params, data, used = our_model('exact', dtype, lora=True, remat=True)

  def loss(lora, params, *data):
    hidden = model.apply({'params': params | {'lora': lora}}, *data).hidden
    scores = hidden[0, :, 0].mean(-1)
    return jax.nn.logsumexp(scores) - scores[0]
  grad = jax.jit(jax.grad(loss))
  first, median = timed(lambda: jax.block_until_ready(grad(params['lora'], params, *data)), repeat)
  return {'seconds': median, 'first': first, 'tokens': used}


def machine(dtype: str, repeat: int) -> dict:
  """GFLOP/s of a product at SmolLM2's MLP shape over a list's tokens."""
  import jax
  import jax.numpy as jnp
  x, w = jnp.ones((8192, 576), dtype), jnp.ones((576, 1536), dtype)
  product = jax.jit(lambda x, w: x @ w)
  first, median = timed(lambda: [product(x, w).block_until_ready() for _ in range(20)], repeat)
  return {'seconds': median, 'first': first, 'gflops': 20 * 2 * 8192 * 576 * 1536 / median / 1e9}


SYSTEMS = {
    'machine fp32': (machine, 'float32'),
    'torch_pairs fp32': (torch_pairs, 'float32'), 'torch_pairs bf16': (torch_pairs, 'bfloat16'),
    'torch_shared fp32': (torch_shared, 'float32'), 'torch_shared bf16': (torch_shared, 'bfloat16'),
    'ours_exact fp32': (ours_exact, 'float32'), 'ours_factored fp32': (ours_factored, 'float32'),
    'torch_step fp32': (torch_step, 'float32'), 'torch_step bf16': (torch_step, 'bfloat16'),
    'ours_step fp32': (ours_step, 'float32'),
}
FLOP_A_TOKEN = 2 * 106.2e6  # of the layers' kernels, forward; attention's scores come on top


def main(argv: list[str]) -> None:
  repeat = 1 if QUICK.value else 3
  if len(argv) > 1:  # one system, in a process of its own
    run, dtype = SYSTEMS[argv[1]]
    row = run(dtype, repeat)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps(row | {'peak_gb': round(peak, 2)}))
    return
  commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True,
                          check=True).stdout.strip()
  rows = []
  for name in SYSTEMS:
    if (ONLY.value and name.split()[0] not in ONLY.value) or (QUICK.value and 'torch_step' in name):
      continue
    command = [sys.executable, '-m', 'benchmarks.backbone', name, *(['--quick'] * QUICK.value)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
      print(f'{name}: failed\n{done.stderr[-2000:]}', file=sys.stderr)
      continue
    row = {'system': name, **json.loads(done.stdout.splitlines()[-1]), 'commit': commit,
           'cores': os.cpu_count(), 'machine': platform.machine(),
           'python': platform.python_version()}
    if 'tokens' in row:
      row |= {'pairs_per_second': J / row['seconds'],
              'gflops': row['tokens'] * FLOP_A_TOKEN / row['seconds'] / 1e9}
    rows.append({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
    print(rows[-1], flush=True)
  RESULTS.parent.mkdir(exist_ok=True)
  RESULTS.write_text('[\n' + ',\n'.join(map(json.dumps, rows)) + '\n]\n')


if __name__ == '__main__':
  app.run(main)
