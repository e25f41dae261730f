"""Prompt text: a candidate block, a job block, an alignment block, each rendered layer by layer.

No id of a person or a job enters the text: the model must generalise to those it never saw. What is
missing takes no room: neither an attribute without a value nor a layer without any.
"""

from jobrec_jax.schema.align import Alignment, fields_with_verdicts
from jobrec_jax.schema.schema import Attribute, Entity, Schema, Value
from jobrec_jax.schema.words import quoted

_IN_PROSE = ';"'  # what quotes a text: prose has commas


def is_missing(value: Value) -> bool:
  """Whether there is nothing to render: no value, or a blank one. An empty set says 'none'."""
  return value is None or (isinstance(value, str) and not value.strip())


def _value(value: Value) -> str:
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, float):
    return f'{value:g}'
  if isinstance(value, tuple):
    return ', '.join(map(quoted, value)) or 'none'
  return quoted(str(value))


def _attribute(attribute: Attribute, value: Value) -> str:
  """'gpa 3.4'; text speaks for itself."""
  if attribute.kind == 'text':
    return quoted(value, _IN_PROSE)
  return f'{attribute.label} {_value(value)}'


def _layered(schema: Schema, side: str) -> list[tuple[str, list[Attribute]]]:
  """The rendered attributes of a side under the first layer that uses them, then the rest."""
  left = {a.name: a for a in schema.attributes(side) if a.rendered}
  layered = []
  for layer in schema.layers:
    used = [name for f in layer.fields for name in f.attributes(side)]
    layered.append((layer.name, [left.pop(name) for name in used if name in left]))
  layered.append(('other', list(left.values())))
  return layered


LAYOUTS = ('schema', 'raw')


def rendered_attributes(schema: Schema, side: str, layout: str = 'schema') -> list[Attribute]:
  """The attributes of a side that its block shows, in the block's order."""
  if layout == 'raw':
    return [a for a in schema.attributes(side) if a.rendered]
  return [a for _, attributes in _layered(schema, side) for a in attributes]


def render_entity(schema: Schema, side: str, entity: Entity, layout: str = 'schema') -> str:
  """The candidate or the job block: 'candidate; eligibility: gpa 3.4, ...; competence: ...'.

  As 'raw', the flat list of the side's attributes in their own order, as in the published code:
  'candidate; gpa 3.4, ...'. Such a prompt knows no layers, and has no alignment block either.
  """
  layers = ([('', rendered_attributes(schema, side, layout))] if layout == 'raw' else
            _layered(schema, side))
  said = [side]
  for name, attributes in layers:
    shown = [_attribute(a, value) for a in attributes if not is_missing(value := entity[a.name])]
    if shown:
      said.append((f'{name}: ' if name else '') + ', '.join(shown))
  return '; '.join(said)


VERDICTS = ('words', 'symbols')
SYMBOLS = {'met': ' +', 'unmet': ' -', 'unknown': ' ?'}


def render_alignment(alignment: Alignment, verdicts: str = 'words') -> str:
  """The alignment block: each layer's verdicts in words; layers of text alone are left out.

  As 'symbols', ' +', ' -' or ' ?' for each field with a verdict, in the schema's order: a token
  each, for attention that pays for this block alone. Margins are then left to the texts. What is
  unknown is said here, for it may be missing on either side.
  """
  if verdicts == 'symbols':
    return ''.join(SYMBOLS[f.verdict] for f in alignment.fields() if f.verdict)
  layers = [f'{l.layer.name}: ' + ', '.join(l.reasons()) for l in alignment.layers if l.reasons()]
  return 'alignment; ' + '; '.join(layers)


def alignment_frame(schema: Schema, verdicts: str = 'words') -> list[tuple[str, str]]:
  """What stands before and after the verdict of each field that has one, in the schema's order.

  The texts of `render_alignment` are, field by field, what is before, the field's
  `FieldAlignment.in_words()` or symbol, and what is after. A schema of free text alone has none.
  """
  judged = fields_with_verdicts(schema)
  if verdicts == 'symbols':
    return [('', '')] * len(judged)
  layers = [(layer.name, len([f for f in layer.fields if f in judged])) for layer in schema.layers]
  frame = []
  for name, fields in layers:
    frame += [(f' {name}: ' if i == 0 else ' ', ';' if i == fields - 1 else ',')
              for i in range(fields)]
  if frame:
    frame[0] = f'alignment;{frame[0][0]}', frame[0][1]
    frame[-1] = frame[-1][0], ''
  return frame
