"""The first NVIDIA GPU, through its driver's own library: what it is, and memory on it.

The library `libcuda.so.1` comes with every driver, a Jetson's included, and its functions keep their form. The CUDA
runtime library would have to be found in one of many versions and places, and torch is no part of a Jetson's system.
Source: CUDA Driver API, https://docs.nvidia.com/cuda/cuda-driver-api.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Array
from .errors import JobError

LIBRARY = "libcuda.so.1"
# CUdevice_attribute.
_MAJOR, _MINOR = 75, 76
_INSTALL = "as root: apt-get install nvidia-driver; or give the container the GPUs: docker run --gpus all"


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, `major.minor` of its compute capability, and the CUDA version that its driver serves."""

    name: str
    compute_capability: str
    driver_cuda: str

    def __str__(self) -> str:
        """All of it on one line."""
        return f"{self.name}, compute capability {self.compute_capability}, driver for CUDA {self.driver_cuda}"


class Driver:
    """The driver with the first GPU's context current; one a process.

    Raises:
        JobError: If there is no driver, or no GPU that it can use.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._library: Any = ctypes.CDLL(library)
        except OSError as error:
            raise JobError(f"no NVIDIA GPU here: there is no driver ({library} is missing)", _INSTALL) from error
        self._do("cuInit", 0)
        count = ctypes.c_int()
        self._do("cuDeviceGetCount", ctypes.byref(count))
        if not count.value:
            raise JobError("no NVIDIA GPU here: the driver lists none", _INSTALL)
        self._device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self._do("cuDeviceGet", ctypes.byref(self._device), 0)

    @property
    def gpu(self) -> Gpu:
        """What the GPU is."""
        name, version = ctypes.create_string_buffer(256), ctypes.c_int()
        self._do("cuDeviceGetName", name, len(name), self._device)
        self._do("cuDriverGetVersion", ctypes.byref(version))
        major, minor = (self._attribute(number) for number in (_MAJOR, _MINOR))
        cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return Gpu(name.value.decode(errors="replace"), f"{major}.{minor}", cuda)

    def start(self) -> None:
        """Makes the GPU's primary context, which every other library uses as well, that of this thread."""
        if not self._context:
            self._do("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self._do("cuCtxSetCurrent", self._context)

    def stream(self) -> int:
        """Returns a new stream, which waits for no other."""
        made = ctypes.c_void_p()
        self._do("cuStreamCreate", ctypes.byref(made), 1)
        return made.value or 0

    def wait(self, stream: int) -> None:
        """Returns when all that was put on a stream is done."""
        self._do("cuStreamSynchronize", ctypes.c_void_p(stream))

    def allocate(self, size_bytes: int) -> int:
        """Returns the address of new memory on the GPU."""
        address = ctypes.c_uint64()
        self._do("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, size_bytes)))
        return address.value

    def free(self, address: int) -> None:
        """Frees memory on the GPU."""
        self._do("cuMemFree_v2", ctypes.c_uint64(address))

    def pinned(self, shape: tuple[int, ...], dtype: str) -> tuple[Array, int]:
        """Returns an array in memory that the GPU copies from and to without a detour, and its address for `unpin`."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        address = ctypes.c_void_p()
        self._do("cuMemAllocHost_v2", ctypes.byref(address), ctypes.c_size_t(max(1, count * kind.itemsize)))
        held: Any = (ctypes.c_byte * max(1, count * kind.itemsize)).from_address(address.value or 0)
        return np.frombuffer(held, kind, count).reshape(shape), address.value or 0

    def unpin(self, address: int) -> None:
        """Frees memory of `pinned`; its array must not be used any more."""
        self._do("cuMemFreeHost", ctypes.c_void_p(address))

    def to_gpu(self, address: int, array: Array, stream: int) -> None:
        """Puts a copy of a contiguous array to the GPU on a stream."""
        source = ctypes.c_void_p(array.ctypes.data)
        self._do(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_uint64(address),
            source,
            ctypes.c_size_t(array.nbytes),
            ctypes.c_void_p(stream),
        )

    def from_gpu(self, array: Array, address: int, stream: int) -> None:
        """Puts a copy from the GPU into a contiguous array on a stream."""
        target = ctypes.c_void_p(array.ctypes.data)
        self._do(
            "cuMemcpyDtoHAsync_v2",
            target,
            ctypes.c_uint64(address),
            ctypes.c_size_t(array.nbytes),
            ctypes.c_void_p(stream),
        )

    def _attribute(self, number: int) -> int:
        found = ctypes.c_int()
        self._do("cuDeviceGetAttribute", ctypes.byref(found), number, self._device)
        return found.value

    def _do(self, function: str, *arguments: Any) -> None:
        code = getattr(self._library, function)(*arguments)
        if code == 0:
            return
        said = ctypes.c_char_p()
        self._library.cuGetErrorString(code, ctypes.byref(said))
        text = (said.value or b"unknown error").decode(errors="replace")
        where = (
            "no NVIDIA GPU here: the driver says"
            if function == "cuInit"
            else f"the NVIDIA driver failed in {function}:"
        )
        raise JobError(f"{where} {text} (CUDA error {code})", _INSTALL if function == "cuInit" else "see: nvidia-smi")


def first_gpu() -> Gpu:
    """Returns the first GPU.

    Raises:
        JobError: If there is no driver, or no GPU that it can use.
    """
    return Driver().gpu
