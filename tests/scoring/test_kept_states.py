"""Block states on disk: what they hold, when they are computed, and what a damaged file does."""

import dataclasses

import flax.linen as nn
import jax
import ml_dtypes
import numpy as np
import pytest

from jobrec_jax.data.tokens import PAD, BlockFormat
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.lora import LoraConfig
from jobrec_jax.scoring import kept_states as block_states
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.scoring.features import PairScorer, ScoringConfig
from jobrec_jax.scoring.kept_states import BlockStates, encode_blocks
from jobrec_jax.sharding import MeshConfig, make_mesh

LENGTHS = BlockFormat(40, 24, 16)  # conftest's, of `blocks`


@pytest.fixture(scope='module')
def factored(model, blocks):
  starts = np.cumsum([blocks.candidates.shape[1], blocks.jobs.shape[1]]).tolist()
  return JobRec(dataclasses.replace(model.config, attention='factored', job_start=starts[0],
                                    pair_start=starts[1]))


@pytest.fixture(scope='module')
def params(factored, blocks):
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))
  return jax.device_get(nn.unbox(factored.init(jax.random.key(0), *lists.values())['params']))


def test_states_are_the_models_own_in_bfloat16(factored, params, blocks, tmp_path):
  expected = factored.apply({'params': params}, blocks.jobs[:5], 'job', method='encode')
  states = BlockStates(tmp_path, factored, params, batch=2)(blocks.jobs[:5], 'job')
  real = np.broadcast_to((blocks.jobs[:5] != PAD)[None, None, :, None, :, None], states.k.shape)
  for ours, reference in ((states.k, expected.k), (states.v, expected.v)):
    assert ours.dtype == np.uint16
    numbers = ours.view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_allclose(numbers[real], np.asarray(reference)[real], rtol=2**-8, atol=1e-6)
    assert (ours[~real] == 0).all()


def test_a_block_is_read_once_for_its_text_and_weights(factored, params, blocks, tmp_path):
  first = BlockStates(tmp_path, factored, params)
  first(blocks.jobs[:4], 'job')
  first(blocks.jobs[2:6], 'job')
  assert first.encoded == 6
  again = BlockStates(tmp_path, factored, params)  # another run
  wider = np.pad(blocks.jobs[:6], ((0, 0), (0, 3)), constant_values=PAD)  # another block length
  again(wider, 'job')
  assert again.encoded == 0
  again(blocks.jobs[:1], 'candidate')  # another place: other keys
  assert again.encoded == 1
  decoder = params['decoder'] | {'embedding': params['decoder']['embedding'] * 1.5}
  other = BlockStates(tmp_path, factored, params | {'decoder': decoder})
  other(blocks.jobs[:4], 'job')
  assert other.encoded == 4
  heads = BlockStates(tmp_path, factored, params | {'preference': None})  # no say in the states
  heads(blocks.jobs[:4], 'job')
  assert heads.encoded == 0


@pytest.mark.parametrize('part', ['decoder', 'lora', 'phrases', 'config', 'type'])
def test_states_of_other_weights_lie_elsewhere(part, factored, params, blocks, tmp_path):
  """Whatever has a say in a state has one in its key; a bit of a weight is enough."""
  rest = {'lora': {'q_a': np.ones((2, 3), np.float32)}, 'phrases': np.ones((4, 2), np.float32)}
  first = block_states._fingerprint(factored, params | rest)
  assert first == block_states._fingerprint(factored, params | rest | {'preference': None})
  if part == 'config':
    other = JobRec(dataclasses.replace(factored.config, pair_start=factored.config.pair_start + 8))
    assert block_states._fingerprint(other, params | rest) != first
    return
  tree = jax.tree.map(np.array, params | rest)
  name = 'decoder' if part == 'type' else part
  leaves, structure = jax.tree.flatten(tree[name])
  leaves[-1] = (leaves[-1].astype(np.float16) if part == 'type' else
                np.nextafter(leaves[-1], np.float32(9)))
  changed = tree | {name: jax.tree.unflatten(structure, leaves)}
  assert block_states._fingerprint(factored, changed) != first


def test_texts_and_sides_have_files_of_their_own(factored, params, blocks, tmp_path):
  states = BlockStates(tmp_path, factored, params)
  row = blocks.jobs[0]
  longer = np.append(row, PAD)
  other = np.where(np.arange(len(row)) == 0, row + 1, row)
  swapped = np.concatenate([row[[1, 0]], row[2:]])
  paths = [states._path(*x) for x in ((row, 'job'), (longer, 'job'), (other, 'job'),
                                      (swapped, 'job'), (row, 'candidate'))]
  assert paths[0] == paths[1] and len(set(paths)) == 4 and row[0] != row[1]


@pytest.fixture
def scorer(factored, params, blocks, tokenizer):
  """folder, batch -> a scorer that keeps block states there."""
  experts = Experts(factored, params, tokenizer, LENGTHS)
  return lambda folder, batch=8: PairScorer(experts, blocks, make_mesh(MeshConfig()),
                                            ScoringConfig(3, batch, str(folder)))


def test_a_new_job_against_all_candidates_encodes_one_block(scorer, blocks, tmp_path):
  everyone = np.arange(len(blocks.candidates))
  old = scorer(tmp_path)
  old.scores(everyone, np.zeros_like(everyone))
  assert old.states.encoded == len({tuple(x) for x in blocks.candidates}) + 1
  new = scorer(tmp_path)
  said = new.scores(everyone, np.full_like(everyone, 7))
  assert new.states.encoded == 1
  fresh = scorer('').scores(everyone, np.full_like(everyone, 7))
  # bfloat16 keeps eight bits of a key or value.
  np.testing.assert_allclose(said.preference, fresh.preference, atol=0.02)
  np.testing.assert_allclose(said.qualification, fresh.qualification, atol=0.02)


def test_whole_batches_are_encoded(scorer, tmp_path, monkeypatch):
  sizes = []

  def counting(model, params, tokens, side):
    sizes.append((side, len(tokens)))
    return encode_blocks(model, params, tokens, side)
  monkeypatch.setattr(block_states, 'encode_blocks', counting)
  some = np.arange(10)
  scorer(tmp_path, batch=4).scores(some, some)
  assert [n for side, n in sizes if side == 'candidate'] == [4, 4, 4]


def test_experts_with_adapters_keep_states_each(factored, blocks, tmp_path):
  decoder = dataclasses.replace(factored.config.decoder, lora=LoraConfig(2, per_expert=True))
  model = JobRec(dataclasses.replace(factored.config, decoder=decoder))
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))
  params = nn.unbox(model.init(jax.random.key(0), *lists.values())['params'])
  params['lora']['q_b'] = params['lora']['q_b'] + 0.1
  params['lora']['k_b'] = params['lora']['k_b'].at[1].add(0.3)
  states = BlockStates(tmp_path, model, params)(blocks.jobs[:2], 'job')
  assert states.k.shape[0] == 2 and (states.k[0] != states.k[1]).any()


def test_a_damaged_file_is_named(factored, params, blocks, tmp_path):
  BlockStates(tmp_path, factored, params)(blocks.jobs[:1], 'job')
  (path,) = tmp_path.rglob('*.npy')
  np.save(path, np.zeros(3, np.uint16))
  with pytest.raises(ValueError, match=r'npy: must be uint16 \(2, 1, 2, 2, \d+, 8\), got uint16'):
    BlockStates(tmp_path, factored, params)(blocks.jobs[:1], 'job')
  path.write_bytes(path.read_bytes()[:40])
  with pytest.raises(ValueError, match=r'npy: must be uint16 .*, got no array .*delete it'):
    BlockStates(tmp_path, factored, params)(blocks.jobs[:1], 'job')
