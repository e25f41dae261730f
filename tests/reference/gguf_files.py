"""GGUF files of transformers' models, written by the gguf package."""

import gguf
from gguf import GGMLQuantizationType as TensorType
import numpy as np

NAMES = {
  'embed_tokens': 'token_embd', 'norm': 'output_norm', 'lm_head': 'output',
  'input_layernorm': 'attn_norm', 'post_attention_layernorm': 'ffn_norm',
  'q_proj': 'attn_q', 'k_proj': 'attn_k', 'v_proj': 'attn_v', 'o_proj': 'attn_output',
  'q_norm': 'attn_q_norm', 'k_norm': 'attn_k_norm',
  'gate_proj': 'ffn_gate', 'up_proj': 'ffn_up', 'down_proj': 'ffn_down',
}


def interleaved(x, heads):
  """llama.cpp's order of the rows of q and k: of each head 0, H/2, 1, H/2 + 1, ... ."""
  H = len(x) // heads
  rows = [n * H + half * (H // 2) + i for n in range(heads) for i in range(H // 2)
          for half in (0, 1)]
  return x[rows]


GEMMA_NAMES = NAMES | {
  'post_attention_layernorm': 'post_attention_norm', 'pre_feedforward_layernorm': 'ffn_norm',
  'post_feedforward_layernorm': 'post_ffw_norm',
}


def exported(model, family='llama'):
  """The tensors of a transformers model under GGUF's names, fp32."""
  names = GEMMA_NAMES if family == 'gemma3' else NAMES
  c, out = model.config, {}
  for name, weight in model.state_dict().items():
    *place, module, kind = name.split('.')
    if module == 'lm_head' and c.tie_word_embeddings:
      continue
    x = weight.detach().numpy()
    if family == 'llama' and module in ('q_proj', 'k_proj'):
      heads = c.num_attention_heads if module == 'q_proj' else c.num_key_value_heads
      x = interleaved(x, heads)
    layer = f'blk.{place[2]}.' if 'layers' in place else ''
    if family == 'gemma3' and x.ndim == 1:
      x = x + 1
    out[f'{layer}{names[module]}.{kind}'] = np.array(x)
  return out


def header(c, family='llama'):
  return {
    'general.architecture': family,
    f'{family}.block_count': c.layers,
    f'{family}.context_length': 128,
    f'{family}.embedding_length': c.width,
    f'{family}.feed_forward_length': c.mlp_width,
    f'{family}.attention.head_count': c.heads,
    f'{family}.attention.head_count_kv': c.kv_heads,
    f'{family}.attention.key_length': c.head_width,
    f'{family}.attention.value_length': c.head_width,
    f'{family}.attention.layer_norm_rms_epsilon': c.rms_epsilon,
    f'{family}.rope.freq_base': c.rope_base,
  }


def write(path, metadata, tensors, kind=TensorType.F32):
  """Writes a file.

  Matrices become `kind`, one for all or by name and else F32; those of bytes are taken to be of it.
  """
  writer = gguf.GGUFWriter(path, arch=metadata['general.architecture'])
  for key, value in metadata.items():
    if key == 'general.architecture':
      continue
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
           str: writer.add_string, list: writer.add_array}[type(value)]
    add(key, value)
  for name, x in tensors.items():
    its = kind.get(name, TensorType.F32) if isinstance(kind, dict) else kind
    if x.dtype == np.uint8:
      writer.add_tensor(name, x, raw_dtype=its)
    elif x.ndim == 1 or its == TensorType.F32:
      writer.add_tensor(name, x)
    else:
      writer.add_tensor(name, gguf.quantize(x, its), raw_dtype=its)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path
