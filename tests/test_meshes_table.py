"""benchmarks/RESULTS.md shows the kept meshes, and what is said of them holds of every row."""

from benchmarks import meshes
from jobrec_jax.schema.files import read_json


def test_the_table_is_of_the_kept_rows():
  page = meshes.PAGE.read_text()
  assert meshes.render(page, read_json(meshes.RESULTS)) == page


def test_every_mesh_gives_what_one_device_gives():
  rows = read_json(meshes.RESULTS)
  assert {meshes.Layout(r['processes'], r['devices'], tuple(r['mesh'])) for r in rows} == set(
      meshes.LAYOUTS)
  for row in rows:
    assert row['same_rows'] and row['same_steps']
    assert row['greatest_of_losses'] <= 1e-5 and row['greatest_difference'] <= 1e-4
