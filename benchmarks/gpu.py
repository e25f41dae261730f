"""One GPU: lists on a decoder of SmolLM2's sizes beside PyTorch and PEFT, and the whole road.

  python -m benchmarks.gpu --out=FOLDER [--quick] [--parts=lists,road] [--tokenizer=FILE]

| part | rows in FOLDER |
|---|---|
| lists | gpu_lists.json: one list, and several at once, of `benchmarks.prompts`' schema prompt |
| road | gpu_road.json: the quickstart twice, seconds by stage, main figures; its results.json |

| system | reads |
|---|---|
| peak | nothing: products of random matrices, 8,192 a side, and copies |
| torch_pairs | each pair alone, sorted by length, 200 at a time |
| torch_shared | a candidate's keys and values once, its 50 jobs over them, list after list |
| exact | a candidate once, every job behind it, all lists in one program |
| factored | the candidates and the 50 jobs alone, then each pair over their states |
| kept | the same pairs, states at hand |
| torch_step | PEFT: forward and backward of each list's 50 pairs in one graph, list after list |
| step, step_full | ours of all lists in one program: what `remat` 'selective' or 'full' keeps |
| exact_xla, step_xla | the same without cuDNN's attention, which bfloat16 has on GPUs |
| agreement | scores of 2 lists with and without it: relative distance from float32's |

Weights are random, the texts real. Every system runs in a process of its own, for each type apart;
seconds are medians behind a first call, which compiles. float32 is multiplied as TF32 by both. FLOP
are those of the layers' kernels on real tokens, twice for a step; peaks are those of the same run,
and of the device's memory. `--tokenizer` names a saved one. Without a GPU it runs on CPUs.
"""

import collections
from collections.abc import Callable, Iterator
import json
import os
from pathlib import Path
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags
import numpy as np

from benchmarks import backbone
from benchmarks.backbone import MODEL, ONLY, QUICK
from benchmarks.prompts import TOKENIZER, J, pairs, prompts
from jobrec_jax.data.tokens import PAD, padded
from jobrec_jax.pipeline import provenance
from jobrec_jax.schema.files import digest, read_json, write_rows

OUT = flags.DEFINE_string('out', 'runs/gpu', 'where the rows go')
PARTS = flags.DEFINE_list('parts', ['lists', 'road'], 'what is measured')
COMMIT = flags.DEFINE_string('commit', '', 'named in the rows; empty: as git says')
LIMIT = flags.DEFINE_integer('limit', 120, 'seconds that a system, or a quickstart, may take; what '
                             'it made until then is told')
flags.set_default(MODEL, 'random')
PROMPT, AT_ONCE = 'schema', 200
RUNS = [('peak', 'bfloat16'), *((system, 'bfloat16') for system in (
    'agreement', 'torch_pairs', 'exact', 'exact_xla', 'factored', 'torch_step', 'step', 'step_xla',
    'torch_shared')),
    ('peak', 'float32'), ('exact', 'float32'), ('step', 'float32'), ('step_full', 'bfloat16'),
    ('torch_pairs', 'float32'), ('torch_step', 'float32'), ('factored', 'float32')]
TRACED = {'exact', 'factored', 'step'}  # of which the kernels' times are told
SMALL = {'market.candidates': 120, 'market.jobs': 20, 'warm_up.steps': 40, 'cooperative.steps': 40,
         'policy.lists': 20, 'policy.batch': 10, 'policy.held_out': 12, 'policy.list_length': 8}
EXPERTS = {'preference expert', 'qualification expert'}
OVER_TAU = {'predicted C', 'true C', 'true eligibility@5', 'ndcg@5'}


def several() -> int:
  """Lists at once."""
  return 2 if QUICK.value else 16


def torch_of(dtype: str, lora: bool = False):
  torch, model = backbone.torch_model(dtype, PROMPT, lora)
  torch.set_float32_matmul_precision('high')  # TF32, as JAX by default
  return torch, model.to(getattr(torch, dtype))  # PEFT's adapters, too: fastest so


def torch_pairs(dtype: str) -> Iterator:
  torch, model = torch_of(dtype)
  for lists in (1, several()):
    rows = sorted((row for i in range(lists) for row in pairs(PROMPT, i)), key=len)
    parts = [padded(rows[at:at + AT_ONCE]) for at in range(0, len(rows), AT_ONCE)]

    def run(parts=parts):
      with torch.inference_mode():
        return [backbone.torch_read(torch, model, ids).last_hidden_state[0, 0, 0]
                for ids in parts]
    yield {'lists': lists, 'tokens': sum(map(len, rows))}, run


def torch_shared(dtype: str) -> Iterator:
  torch, model = torch_of(dtype)
  for lists in (1, several()):
    texts = [prompts(PROMPT, i) for i in range(lists)]
    rows = [padded([j + a for j, a in zip(jobs, own)]) for _, jobs, own in texts]
    tokens = sum(len(text[0]) + int((ids != PAD).sum()) for text, ids in zip(texts, rows))

    def run(texts=texts, rows=rows):
      with torch.inference_mode():
        for text, ids in zip(texts, rows):
          backbone.torch_jobs(torch, model, text[0], ids, J)
    yield {'lists': lists, 'tokens': tokens}, run


def torch_step(dtype: str) -> Iterator:
  torch, model = torch_of(dtype, lora=True)
  for lists in (1, 2 if QUICK.value else 4):
    batches = [padded(pairs(PROMPT, i)) for i in range(lists)]

    def run(batches=batches):
      for ids in batches:
        out = backbone.torch_read(torch, model, ids).last_hidden_state
        last = torch.tensor((ids != PAD).sum(1) - 1, device=out.device)
        scores = out[torch.arange(len(ids), device=out.device), last].float().mean(-1)
        (torch.logsumexp(scores, 0) - scores[0]).backward()
      model.zero_grad()
    yield {'lists': lists, 'tokens': sum(int((x != PAD).sum()) for x in batches)}, run


def exact(dtype: str) -> Iterator:
  for lists in (1, several()):
    run, row = backbone.ours_exact(dtype, PROMPT, lists)
    yield row | {'lists': lists}, run


def factored(dtype: str) -> Iterator:
  """Pairs over kept states, and states and pairs in one program."""
  import jax
  for lists in (1, several()):
    blocks, _ = backbone.our_blocks(PROMPT, lists)
    candidates, jobs, own = map(jax.device_put, blocks)
    model, params = backbone.our_model('factored', dtype, PROMPT, blocks)
    index = np.broadcast_to(np.arange(J, dtype=np.int32), (lists, J))

    def encode(params, candidates, jobs, model=model):
      return [model.apply({'params': params}, tokens, side, method='encode')
              for tokens, side in ((candidates, 'candidate'), (jobs[0], 'job'))]

    def look(params, states, candidates, jobs, own, model=model, index=index):
      return model.apply({'params': params}, states[0], candidates != PAD, states[1], index,
                         jobs != PAD, own, method='score_pairs').scores

    both = jax.jit(lambda params, *x, encode=encode, look=look: look(params, encode(params, *x[:2]),
                                                                     *x))
    states, again = jax.jit(encode)(params, candidates, jobs), jax.jit(look)
    inputs = candidates, jobs, own
    pair_tokens = int((blocks[2] != PAD).sum()) + 2 * lists * J
    texts = int((blocks[0] != PAD).sum() + (blocks[1][0] != PAD).sum())  # of 50 jobs once
    yield ({'system': 'kept', 'lists': lists, 'tokens': pair_tokens},
           lambda f=again, s=states, p=params, x=inputs: f(p, s, *x).block_until_ready())
    yield ({'lists': lists, 'tokens': pair_tokens + texts},
           lambda f=both, p=params, x=inputs: f(p, *x).block_until_ready())


def step(dtype: str) -> Iterator:
  for lists in (1, 2 if QUICK.value else 4):
    run, row = backbone.ours_step(dtype, PROMPT, lists)
    yield row | {'lists': lists}, run


def step_full(dtype: str) -> Iterator:
  for lists in (4, several()):
    run, row = backbone.ours_step(dtype, PROMPT, lists, remat='full')
    yield row | {'lists': lists}, run


def without_cudnn() -> None:
  """From here on this process's lists are read by our own attention."""
  from jobrec_jax.models import fused_attention
  fused_attention.GPUS = ()


def by_xla(system: Callable[[str], Iterator]) -> Callable[[str], Iterator]:
  def measured(dtype: str) -> Iterator:
    without_cudnn()
    yield from system(dtype)
  return measured


def agreement(dtype: str) -> Iterator:
  """How far both attentions' scores lie from those in float32."""
  import jax
  import jax.numpy as jnp

  from jobrec_jax.models import axes, fused_attention

  def scores(dtype: str) -> np.ndarray:
    blocks, _ = backbone.our_blocks(PROMPT, 2)
    model, params = backbone.our_model('exact', dtype, PROMPT, blocks)
    score = jax.jit(lambda params, *x: model.apply({'params': params}, *x).scores)
    return np.asarray(score(params, *blocks), np.float64)

  found = {}
  if fused_attention.fits(jnp.zeros((1, 64), dtype), axes.platform()):
    found['with cuDNN'] = scores(dtype)
  without_cudnn()
  found['without'] = scores(dtype)
  with jax.default_matmul_precision('highest'):
    true = scores('float32')
  size = np.linalg.norm(true)
  for name, x in found.items():
    yield {'attention': name, 'distance': float(np.linalg.norm(x - true) / size)}, None


def peak(dtype: str) -> Iterator:
  """Both libraries' matrix products and, of the first type, a copy."""
  import jax
  import jax.numpy as jnp

  from jobrec_jax.train.speed import matrix_peak
  yield {'peak_tflops': matrix_peak(dtype) / 1e12, 'library': 'jax'}, None
  import torch
  torch.set_float32_matmul_precision('high')
  device, side = ('cuda', 8192) if torch.cuda.is_available() else ('cpu', 512)
  x = torch.randn(side, side, device=device).to(getattr(torch, dtype))
  seconds, _ = timed(lambda: x @ x, 'torch')
  yield {'peak_tflops': 2 * side ** 3 / min(seconds) / 1e12, 'library': 'torch'}, None
  if dtype == 'bfloat16':
    y = jax.random.normal(jax.random.key(0), (side, side * 8))
    copy = jax.jit(lambda y: jnp.negative(y))
    seconds, _ = timed(lambda: copy(y).block_until_ready(), 'ours')
    yield {'copy_terabytes_per_second': 2 * y.nbytes / min(seconds) / 1e12, 'library': 'jax'}, None


SYSTEMS = {'peak': peak, 'torch_pairs': torch_pairs, 'torch_shared': torch_shared, 'exact': exact,
           'factored': factored, 'torch_step': torch_step, 'step': step, 'step_full': step_full,
           'exact_xla': by_xla(exact), 'step_xla': by_xla(step), 'agreement': agreement}


def timed(run, system: str) -> tuple[list[float], float]:
  """Seconds of calls, and of the first one."""
  def once():
    start = time.perf_counter()
    out = run()
    if system.startswith('torch') and 'cuda' in devices(system):
      import torch
      torch.cuda.synchronize()
    del out
    return time.perf_counter() - start
  first, times = once(), []
  while len(times) < (2 if QUICK.value else 20) and (len(times) < 3 or sum(times) < 5):
    times.append(once())
  return times, first


def devices(system: str) -> str:
  """The kind of device that a system's library uses."""
  if system.startswith('torch'):
    import torch
    return f'cuda {torch.cuda.get_device_name()}' if torch.cuda.is_available() else 'cpu'
  import jax
  return jax.devices()[0].device_kind


def peak_gigabytes(system: str) -> float:
  """The most that the device held in this process, or on CPUs the process itself."""
  if system.startswith('torch'):
    import torch
    if torch.cuda.is_available():
      return torch.cuda.max_memory_allocated() / 1e9
  else:
    import jax
    if said := jax.devices()[0].memory_stats():
      return said['peak_bytes_in_use'] / 1e9
  return backbone.peak_memory()


def one(system: str, dtype: str) -> None:
  """Runs in a process of its own, and prints a row of each measurement as soon as it is made."""
  for row, run in SYSTEMS[system](dtype):
    row = {'system': system, 'dtype': dtype} | row
    if run is not None:
      times, first = timed(run, system)
      seconds = statistics.median(times)
      pairs = row['lists'] * J
      passes = 2 if 'step' in system else 1
      row |= {'pairs': pairs, 'seconds': seconds, 'first_seconds': first, 'least': min(times),
              'greatest': max(times), 'calls': len(times), 'pairs_per_second': pairs / seconds,
              'tokens_per_second': row['tokens'] / seconds,
              'tflops': passes * row['tokens'] * backbone.flop_a_token() / seconds / 1e12}
    print(json.dumps(row | {'peak_gb': peak_gigabytes(system), 'device': devices(system)}),
          flush=True)
  if system in TRACED and devices(system) != 'cpu':
    print(json.dumps({'system': system, 'dtype': dtype, 'lists': row['lists'],
                      'kernels': kernels(run)}), flush=True)


def kernels(run) -> list[tuple[str, int, float]]:
  """Of one more call, the kernels that took longest: name, launches, milliseconds."""
  import jax
  spent, launches = collections.Counter(), collections.Counter()
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      run()
    for path in Path(folder).rglob('*.xplane.pb'):
      for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        streams = [line for line in plane.lines if line.name.startswith('Stream')]
        for event in (event for line in streams for event in line.events):
          spent[event.name] += event.duration_ns / 1e6
          launches[event.name] += 1
  return [(name, launches[name], round(ms, 3)) for name, ms in spent.most_common(25)]


def rounded(row: dict) -> dict:
  return {k: float(f'{v:.4g}') if isinstance(v, float) else v for k, v in row.items()}


def measure_lists(about: dict) -> bool:
  """Writes what was measured after every system; whether all of it was."""
  rows, peaks, whole = [], {}, True
  if MODEL.value != 'smollm2':
    backbone.random_folder()
  for system, dtype in RUNS:
    if ONLY.value and system not in ONLY.value:
      continue
    started = time.monotonic()
    command = [sys.executable, '-m', 'benchmarks.gpu', system, dtype, f'--model={MODEL.value}',
               f'--quick={QUICK.value}', f'--tokenizer={TOKENIZER.value}']
    said, complete = printed(command)
    whole &= complete
    for row in (json.loads(line) for line in said.splitlines() if line.startswith('{')):
      if row.get('library') == 'jax' and 'peak_tflops' in row:
        peaks[dtype] = row['peak_tflops']
      if dtype in peaks and 'tflops' in row:
        row['share_of_peak'] = row['tflops'] / peaks[dtype]
      row['process_seconds'] = time.monotonic() - started
      rows.append(rounded(row) | {'prompt': PROMPT, 'model': MODEL.value} | about)
      print({k: v for k, v in rows[-1].items() if k not in about}, flush=True)
    write_rows(Path(OUT.value) / 'gpu_lists.json', rows)
  return whole


def printed(command: list[str], **environment: str) -> tuple[str, bool]:
  """What a process printed, and whether it ended well and in time."""
  memory = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}  # what the device held is then what was used
  try:
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=LIMIT.value,
                          env=os.environ | memory | environment)
    said, complete = done.stdout, done.returncode == 0
  except subprocess.TimeoutExpired as late:
    said, complete = late.stdout or b'', False
  if not complete:
    print(f'{command[2:5]}: failed, or not within {LIMIT.value} s', file=sys.stderr, flush=True)
  return said.decode(), complete


def measure_road(about: dict) -> bool:
  """The quickstart with an empty compilation cache, and again with the programs of the first."""
  rows, whole = [], True
  small = [f'--config.{key}={value}' for key, value in SMALL.items() if QUICK.value]
  with tempfile.TemporaryDirectory() as folder:
    for name in ('cold', 'warm'):
      run = Path(folder) / name
      command = [sys.executable, '-m', 'experiments.quickstart', f'--workdir={run}', *small]
      started = time.monotonic()
      said, complete = printed(command, JAX_COMPILATION_CACHE_DIR=f'{folder}/jit')
      whole &= complete
      rows.append({'road': name, 'seconds': time.monotonic() - started, 'complete': complete}
                  | of_the_run(run))
      rows[-1] = {k: rounded(v) if isinstance(v, dict) else v for k, v in rounded(rows[-1]).items()}
      rows[-1] |= about
      print({k: v for k, v in rows[-1].items() if k not in about}, said, sep='\n', flush=True)
      write_rows(Path(OUT.value) / 'gpu_road.json', rows)
  return whole


def of_the_run(run: Path) -> dict:
  """Seconds by stage, device and the main figures, as far as the run came."""
  stages, devices, figures = collections.Counter(), set(), {}
  for path in run.glob('store/**/artefact.json'):
    made = read_json(path)
    stages[made['identity']['name']] += made['provenance']['seconds']
    devices.add(made['provenance']['device'])
  results = run / 'results.json'
  if results.is_file():
    shutil.copy(results, Path(OUT.value) / f'gpu_road_{run.name}_results.json')
  for row in read_json(results) if results.is_file() else []:
    asked = row['tau'] is not None and row['metric'] in OVER_TAU
    if row['against'] is None and (asked or (
        row['system'] in EXPERTS and row['metric'] == 'ndcg@5')):
      tau = f" at tau {row['tau']:.4f}" if asked else ''
      figures[f"{row['split']}: {row['system']}{tau}: {row['perspective']} {row['metric']}"] = (
          row['value'])
  return {'stages': dict(stages), 'devices': sorted(devices), 'figures': figures,
          'results': digest(results) if results.is_file() else ''}


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    one(*argv[1:])
    return
  Path(OUT.value).mkdir(parents=True, exist_ok=True)
  about = backbone.describe() | provenance.versions()
  about |= {'commit': COMMIT.value or about['commit']}
  parts = {'lists': measure_lists, 'road': measure_road}
  whole = [parts[name](about) for name in PARTS.value]
  sys.exit(not all(whole))


if __name__ == '__main__':
  app.run(main)
