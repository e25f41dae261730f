"""PyTorch transformers' Gemma 3 as the reference of windows, post-norms and scaled embeddings."""

import jax
import numpy as np
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.weights.places import decoder_places


def gemma_sizes(**changes) -> DecoderConfig:
  """A small decoder with all that sets Gemma 3 apart: two layers with a window, one without."""
  sizes = {
    'vocab_size': 50, 'width': 24, 'layers': 3, 'heads': 4, 'kv_heads': 2, 'head_width': 8,
    'mlp_width': 40, 'rope_base': 1e6, 'rms_epsilon': 1e-6, 'qk_norm': True,
    'activation': 'gelu_tanh', 'post_norms': True, 'centred_norms': True,
    'scaled_embeddings': True, 'window': 5, 'global_every': 3, 'local_rope_base': 1e4,
  }
  return DecoderConfig(**{**sizes, **changes})


def random_gemma(config: DecoderConfig, seed: int = 0) -> Gemma3ForCausalLM:
  """A Gemma 3 of these sizes with random weights, norms included, in fp32."""
  torch.manual_seed(seed)
  kinds = ['sliding_attention' if config.has_window(i) else 'full_attention'
           for i in range(config.layers)]
  model = Gemma3ForCausalLM(Gemma3TextConfig(
    vocab_size=config.vocab_size, hidden_size=config.width, num_hidden_layers=config.layers,
    num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
    head_dim=config.head_width, intermediate_size=config.mlp_width,
    query_pre_attn_scalar=config.head_width, rms_norm_eps=config.rms_epsilon,
    sliding_window=config.window, layer_types=kinds, tie_word_embeddings=True,
    rope_parameters={
      'full_attention': {'rope_type': 'default', 'rope_theta': config.rope_base},
      'sliding_attention': {'rope_type': 'default', 'rope_theta': config.local_rope_base}},
    attn_implementation='eager', pad_token_id=None, bos_token_id=None, eos_token_id=None)).eval()
  with torch.no_grad():
    for weight in model.parameters():
      if weight.ndim == 1:
        weight.uniform_(-0.5, 0.5)
      else:
        weight.normal_(std=weight.shape[1] ** -0.5)
  return model


def gemma_params(model: Gemma3ForCausalLM, config: DecoderConfig) -> dict:
  """The model's weights as the decoder's parameter tree."""
  weights, params = {k: v.numpy() for k, v in model.state_dict().items()}, {}
  for key, place in decoder_places(config).items():
    whole = tuple(slice(0, n) for n in place.shape)
    rows = [place.ours(weights[name].__getitem__, whole) for name in place.names]
    home = params
    *path, last = key.split('/')
    for part in path:
      home = home.setdefault(part, {})
    home[last] = rows[0] if place.layers is None else np.stack(rows)
  return jax.tree.map(np.ascontiguousarray, params)
