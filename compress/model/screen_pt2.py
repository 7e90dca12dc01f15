"""A `.pt2` archive as a whole: which members it may have, and which check reads which of them.

The reader of torch runs code from an archive by many routes (`torch.export.load`, torch 2.13):

1. `data/weights`, `data/constants`: an entry with `use_pickle`, and the legacy `<model>.pt`, is unpickled, no limits.
2. `data/constants/opaque_obj_*`, `custom_obj_*`: unpickled.
3. `data/sample_inputs`: where the restricted unpickler fails, the unlimited one follows; a TorchScript zip is run.
4. `data/aotinductor`: shared libraries, loaded into the process.
5. `models/*.json`, symbolic expressions: `sympy.sympify`, which is `eval`.
6. names of nodes, arguments, submodules: pasted into Python source, which is executed while loading; names of
   parameters, of keyword inputs and of `forward`'s arguments, constant strings and guards likewise when the module is
   built.
7. operators: any function below `torch`, `math`, `operator` is resolved by name (torch's verifier refuses most of them
   later); `aten.save` and `aten.from_file` write files when the model runs.
8. trees of containers: an enum or a `defaultdict` imports a module by name.

A file of the older layout (`serialized_*.pt` beside `version`) is unpickled, too; it is not taken.
"""

from __future__ import annotations

import io
import re

from compress.model import screen_schema as s
from compress.model.screen_archive import Archive
from compress.model.screen_payload import check_payloads
from compress.model.screen_pickle import check_torch_zip
from compress.model.screen_program import check_program
from compress.model.screen_refusal import EXPORT_AGAIN, Refusal, damaged, shown

PROGRAM = "models/model.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
MAX_JSON_BYTES = 256 << 20
MAX_SAMPLE_INPUTS_BYTES = 1 << 30
MAX_EXTRA_BYTES = 16 << 20
_PAYLOADS = (
    ("data/weights/model_weights_config.json", "data/weights/", "weight_"),
    ("data/constants/model_constants_config.json", "data/constants/", "tensor_"),
)
_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(?:version|serialization_id)|\.format_version|\.storage_alignment"
    r"|models/model\.json|data/weights/(?:model_weights_config\.json|weight_\d{1,7})"
    r"|data/constants/(?:model_constants_config\.json|tensor_\d{1,7})|data/sample_inputs/model\.pt|extra/.+"
)
_RUNS = (
    ("data/aotinductor/", "it is machine code, which runs when the file is loaded."),
    ("data/constants/", "it is a pickled object, which runs code when it is loaded."),
    ("data/weights/", "it is a pickle of the older layout, which runs code when it is loaded."),
    ("models/", "the archive holds a program under another name than 'model'."),
    ("", "torch.export.save does not write such a member."),
)


def check_pt2(archive: Archive, max_bytes: int) -> None:
    """Checks every member of an archive.

    Raises:
        Refusal: It would run code, claims more than it holds, or is not an archive that torch.export.load reads.
    """
    _check_format(archive)
    for name in archive.names:
        if not _MEMBERS.fullmatch(name):
            raise Refusal(next(reason for start, reason in _RUNS if name.startswith(start))).inside(name)
        if name.startswith("extra/"):
            _check_extra(archive, name)
    for config, folder, prefix in _PAYLOADS:
        table = archive.read(config, MAX_JSON_BYTES)
        try:
            check_payloads(s.parse_json(table), archive, folder, prefix, max_bytes)
        except Refusal as refusal:
            raise refusal.inside(config) from None
    program = archive.read(PROGRAM, MAX_JSON_BYTES)
    try:
        check_program(program)
    except Refusal as refusal:
        raise refusal.inside(PROGRAM) from None
    _check_sample_inputs(archive.read(SAMPLE_INPUTS, MAX_SAMPLE_INPUTS_BYTES))


def _check_format(archive: Archive) -> None:
    if archive.size_bytes("archive_format") is None:
        raise damaged("it is a zip archive, but not one of torch.export.save.", EXPORT_AGAIN)
    for name, wanted in (("archive_format", b"pt2"), ("archive_version", b"0")):
        content = archive.read(name, 64)
        if content != wanted:
            raise damaged(f"it says {shown(content)}; only {shown(wanted)} is read.", EXPORT_AGAIN).inside(name)
    if archive.size_bytes(".data/version") is None:
        raise damaged("the member '.data/version' is missing.")


def _check_extra(archive: Archive, name: str) -> None:
    try:
        archive.read(name, MAX_EXTRA_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged("an extra file must be text.", "save it without extra_files.").inside(name) from error


def _check_sample_inputs(data: bytes) -> None:
    """Checks the example inputs, which are a file of torch.save inside the archive, or nothing."""
    if not data:
        return
    try:
        if not data.startswith(b"PK"):
            raise Refusal("it is a bare pickle or no file of torch.save, and torch would unpickle it.")
        with Archive(io.BytesIO(data), len(data), MAX_SAMPLE_INPUTS_BYTES) as archive:
            check_torch_zip(archive)
    except Refusal as refusal:
        refusal.hint = "drop the example inputs before saving: program.example_inputs = None."
        raise refusal.inside(SAMPLE_INPUTS) from None
