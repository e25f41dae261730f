"""PyTorch transformers' Llama as the reference of the decoder."""

import jax.numpy as jnp
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from jobrec_jax.models.decoder import DecoderConfig


def random_llama(config: DecoderConfig, seed: int = 0) -> LlamaForCausalLM:
  """A Llama of these sizes with random weights, norms included, in fp32."""
  torch.manual_seed(seed)
  model = LlamaForCausalLM(
    LlamaConfig(
      vocab_size=config.vocab_size,
      hidden_size=config.width,
      num_hidden_layers=config.layers,
      num_attention_heads=config.heads,
      num_key_value_heads=config.kv_heads,
      head_dim=config.head_width,
      intermediate_size=config.mlp_width,
      rms_norm_eps=config.rms_epsilon,
      rope_parameters={'rope_type': 'default', 'rope_theta': config.rope_base},
      tie_word_embeddings=config.tie_embeddings,
      attn_implementation='eager',
      pad_token_id=None,
    )
  ).eval()
  with torch.no_grad():
    for weight in model.parameters():
      if weight.ndim == 1:
        weight.uniform_(0.5, 1.5)
      else:
        weight.normal_(std=weight.shape[1] ** -0.5)
  return model


def decoder_params(model: LlamaForCausalLM, config: DecoderConfig) -> dict:
  """The model's weights as the decoder's parameter tree."""
  weights = {k: jnp.asarray(v.detach().numpy()) for k, v in model.state_dict().items()}
  D, N, K, H = config.width, config.heads, config.kv_heads, config.head_width

  def stack(name, shape):
    layers = [weights[f'model.layers.{i}.{name}.weight'].T for i in range(config.layers)]
    return jnp.stack([w.reshape(shape) for w in layers])

  heads = {'q': (D, N, H), 'k': (D, K, H), 'v': (D, K, H), 'o': (N, H, D)}
  mlp = {'gate': (D, -1), 'up': (D, -1), 'down': (-1, D)}
  params = {
    'embedding': weights['model.embed_tokens.weight'],
    'norm': {'scale': weights['model.norm.weight']},
    'layers': {
      'attention_norm': {'scale': stack('input_layernorm', (D,))},
      'attention': {n: {'kernel': stack(f'self_attn.{n}_proj', s)} for n, s in heads.items()},
      'mlp_norm': {'scale': stack('post_attention_layernorm', (D,))},
      'mlp': {n: {'kernel': stack(f'mlp.{n}_proj', s)} for n, s in mlp.items()},
    },
  }
  if not config.tie_embeddings:
    params['lm_head'] = weights['lm_head.weight'].T
  return params


def to_torch(x) -> torch.Tensor:
  return torch.from_numpy(np.array(x))
