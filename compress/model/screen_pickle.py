"""Pickles inside torch zip files, judged by running their opcodes on stand-ins: nothing is imported, nothing is called.

Taken are the opcodes and names that `torch.save` writes for tensors in plain containers, the ones that torch's own
restricted reader (`torch.load(weights_only=True)`) takes too. Source: Python's `pickletools` and torch's
`_weights_only_unpickler.py`.
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Callable

from compress.model.screen_archive import Archive
from compress.model.screen_refusal import Refusal, damaged, shown

MAX_PICKLE_BYTES = 256 << 20
_UNREADABLE = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error)
TO_STATE_DICT = (
    "where the file was made and is trusted, load it with model = torch.load('old.pth', weights_only=False) and save "
    "the tensors alone: torch.save(model.state_dict(), 'weights.pth'), or "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
)
_STORAGES_BY_BYTES = {
    1: ("torch.ByteStorage", "torch.CharStorage", "torch.BoolStorage", "torch.storage.UntypedStorage"),
    2: ("torch.ShortStorage", "torch.HalfStorage", "torch.BFloat16Storage"),
    4: ("torch.IntStorage", "torch.FloatStorage"),
    8: ("torch.LongStorage", "torch.DoubleStorage", "torch.ComplexFloatStorage"),
    16: ("torch.ComplexDoubleStorage",),
}
_STORAGE_BYTES = {name: size_bytes for size_bytes, names in _STORAGES_BY_BYTES.items() for name in names}
_REBUILDS = {f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "parameter")}
_WITH_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2"
_CONTAINERS = {"collections.OrderedDict", "builtins.set", "__builtin__.set"}
_CALLED = _REBUILDS | _CONTAINERS | {_WITH_ATTRIBUTES, "torch.Size", "torch.device"}
_CLASSES = {"torch.Tensor", "torch.nn.parameter.Parameter"}
_DTYPE = re.compile(
    r"torch\.(?:u?int(?:8|16|32|64)|b?float(?:16|32|64)|complex(?:32|64|128)|float8_[a-z0-9]{4,12}|bool)"
)
_PLAIN = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE"} | {
    "BINUNICODE",
    "SHORT_BINSTRING",
}
_MEMBERS = re.compile(
    r"data\.pkl|version|byteorder|\.data/(?:version|serialization_id)|\.format_version|\.storage_alignment|data/\d{1,10}"
)


class _Name:
    """A function, class or type that the pickle names."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Mark:
    """Where the items of a container start on the stack."""


class _Container:
    """A list, dict or set that the pickle fills. What is in it does not matter here."""


class _Result:
    """What a call, or a lookup of a storage, would return."""


def check_torch_zip(archive: Archive) -> None:
    """Checks a file of `torch.save`: its members, its pickle, and that storages are not longer than what is stored.

    Raises:
        Refusal: It holds a TorchScript program or a pickle that would run code, or claims more than it holds.
    """
    if archive.size_bytes("constants.pkl") is not None:
        raise Refusal("it is a TorchScript program, which carries code of its own.", TO_STATE_DICT)
    if archive.size_bytes("data.pkl") is None:
        raise damaged("it is a zip archive, but not one of torch.save.", TO_STATE_DICT)
    for name in archive.names:
        if not _MEMBERS.fullmatch(name):
            raise Refusal("torch.save does not write such a member.", TO_STATE_DICT).inside(name)
    data = archive.read("data.pkl", MAX_PICKLE_BYTES)
    machine = _Machine(lambda key: archive.size_bytes(f"data/{key}"))
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.step(opcode.name, argument)
    except Refusal as refusal:
        raise refusal.inside("data.pkl") from None
    except _UNREADABLE as error:
        raise damaged(f"its pickle cannot be read ({shown(str(error))}).").inside("data.pkl") from error


class _Machine:
    """The stack of a pickle reader, holding stand-ins.

    Args:
        stored_bytes: Returns how many bytes a storage's member holds, or None where it is missing.
    """

    def __init__(self, stored_bytes: Callable[[str], int | None]) -> None:
        self.stack: list[object] = []
        self.memo: dict[object, object] = {}
        self.stored_bytes = stored_bytes

    def step(self, opcode: str, argument: object) -> None:
        """Runs one instruction."""
        stack = self.stack
        match opcode:
            case "PROTO" | "STOP":
                pass
            case "MARK":
                stack.append(_Mark())
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append(_Container())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._tuple(int(opcode[-1]))
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "APPEND" | "SETITEM":
                del stack[-1 if opcode == "APPEND" else -2 :]
                self._expect_container()
            case "APPENDS" | "SETITEMS":
                self._since_mark()
                self._expect_container()
            case "BUILD":
                stack.pop()
                self._expect_container()
            case "GLOBAL":
                stack.append(_named(str(argument)))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                self._call()
            case _ if opcode in _PLAIN:
                stack.append(argument)
            case _:
                raise Refusal(f"refused: tensors do not need the pickle instruction {opcode}.", TO_STATE_DICT)

    def _tuple(self, length: int) -> None:
        if len(self.stack) < length:
            raise IndexError("the stack is empty")
        self.stack[-length:] = [tuple(self.stack[-length:])]

    def _since_mark(self) -> list[object]:
        for position in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[position], _Mark):
                items = self.stack[position + 1 :]
                del self.stack[position:]
                return items
        raise ValueError("a mark is missing")

    def _expect_container(self) -> None:
        if not isinstance(self.stack[-1], _Container):
            raise Refusal("refused: the pickle changes an object that is no plain container.", TO_STATE_DICT)

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise Refusal("refused: the pickle calls what it computed, which may be any function.", TO_STATE_DICT)
        if function.name not in _CALLED:
            raise _would_run(function.name)
        if function.name == _WITH_ATTRIBUTES:
            _check_attributes(arguments)
        self.stack.append(_Container() if function.name in _CONTAINERS else _Result())

    def _storage(self, key: object) -> _Result:
        match key:
            case ("storage", _Name(name=kind), str(member), str(), int(elements)) if kind in _STORAGE_BYTES:
                claimed, held = elements * _STORAGE_BYTES[kind], self.stored_bytes(member)
            case _:
                raise Refusal("refused: the pickle refers to something that is no stored tensor.", TO_STATE_DICT)
        if held is None:
            raise damaged(f"the tensor data {shown(member)} is missing.")
        if elements < 0 or claimed > held:
            raise Refusal(f"a tensor claims {claimed} bytes of data/{member}, which holds {held}.")
        return _Result()


def _check_attributes(arguments: tuple[object, ...]) -> None:
    """Checks a tensor with attributes: torch calls the first argument with the third, then sets the fourth on it."""
    match arguments:
        case (_Name(name=made_by), _Name(name=kind), tuple(), _Container()):
            if made_by in _REBUILDS and kind in _CLASSES:
                return
    raise Refusal("refused: the pickle calls what it computed, which may be any function.", TO_STATE_DICT)


def _named(argument: str) -> _Name:
    """Returns the stand-in for `module name`, as the disassembler writes it."""
    name = argument.replace(" ", ".", 1)
    if name not in _CALLED | _CLASSES | _STORAGE_BYTES.keys() and not _DTYPE.fullmatch(name):
        raise _would_run(name)
    return _Name(name)


def _would_run(name: str) -> Refusal:
    return Refusal(f"refused: it is a pickle that would run code: {shown(name)[1:-1]}", TO_STATE_DICT)
