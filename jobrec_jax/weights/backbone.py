"""A pretrained decoder that a path or a hub name stands for: its sizes, its words, its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import tokenizers

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.quantized import QTYPES, quantizer
from jobrec_jax.weights import families, gguf_file, gguf_tokenizer, huggingface

PyTree = Any


class Backbone(NamedTuple):
  """A pretrained decoder, opened but not loaded.

  Attributes:
    config: sizes and constants from its files; how it computes, and its adapters, from the caller.
    tokenizer: reads its tokenizer.
    load: shardings -> its parameters, frozen.
  """

  config: DecoderConfig
  tokenizer: Callable[[], tokenizers.Tokenizer]
  load: Callable[[PyTree], PyTree]


def locate(place: str) -> Path:
  """The file or folder of a backbone: a .gguf file, a Hugging Face directory or a hub name.

  Raises:
    ValueError: it is not there.
  """
  if place.endswith('.gguf'):
    return Path(place).expanduser()
  return huggingface.open_directory(place).path


def open_backbone(place: str, kernels: str, **changes: Any) -> Backbone:
  """Opens a backbone.

  Args:
    place: a .gguf file, or a Hugging Face directory or hub name.
    kernels: their stored type: 'bfloat16', 'float32', or quantised 'int8', 'nf4'.
    **changes: fields of `DecoderConfig` that say how it computes.

  Raises:
    ValueError: it is not there, or is no decoder that ours can be.
  """
  stored = jnp.float32 if kernels == 'float32' else jnp.bfloat16
  then = quantizer(kernels) if kernels in QTYPES else lambda name, x: x
  if place.endswith('.gguf'):
    file = gguf_file.open_gguf(locate(place))
    decoder = gguf_file.decoder_config(file, **changes)
    return Backbone(decoder, lambda: gguf_tokenizer.load_tokenizer(file),
                    lambda shardings: gguf_file.load_decoder(file, decoder, shardings, stored,
                                                             then))
  directory = huggingface.open_directory(place)
  decoder = families.decoder_config(directory.config, **changes)
  return Backbone(decoder, lambda: huggingface.load_tokenizer(directory.path),
                  lambda shardings: huggingface.load_decoder(directory, decoder, shardings, stored,
                                                             then))
