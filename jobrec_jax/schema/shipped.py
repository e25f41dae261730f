"""The schemas that come with the project: students.toml, of the JobRec paper, and nursing.toml."""

from importlib import resources
import tomllib

from jobrec_jax.schema.document import parse_schema
from jobrec_jax.schema.schema import Schema


def _read(name: str) -> Schema:
  text = resources.files('jobrec_jax.schema').joinpath(name).read_text('utf-8')
  return parse_schema(tomllib.loads(text), name)


STUDENTS = _read('students.toml')
NURSING = _read('nursing.toml')
