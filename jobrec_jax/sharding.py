"""The mesh, and where each logical axis lies on it."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import math
from typing import Annotated, Any

import flax.linen as nn
import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from jobrec_jax.models.axes import AXES
from jobrec_jax.schema.settings import at_least, check

PyTree = Any
MESH_AXES = ('data', 'fsdp', 'tensor')

# Logical axis -> mesh axes. Lists are divided over data and fsdp, weights over fsdp and tensor.
# A product asks for what lies on tensor as it is, and gathers what lies on fsdp.
RULES = (
    ('batch', ('data', 'fsdp')),
    ('embed', 'fsdp'),
    ('heads', 'tensor'),
    ('kv_heads', 'tensor'),
    ('mlp', 'tensor'),
    ('vocab', 'tensor'),
    ('projected', ('tensor', 'fsdp')),
)
LENIENT = {'projected'}  # parameters whose axis does not divide are replicated along it


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Sizes of the mesh axes; -1 for `data` takes all devices that are left."""

  data: int = -1
  fsdp: Annotated[int, at_least(1)] = 1
  tensor: Annotated[int, at_least(1)] = 1

  def __post_init__(self):
    check(self)
    if self.data < 1 and self.data != -1:
      raise ValueError(f'data must be at least 1, or -1 for all devices left, got {self.data}')


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh over the given devices, or all.

  Raises:
    ValueError: the axes do not multiply to the number of devices.
  """
  count = jax.device_count() if devices is None else len(devices)
  inner = config.fsdp * config.tensor
  data = count // inner if config.data == -1 else config.data
  if data * inner != count:
    raise ValueError(f'mesh data={config.data}, fsdp={config.fsdp}, tensor={config.tensor} does '
                     f'not cover {count} devices')
  shape, names, types = (data, config.fsdp, config.tensor), MESH_AXES, (AxisType.Auto,) * 3
  try:
    return jax.make_mesh(shape, names, axis_types=types, devices=devices)
  except NotImplementedError:  # an axis is a part of one of the machine's, such as 4 of 16
    laid = mesh_utils.create_device_mesh(shape, devices or jax.devices(),
                                         allow_split_physical_axes=True)
    return Mesh(laid, names, axis_types=types)


def logical_rules() -> list[tuple[str, Any]]:
  """The rules as Linen wants them: every axis that models name, replicated unless listed.

  Each listed axis may also fall back to replicated, where an array's earlier axis has taken its
  place on the mesh (lists and width both claim fsdp).
  """
  return [*RULES, *((name, None) for name in sorted(AXES))]


@contextlib.contextmanager
def layout(mesh: Mesh) -> Iterator[None]:
  """The mesh and the rules in force for all that is traced inside."""
  with jax.set_mesh(mesh), nn.logical_axis_rules(logical_rules()):
    yield


def init_sharded(init: Callable[[], PyTree], mesh: Mesh) -> PyTree:
  """Runs a module's init so that each device only ever holds its shards.

  Args:
    init: returns boxed parameters (with logical axis names).
    mesh: the mesh.

  Returns:
    Unboxed parameters, laid out by `RULES`.

  Raises:
    ValueError: an axis of a parameter does not divide by the mesh axes it lies on.
  """
  return jax.jit(lambda: nn.unbox(init()), out_shardings=param_shardings(init, mesh))()


def param_shardings(init: Callable[[], PyTree], mesh: Mesh) -> PyTree:
  """Where the parameters that `init` would make lie by `RULES`; see `init_sharded`."""
  abstract = jax.eval_shape(init)
  shapes = nn.unbox(abstract)
  names = jax.tree.map(lambda spec, x: _lenient(spec, x.shape, mesh),
                       nn.get_partition_spec(abstract), shapes,
                       is_leaf=lambda x: isinstance(x, PartitionSpec))
  shardings = nn.logical_to_mesh_sharding(names, mesh, logical_rules())
  _check_divisible(shapes, shardings)
  return shardings


def _lenient(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  """A parameter's logical axes without those of `LENIENT` along which it does not divide."""
  rules = dict(RULES)
  return PartitionSpec(*(
      None if name in LENIENT and size % math.prod(mesh.shape[a] for a in rules[name]) else name
      for size, name in zip(shape, spec)))


def _check_divisible(shapes: PyTree, shardings: PyTree) -> None:
  def check(path, shape, sharding):
    for size, axes in zip(shape.shape, sharding.spec):
      axes = (axes,) if isinstance(axes, str) else axes or ()
      parts = int(np.prod([sharding.mesh.shape[a] for a in axes]))
      if size % parts:
        raise ValueError(f'parameter {jax.tree_util.keystr(path)} of shape {shape.shape} does not '
                         f'divide over mesh axes {axes} of size {parts}')
  jax.tree_util.tree_map_with_path(check, shapes, shardings)


def own_mesh(config: MeshConfig) -> Mesh:
  """The mesh for what one process computes alone: all of it, or the devices of this process.

  Among several processes the sizes, which are of all devices, cannot hold; lists are divided over
  this process's.
  """
  if jax.process_count() == 1:
    return make_mesh(config)
  return make_mesh(MeshConfig(), jax.local_devices())


def own_rows(mesh: Mesh, lists: int) -> np.ndarray | None:
  """[n] the rows of a batch of so many lists that this process's devices hold, in their order.

  Devices that tensor axes alone tell apart hold the same rows, in one process or in two; lists that
  do not divide lie on every device. None for all rows.
  """
  divided, _ = _over_lists(mesh)
  if divided.is_fully_addressable or not divides(mesh, lists):
    return None
  held = {range(lists)[rows] for rows, in
          divided.addressable_devices_indices_map((lists,)).values()}
  return np.concatenate([np.array(r) for r in sorted(held, key=lambda r: r.start)])


def divides(mesh: Mesh, lists: int) -> bool:
  """Whether each device can have a part of a batch of so many lists; else each has all of them."""
  return lists % (mesh.shape['data'] * mesh.shape['fsdp']) == 0


def shard_batch(batch: PyTree, mesh: Mesh, lists: PyTree = None) -> PyTree:
  """Host arrays -> global arrays divided over the lists.

  Lists that do not divide, as those of one kind in a batch of several may, lie on every device, and
  what is computed of them is divided where models name their axes.

  Args:
    batch: in every process all lists, or its `own_rows`.
    mesh: the mesh.
    lists: where they are own rows, how many lists there are in all, for parts of the batch.
  """
  divided, whole = _over_lists(mesh)

  def place(x: np.ndarray, count: int | None) -> jax.Array:
    shape = x.shape if count is None else (count, *x.shape[1:])
    return jax.make_array_from_process_local_data(
        divided if divides(mesh, shape[0]) else whole, x, shape)
  if lists is None:
    return jax.tree.map(lambda x: place(x, None), batch)
  return jax.tree.map(lambda count, part: jax.tree.map(lambda x: place(x, count), part), lists,
                      batch)


def laid_out(x: np.ndarray, sharding: jax.sharding.Sharding | None) -> jax.Array:
  """An array that every process holds whole -> a global array, of which each takes its part."""
  if sharding is None or sharding.is_fully_addressable:
    return jax.device_put(x, sharding)
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def on_host(tree: PyTree) -> PyTree:
  """Global arrays as whole NumPy arrays in every process; all call it together."""
  def fetch(x: jax.Array) -> np.ndarray:
    if not x.is_fully_addressable and not x.is_fully_replicated:
      everywhere = NamedSharding(x.sharding.mesh, PartitionSpec())
      x = jax.jit(lambda x: x, out_shardings=everywhere)(x)  # one at a time: it lies there whole
    return jax.device_get(x)
  return jax.tree.map(fetch, tree)


def _over_lists(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
  """Of lists that divide over the mesh, and of others."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp'))), NamedSharding(mesh, PartitionSpec())


def abstract_params(init: Callable[[], PyTree], mesh: Mesh) -> PyTree:
  """Shapes and types of `init_sharded`'s parameters, and where they lie; nothing is made."""
  return jax.tree.map(_lying, nn.unbox(jax.eval_shape(init)), param_shardings(init, mesh))


def abstract_batch(batch: PyTree, mesh: Mesh) -> PyTree:
  """Shapes and types of a global batch, and where `shard_batch` of one process would lay it."""
  divided, whole = _over_lists(mesh)
  return jax.tree.map(lambda x: _lying(x, divided if divides(mesh, x.shape[0]) else whole), batch)


def abstract_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
  """Shapes and types of what lies whole on each device."""
  return jax.tree.map(lambda x: _lying(x, _over_lists(mesh)[1]), tree)


def _lying(x: jax.ShapeDtypeStruct, where: NamedSharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)


def on_mesh(tree: PyTree, mesh: Mesh) -> PyTree:
  """Replicates the leaves that do not lie on the mesh yet, such as counters made on one device."""
  replicated = NamedSharding(mesh, PartitionSpec())

  def place(x: jax.Array) -> jax.Array:
    there = isinstance(x.sharding, NamedSharding) and x.sharding.mesh == mesh
    return x if there else laid_out(x, replicated)
  return jax.tree.map(place, tree)


def over_lists(f: Callable[[PyTree, PyTree], PyTree], mesh: Mesh) -> Callable[..., PyTree]:
  """f(whole, divided): a device gets the first argument and its part of the second's rows."""
  divided = PartitionSpec(('data', 'fsdp'))
  return jax.shard_map(f, mesh=mesh, in_specs=(PartitionSpec(), divided), out_specs=divided,
                       check_vma=False)
