"""PyTorch transformers' models of every family as the reference of loaded and saved weights."""

import jax
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SIZES = {
  'vocab_size': 64, 'hidden_size': 32, 'intermediate_size': 48, 'num_hidden_layers': 3,
  'num_attention_heads': 4, 'num_key_value_heads': 2, 'max_position_embeddings': 512,
}
LLAMA3 = {'rope_type': 'llama3', 'rope_theta': 500000.0, 'factor': 8.0, 'low_freq_factor': 1.0,
          'high_freq_factor': 4.0, 'original_max_position_embeddings': 64}
CASES = {
  'llama 2': {'model_type': 'llama', 'num_key_value_heads': 4, 'tie_word_embeddings': False},
  'smollm2': {'model_type': 'llama', 'num_attention_heads': 8, 'tie_word_embeddings': True,
              'rope_parameters': {'rope_type': 'default', 'rope_theta': 100000.0},
              'rms_norm_eps': 1e-5},
  'llama 3': {'model_type': 'llama', 'tie_word_embeddings': False, 'rope_parameters': LLAMA3,
              'head_dim': 16},
  'mistral': {'model_type': 'mistral', 'sliding_window': None, 'head_dim': 16},
  'qwen2': {'model_type': 'qwen2', 'tie_word_embeddings': True},
  'qwen3': {'model_type': 'qwen3', 'tie_word_embeddings': False, 'head_dim': 16},
  'gemma 3': {'model_type': 'gemma3_text', 'head_dim': 16, 'query_pre_attn_scalar': 16,
              'sliding_window': 40, 'sliding_window_pattern': 2},
}


def random_model(case: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
  """The named case with random weights, norms and biases included."""
  settings = {**SIZES, **CASES[case], 'bos_token_id': None, 'eos_token_id': None}
  config = AutoConfig.for_model(**settings)
  config._attn_implementation = 'eager'
  model = AutoModelForCausalLM.from_config(config).eval()
  torch.manual_seed(len(case))
  with torch.no_grad():
    for name, weight in model.named_parameters():
      if name.endswith('norm.weight'):
        weight.uniform_(0.5, 1.5)
        if config.model_type == 'gemma3_text':  # whose norms multiply by 1 + their weight
          weight -= 1
      else:
        weight.normal_(std=0.5 if weight.ndim == 1 else weight.shape[1] ** -0.5)
  return model.to(dtype)


def layers_of(model: PreTrainedModel, tokens: np.ndarray) -> list[tuple[np.ndarray, ...]]:
  """For every layer what goes in, what its attention gives, and what comes out."""
  inputs, attended, outputs, hooks = [], [], [], []

  def keep(module, args, output):
    inputs.append(args[0])
    outputs.append(output)

  for layer in model.model.layers:
    hooks.append(layer.register_forward_hook(keep))
    hooks.append(
      layer.self_attn.register_forward_hook(lambda _, args, output: attended.append(output[0]))
    )
  logits_of(model, tokens)
  for hook in hooks:
    hook.remove()
  return [tuple(x.numpy() for x in layer) for layer in zip(inputs, attended, outputs)]


def logits_of(model: PreTrainedModel, tokens: np.ndarray | jax.Array) -> np.ndarray:
  with torch.no_grad():
    return model(torch.from_numpy(np.array(tokens)).long()).logits.float().numpy()
