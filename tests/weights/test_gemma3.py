"""Gemma 3 270M, a real file of mixed quantisation (Q4_K_M): the same to us as to transformers."""

from collections import Counter
import itertools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.schema.align import align
from jobrec_jax.schema.render import render_alignment, render_entity
from jobrec_jax.weights import fetch
from jobrec_jax.weights.gguf_decoder import decoder_config, load_decoder
from jobrec_jax.weights.gguf_file import open_gguf
from jobrec_jax.weights.gguf_tokenizer import load_tokenizer

GEMMA3 = DecoderConfig(
  vocab_size=262144, width=640, layers=18, heads=4, kv_heads=1, head_width=256, mlp_width=2048,
  rope_base=1e6, rms_epsilon=1e-6, qk_norm=True, activation='gelu_tanh', post_norms=True,
  centred_norms=True, scaled_embeddings=True, window=512, global_every=6, local_rope_base=1e4,
)


@pytest.fixture(scope='module')
def file():
  try:
    return open_gguf(fetch.fetch('gemma3-270m'))
  except ConnectionError as error:
    if os.environ.get('JOBREC_OFFLINE'):
      pytest.skip('Gemma 3 is not in the cache, and JOBREC_OFFLINE is set')
    pytest.fail(f'Gemma 3 is not in the cache and cannot be fetched; where there is no package '
                f'index, set JOBREC_OFFLINE=1 to skip this test. {error}')


@pytest.fixture(scope='module')
def tokenizer(file):
  return load_tokenizer(file)


@pytest.fixture(scope='module')
def prompts():
  """Seven blocks of candidates, or of jobs and alignments; a text that is longer than a window."""
  dataset, _ = simulate(MarketConfig(candidates=20, jobs=20), 0)
  schema, texts = dataset.schema, []
  for candidate, job in zip(dataset.candidates[:4], dataset.jobs):
    texts.append(render_entity(schema, 'candidate', candidate))
    texts.append(render_entity(schema, 'job', job) + '\n'
                 + render_alignment(align(schema, candidate, job)))
  return [*texts[:7], '\n'.join(texts)]


def pieces(score, text):
  """What SentencePiece makes of a text, step by step: the best pair of neighbours merges."""
  parts = list(text.replace(' ', '▁'))
  while True:
    found = [(score.get(a + b, -np.inf), -i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
    best, at = max(found, default=(-np.inf, 0))
    if best == -np.inf:
      return parts
    parts[-at:-at + 2] = [parts[-at] + parts[-at + 1]]


@pytest.mark.slow
def test_the_tokenizer_cuts_as_sentencepiece(file, tokenizer, prompts):
  values = [file.metadata[f'tokenizer.ggml.{n}'] for n in ('tokens', 'scores', 'token_type')]
  score = {token: score for token, score, kind in zip(*values) if kind == 1}
  for text in prompts[:4]:
    found = tokenizer.encode(text)
    # Runs of line breaks are tokens of their own: text is cut there before anything merges.
    want = [pieces(score, part) if part.strip('\n') else [part] * bool(part)
            for part in re.split(r'(\n+)', text)]
    assert found.tokens == list(itertools.chain.from_iterable(want))
    assert tokenizer.decode(found.ids) == text
  found = tokenizer.encode('<bos>a   b\n\n1234 über 漢 \x07')
  assert tokenizer.token_to_id('<bos>') not in found.ids
  assert tokenizer.decode(found.ids) == '<bos>a   b\n\n1234 über 漢 \x07'
  assert found.tokens[-1] == '<0x07>'
  assert found.tokens[found.tokens.index('   '):][:7] == ['   ', 'b', '\n\n', *'1234']


@pytest.fixture
def one_torch_thread():
  """Threads that wait for each other crawl where other programs use the cores too."""
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures('one_torch_thread')
def test_logits_equal_transformers(file, tokenizer, prompts):
  assert Counter(t.kind for t in file.tensors.values()) == {
    'F32': 109, 'Q5_0': 81, 'Q4_K': 27, 'Q8_0': 10, 'Q6_K': 9}
  config = decoder_config(file)
  assert config == GEMMA3
  params = load_decoder(file, config, dtype=jnp.float32)
  assert sum(x.size for x in jax.tree.leaves(params)) == 268_098_176
  decoder = Decoder(config)
  read = jax.jit(decoder.apply)
  judge = jax.jit(lambda params, hidden: decoder.apply({'params': params}, hidden, method='logits'))
  model = AutoModelForCausalLM.from_pretrained(
    file.path.parent, gguf_file=file.path.name, dtype=torch.float32,
    attn_implementation='eager').eval()
  start = tokenizer.token_to_id('<bos>')
  texts = [[start, *tokenizer.encode(prompt).ids] for prompt in prompts]
  assert len(texts[-1]) > GEMMA3.window > max(map(len, texts[:-1]))
  losses = []
  for ids in texts:
    length = -len(ids) % 128  # 1 MB of logits a token: 128 at a time, padded behind
    tokens = np.pad(np.array([ids], np.int32), [(0, 0), (0, length)])
    hidden = read({'params': params}, tokens, np.arange(tokens.shape[1])[None] < len(ids))
    with torch.no_grad():
      theirs = model.model(torch.from_numpy(tokens).long()).last_hidden_state
    for at in range(0, tokens.shape[1], 128):
      got = np.asarray(judge(params, hidden[0, at:at + 128]))[:len(ids) - at]
      with torch.no_grad():
        want = model.lm_head(theirs[0, at:at + 128]).numpy()[:len(ids) - at]
      np.testing.assert_allclose(got, want, atol=1e-3)
      following = torch.tensor(ids[at + 1:at + 129])
      losses.append(torch.nn.functional.cross_entropy(
        torch.from_numpy(got[:len(following)]), following, reduction='none').numpy())
  # A trained model: it reads prompts far better than chance, 12.5 nats a token.
  assert np.concatenate(losses).mean() < 5
