"""The experts' model from settings, for training and loading: text, sizes, backbone."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tokenizers

from jobrec_jax.data.tokens import BlockFormat
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.models.lora import LoraConfig
from jobrec_jax.schema.files import read_object
from jobrec_jax.schema.settings import above, at_least, check, within

EXPERTS = ('preference', 'qualification')


@dataclasses.dataclass(frozen=True)
class TokenizerSettings:
  """How text becomes tokens.

  Lengths are bounds: blocks are as long as the texts ask for, and records that are longer lose the
  end of their longest text first (`data.shorten`).
  """

  # Upper bound of the byte-level BPE vocabulary that is trained here.
  vocab_size: Annotated[int, at_least(256)] = 4096
  # Greatest length of the candidate, the job and the alignment block, in tokens. 0: as the texts
  # of the train and validation splits ask for it, 99% of which fit, and all alignments that are
  # looked at; at most 512, 512 and 128. The log says what was chosen and how many texts are longer.
  candidate: Annotated[int, at_least(0)] = 0
  job: Annotated[int, at_least(0)] = 0
  alignment: Annotated[int, at_least(0)] = 0
  # What the alignment block consists of: 'words'; 'symbols' (+ - ?), a token each; 'vectors',
  # learned for each field's verdicts, in the readouts: no tokens, and `alignment` counts fields; or
  # 'none': it is empty.
  verdicts: Literal['words', 'symbols', 'vectors', 'none'] = 'words'
  # Of texts: 'schema', layer by layer; or 'raw', the published flat list of attributes, as an
  # ablation: it has no alignment block, so `verdicts` stays 'words' and `alignment` is not used.
  layout: Literal['schema', 'raw'] = 'schema'
  # Layers of the schema that the experts do not read, as an ablation: neither their verdicts nor
  # the attributes that no other layer uses. Rivals read them.
  without_layers: tuple[str, ...] = ()
  # Whether verdicts and margins join the scores as numbers, too, beside the text: a small decoder
  # reads the digits of an amount as pieces without an order. Never with layout 'raw'.
  numbers: bool = True
  # Leading components of tf-idf of a candidate's and of a job's tokens that are numbers of a pair,
  # too: a few words that matter are learned from few candidates, where a decoder would need many.
  # 0: none.
  components: Annotated[int, at_least(0)] = 64
  # A pretrained tokenizer's new tokens, at most: phrases that the training text repeats, each with
  # a learned embedding of its own that starts as the mean of its words'. 0: none.
  phrases: Annotated[int, at_least(0)] = 0

  def __post_init__(self):
    check(self)
    if self.layout == 'raw' and self.verdicts != 'words':
      raise ValueError("verdicts must be 'words' where layout is 'raw', which has no verdicts, "
                       f'got {self.verdicts!r}')

  @property
  def form(self) -> BlockFormat:
    empty = self.layout == 'raw' or self.verdicts == 'none'
    return BlockFormat(self.candidate, self.job, 0 if empty else self.alignment,
                       self.verdicts, self.layout, self.without_layers,
                       self.numbers and self.layout != 'raw')


@dataclasses.dataclass(frozen=True)
class BackboneSettings:
  """A pretrained decoder, or none."""

  # '': a decoder of the sizes of `model` and a tokenizer, both trained from scratch. Else a
  # pretrained one, frozen under LoRA: a .gguf file, a Hugging Face directory or a hub name.
  path: str = ''
  # Of frozen weights; 'int8' and 'nf4' are quantised (QLoRA).
  dtype: Literal['bfloat16', 'float32', 'int8', 'nf4'] = 'bfloat16'
  # Adapters that training starts from, of the rank and the targets of `lora`: a folder of PEFT's or
  # of export_weights. '': new ones. Readouts and heads are new ones in any case.
  adapter: str = ''

  def __post_init__(self):
    check(self)
    if self.adapter and not self.path:
      raise ValueError("adapter must be '' without the path of the decoder that it adapts, got "
                       f'{self.adapter!r}')


@dataclasses.dataclass(frozen=True)
class ModelSettings:
  """The decoder and its experts; the sizes are those of a decoder trained from scratch."""

  width: Annotated[int, at_least(1)] = 64  # D
  layers: Annotated[int, at_least(1)] = 2
  heads: Annotated[int, at_least(1)] = 4  # N, of queries
  kv_heads: Annotated[int, at_least(1)] = 2  # K, of keys and values (grouped-query attention)
  head_width: Annotated[int, at_least(2)] = 16  # H
  mlp_width: Annotated[int, at_least(1)] = 192  # F, of SwiGLU
  rope_base: Annotated[float, above(1)] = 10000.0  # of the rotary frequencies
  rms_epsilon: Annotated[float, above(0)] = 1e-5  # of RMSNorm
  dtype: Literal['float32', 'bfloat16'] = 'float32'  # of activations
  # Layers in one step of the layer loop: more is faster on CPU and compiles longer.
  unroll: Annotated[int, at_least(1)] = 2
  # What the backward pass computes again.
  remat: Literal['none', 'selective', 'full'] = 'none'
  # Whether a kernel made for the device reads lists, where there is one: on TPUs, NVIDIA's GPUs.
  fused: bool = True
  # Of lists: 'exact', or 'factored': entities are read alone, once.
  attention: Literal['exact', 'factored'] = 'exact'
  # Which state an expert's head reads: of a token of its own, or of one last token that all share.
  readout: Literal['expert_tokens', 'last_token'] = 'expert_tokens'
  head_widths: Annotated[tuple[int, ...], at_least(1)] = (512, 256)  # hidden, of an expert's head
  head_dropout: Annotated[float, within(0, 1, open_high=True)] = 0.1  # in the experts' heads
  # On the states that the heads read: without it a few hundred candidates are known by heart.
  readout_dropout: Annotated[float, within(0, 1, open_high=True)] = 0.3

  def __post_init__(self):
    check(self)
    if self.heads % self.kv_heads:
      raise ValueError(f'kv_heads must divide heads = {self.heads}, got {self.kv_heads}')
    if self.head_width % 2:
      raise ValueError(f'head_width must be even, got {self.head_width}')


@dataclasses.dataclass(frozen=True)
class ModelSpec:
  """What a model is made from: part of the settings of every stage that trains or reads it."""

  tokenizer: TokenizerSettings = TokenizerSettings()
  model: ModelSettings = ModelSettings()
  lora: LoraConfig = LoraConfig()
  dtype: Literal['bfloat16', 'float32', 'int8', 'nf4'] = 'bfloat16'  # of frozen weights
  pretrained: bool = False  # whether the decoder comes from a backbone
  numbers: int = 0  # that each pair has beside its tokens; the data's schema says how many
  matched: int = 0  # of them, the components of the words of either side


# Tables of embeddings have a multiple of so many rows: they divide among the devices of a tensor
# axis, and runs of other seeds, whose vocabularies differ by a few tokens, share compiled programs.
ROWS = 64
LENGTHS = 'lengths.json'  # of token blocks, and how many numbers; beside tokenizer.json


def with_lengths(spec: ModelSpec, folder: Path) -> ModelSpec:
  """The spec with the sizes of pairs that the tokenizer's stage found, kept in its folder."""
  found = read_object(folder / LENGTHS)
  counts = {name: found.pop(name) for name in ('numbers', 'matched')}
  return dataclasses.replace(spec, tokenizer=dataclasses.replace(spec.tokenizer, **found), **counts)


def open_backbone(spec: ModelSpec, place: str) -> Any:
  """The pretrained decoder at a place (`weights.backbone.Backbone`), opened and not loaded.

  Returns:
    None where the spec asks for none.

  Raises:
    ValueError: it is not there, or is no decoder that ours can be.
  """
  if not spec.pretrained:
    return None
  from jobrec_jax.weights import backbone  # here, for readers of weights take their time to import
  return backbone.open_backbone(place, spec.dtype, lora=spec.lora, **{
      name: getattr(spec.model, name) for name in ('dtype', 'unroll', 'remat', 'fused')})


def make_model(spec: ModelSpec, tokenizer: tokenizers.Tokenizer, backbone: Any) -> JobRec:
  """The experts' model; `backbone` as `open_backbone` gives it."""
  vocabulary = words = tokenizer.get_vocab_size()
  if spec.tokenizer.phrases:
    words = backbone.tokenizer().get_vocab_size()
  decoder = own_decoder(spec, vocabulary) if backbone is None else backbone.config
  return model_of(spec, decoder, words, vocabulary - words)


def own_decoder(spec: ModelSpec, vocabulary: int) -> DecoderConfig:
  """The decoder that is trained from scratch, for at least so many tokens."""
  sizes = {f.name for f in dataclasses.fields(DecoderConfig)}
  own = {f.name: getattr(spec.model, f.name) for f in dataclasses.fields(ModelSettings)}
  # Adapters that all share would say nothing that a decoder which learns cannot.
  lora = spec.lora if spec.lora.per_expert else None
  return DecoderConfig(vocab_size=_rows(vocabulary), lora=lora,
                       **{k: v for k, v in own.items() if k in sizes})


def model_of(spec: ModelSpec, decoder: DecoderConfig, words: int, phrases: int = 0) -> JobRec:
  """The experts' model over a decoder; `words` and at least `phrases` as in `JobRecConfig`."""
  form = spec.tokenizer.form
  names = 'head_widths', 'head_dropout', 'readout_dropout', 'attention', 'readout'
  return JobRec(JobRecConfig(
      decoder=decoder, experts=EXPERTS, job_start=form.candidate,
      pair_start=form.candidate + form.job, verdicts=form.codes, words=words,
      phrases=_rows(phrases), numbers=spec.numbers, matched=spec.matched,
      **{k: getattr(spec.model, k) for k in names}))


def _rows(tokens: int) -> int:
  return -(-tokens // ROWS) * ROWS
