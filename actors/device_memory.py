"""Frees the device memory of a process that other processes need, and gets it back; the tensors in it stay valid.

DeepSpeed's `offload_states` does the same for its own tensors, but not at stage 0, and at stage 3 only with its FusedAdam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, UntypedStorage

from actors.distributed.devices import device

Resident = Literal["nothing", "weights", "all"]
"""What a process holds on its device, in this order: nothing, what a forward pass needs, or all that an update needs."""
ORDER: tuple[Resident, ...] = ("nothing", "weights", "all")

_PIECE = 2**30
"""Bytes of a host buffer. torch rounds the size of pinned memory up to a power of two, so a large one is in pieces."""


class DeviceMemory:
    """The device memory of a process's model: its weights, and the rest, such as gradients and optimizer state.

    A tensor's storage is copied to the host and freed, and later allocated and filled again, while the tensor and its
    views stay as they are. Storages that cannot be resized, such as those of memory-mapped files, stay where they are.

    On CPUs, everything happens as on GPUs, but no memory is gained.

    Args:
        weights: yields the tensors of a forward pass.
        rest: yields the other tensors, and possibly some of `weights` again.
    """

    def __init__(
        self, weights: Callable[[], Iterable[Tensor]], rest: Callable[[], Iterable[Tensor]] = lambda: ()
    ) -> None:
        self._weights, self._rest = weights, rest
        self._away: dict[str, list[tuple[UntypedStorage, list[Tensor]]]] = {"weights": [], "rest": []}
        self.resident: Resident = "all"

    def hold(self, resident: Resident) -> None:
        """Frees or restores memory, so that the device holds `resident`."""
        if resident == "all":
            self._restore("weights")
            self._restore("rest")
        else:
            self._free(resident)
        self.resident = resident

    def require(self, resident: Resident) -> None:
        """Requires that the device holds `resident` at least; a computation would otherwise read freed memory.

        Raises:
            RuntimeError: it holds less.
        """
        if ORDER.index(self.resident) < ORDER.index(resident):
            raise RuntimeError(
                f"the device must hold {resident}, but holds {self.resident}: call hold({resident!r}) first"
            )

    def _free(self, but: str) -> None:
        weights = _storages(self._weights())
        rest = {address: storage for address, storage in _storages(self._rest()).items() if address not in weights}
        self._leave("rest", rest.values())
        if but == "nothing":
            self._leave("weights", weights.values())
        else:
            self._restore("weights")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _leave(self, part: str, storages: Iterable[UntypedStorage]) -> None:
        _synchronize()  # other streams may still write, such as DeepSpeed's
        left = [(storage, [_on_host(piece) for piece in _pieces(storage)]) for storage in storages]
        _synchronize()
        for storage, _ in left:
            storage.resize_(0)
        self._away[part] += left

    def _restore(self, part: str) -> None:
        for storage, pieces in self._away[part]:
            storage.resize_(sum(map(len, pieces)))
            for target, piece in zip(_pieces(storage), pieces, strict=True):
                target.copy_(piece, non_blocking=True)
        _synchronize()
        self._away[part] = []


def tensors_in(item: Any) -> Iterator[Tensor]:
    """Yields all tensors that containers and objects of torch and DeepSpeed hold, and their gradients.

    Args:
        item: where to begin, such as an optimizer.
    """
    seen: dict[int, Any] = {}  # keeps the items, so that no id is used twice
    to_see = [item]
    while to_see:
        item = to_see.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item
        if isinstance(item, Tensor):
            yield item
            to_see += [item.grad, *vars(item).values()] if item.is_leaf else vars(item).values()
        elif isinstance(item, Mapping):
            to_see += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            to_see += item
        elif type(item).__module__.partition(".")[0] in ("deepspeed", "torch") and hasattr(item, "__dict__"):
            to_see += vars(item).values()


def module_tensors(module: torch.nn.Module) -> Iterator[Tensor]:
    """Yields a module's parameters, or under ZeRO-3 this rank's shards of them, and its buffers."""
    for parameter in module.parameters():
        yield parameter.data
        if hasattr(parameter, "ds_tensor"):
            yield parameter.ds_tensor
    yield from module.buffers()


def _storages(tensors: Iterable[Tensor]) -> dict[int, UntypedStorage]:
    """Returns the storages on the process's device that can be freed, by address."""
    kind = device().type
    storages = (tensor.untyped_storage() for tensor in tensors if tensor.device.type == kind)
    return {storage.data_ptr(): storage for storage in storages if storage.nbytes() and storage.resizable()}


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _on_host(piece: Tensor) -> Tensor:
    # torch keeps freed pinned memory, whose allocation is slow, for the next copy of this size.
    host = torch.empty(len(piece), dtype=torch.uint8, pin_memory=piece.is_cuda)
    return host.copy_(piece, non_blocking=True)


def _pieces(storage: UntypedStorage) -> tuple[Tensor, ...]:
    """Returns the bytes of a storage, in pieces of at most `_PIECE`."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage).split(_PIECE)
