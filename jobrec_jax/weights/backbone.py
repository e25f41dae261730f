"""A pretrained decoder that a path or a hub name stands for: its sizes, its words, its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import tokenizers

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.quantized import QTYPES, quantizer
from jobrec_jax.schema.files import expanded
from jobrec_jax.weights import families, gguf_decoder, gguf_file, gguf_tokenizer, huggingface

PyTree = Any


class Backbone(NamedTuple):
  """A pretrained decoder, opened but not loaded.

  Attributes:
    config: sizes and constants from its files; how it computes, and its adapters, from the caller.
    tokenizer: reads its tokenizer; a ValueError where the embeddings lack a row for one of its ids.
    load: shardings -> its parameters, frozen.
  """

  config: DecoderConfig
  tokenizer: Callable[[], tokenizers.Tokenizer]
  load: Callable[[PyTree], PyTree]


def _is_gguf(place: str) -> bool:
  return place.lower().endswith('.gguf')


def locate(place: str) -> Path:
  """The file or folder of a backbone: a .gguf file, a Hugging Face directory or a hub name.

  Raises:
    ValueError: it is not there.
  """
  if _is_gguf(place):
    return expanded(place)
  return huggingface.open_directory(place).path


def open_backbone(place: str, kernels: str, **changes: Any) -> Backbone:
  """Opens a backbone.

  Args:
    place: a .gguf file (in any case), or a Hugging Face directory or hub name; `~` is the user's
      home.
    kernels: their stored type: 'bfloat16', 'float32', or quantised 'int8', 'nf4'.
    **changes: fields of `DecoderConfig` that say how it computes.

  Raises:
    ValueError: it is not there, or is no decoder that ours can be: all that its headers tell is
      checked, before anything of its sizes is made.
  """
  stored = jnp.float32 if kernels == 'float32' else jnp.bfloat16
  then = quantizer(kernels) if kernels in QTYPES else lambda name, x: x
  if _is_gguf(place):
    file = gguf_file.open_gguf(locate(place))
    decoder, load = gguf_decoder.decoder_config(file, **changes), gguf_decoder.load_decoder
    gguf_decoder.check(file, decoder)
    read = gguf_tokenizer.load_tokenizer
  else:
    file = huggingface.open_directory(place)
    decoder, load = families.decoder_config(file.config, **changes), huggingface.load_decoder
    huggingface.check(file, decoder)

    def read(directory: huggingface.Directory) -> tokenizers.Tokenizer:
      return huggingface.load_tokenizer(directory.path)

  def tokenizer() -> tokenizers.Tokenizer:
    found = read(file)
    special = {i for i, token in found.get_added_tokens_decoder().items() if token.special}
    # No text is encoded as these: Gemma's image token has no row.
    greatest = max(set(found.get_vocab().values()) - special, default=-1)
    if greatest >= decoder.vocab_size:
      raise ValueError(f'{file.path}: the embedding table must have a row for each id of the '
                       f'tokenizer, up to {greatest}, got {decoder.vocab_size} rows')
    return found

  return Backbone(decoder, tokenizer,
                  lambda shardings: load(file, decoder, shardings, stored, then))
