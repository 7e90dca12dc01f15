"""Packages fetched and unpacked, with stand-ins for apt; packages are real archives that the tests make."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from stand_in_qemu import write_program

from compress.errors import CompressError
from compress.hosts.debian import Apt, Package, check_file, link_merged, machine_settings, parse_uris, unpack

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")

DUMP = """\
APT "";
APT::Architecture "amd64";
APT::Architectures "";
APT::Architectures:: "amd64";
APT::Update "";
APT::Update::Post-Invoke-Success "";
APT::Update::Post-Invoke-Success:: "/usr/bin/touch /var/lib/somewhere";
DPkg::Pre-Invoke:: "mount -o remount,rw /usr";
Acquire::http::Proxy "http://proxy.example:3128";
Dir "/";
Dir::State "var/lib/apt";
Dir::State::lists "lists/";
Dir::Cache::archives "archives/";
Dir::Etc "etc/apt";
Dir::Etc::trusted "trusted.gpg";
Dir::Etc::sourcelist "sources.list";
"""


def package(folder: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    """Writes a package: an `ar` archive of a version, an empty control archive and the data archive."""

    def packed(items: tuple[tarfile.TarInfo | tuple[str, bytes], ...]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for item in items:
                if isinstance(item, tarfile.TarInfo):
                    archive.addfile(item)
                    continue
                info = tarfile.TarInfo(item[0])
                info.size, info.mode = len(item[1]), 0o755
                archive.addfile(info, io.BytesIO(item[1]))
        return buffer.getvalue()

    control = packed((("./control", b"Package: x\nVersion: 1\nArchitecture: arm64\nMaintainer: x\nDescription: x\n"),))
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": control, "data.tar.gz": packed(members)}
    path = folder / "libx_1_arm64.deb"
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, data in parts.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
            file.write(data + b"\n" * (len(data) % 2))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o755
    return info


@needs_dpkg
def test_what_python_needs_is_unpacked_and_merged_into_usr(tmp_path: Path) -> None:
    unpack(
        package(
            tmp_path,
            ("./lib/aarch64-linux-gnu/libc.so.6", b"c"),
            ("./usr/lib/libx.so.1", b"x"),
            link("./usr/lib/libx.so", "libx.so.1"),
            link("./usr/lib/libabsolute.so", "/lib/aarch64-linux-gnu/libc.so.6"),
            link("./usr/bin/hard", "./usr/lib/libx.so.1", tarfile.LNKTYPE),
            ("./usr/share/doc/x/copyright", b"text"),
            ("./etc/x.conf", b"settings"),
        ),
        tmp_path / "root",
    )
    root = tmp_path / "root"
    there = sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
    assert there == [
        "usr/bin/hard",
        "usr/lib/aarch64-linux-gnu/libc.so.6",
        "usr/lib/libabsolute.so",
        "usr/lib/libx.so",
        "usr/lib/libx.so.1",
    ]
    assert (root / "usr/lib/libabsolute.so").read_bytes() == b"c"
    assert os.readlink(root / "usr/lib/libabsolute.so") == "aarch64-linux-gnu/libc.so.6"
    assert (root / "usr/lib/libx.so").read_bytes() == b"x"
    assert os.access(root / "usr/bin/hard", os.X_OK)
    link_merged(root)
    link_merged(root)
    assert (root / "lib/aarch64-linux-gnu/libc.so.6").read_bytes() == b"c"
    assert not (root / "sbin").is_symlink()


@needs_dpkg
def test_nothing_lands_outside(tmp_path: Path) -> None:
    unpack(
        package(
            tmp_path,
            ("./usr/lib/../../../escaped", b"x"),
            ("/usr/lib/absolute", b"x"),
            link("./usr/lib/up", "../../../../../../etc/passwd"),
        ),
        tmp_path / "root",
    )
    assert not (tmp_path / "escaped").exists()
    assert (tmp_path / "root/usr/lib/absolute").read_bytes() == b"x"
    target = (tmp_path / "root/usr/lib/up").resolve()
    assert target == (tmp_path / "root/etc/passwd").resolve()


@needs_dpkg
@pytest.mark.parametrize("content", [b"", b"!<arch>\nnonsense", b"PK\x03\x04"])
def test_what_is_no_package_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.deb"
    path.write_bytes(content)
    with pytest.raises(CompressError, match=r"broken\.deb: "):
        unpack(path, tmp_path / "root")


def test_settings_of_the_machine_are_kept_but_not_its_hooks_and_folders() -> None:
    kept = list(machine_settings(DUMP))
    assert 'Acquire::http::Proxy "http://proxy.example:3128";' in kept
    assert 'Dir::Etc::trusted "trusted.gpg";' in kept
    assert 'APT::Update "";' in kept
    assert not [line for line in kept if "Invoke" in line or "Architecture" in line]
    assert not [line for line in kept if line.startswith(("Dir ", "Dir::State", "Dir::Cache"))]


def test_the_index_s_word_on_each_file_is_read() -> None:
    text = (
        "'http://mirror/pool/main/g/glibc/libc6_2.36-9%2bdeb12u10_arm64.deb' libc6_2.36-9+deb12u10_arm64.deb 2320220 "
        f"SHA256:{'ab' * 32}\nReading package lists...\n"
    )
    (found,) = parse_uris(text)
    assert found == Package(
        "libc6_2.36-9+deb12u10_arm64.deb",
        "http://mirror/pool/main/g/glibc/libc6_2.36-9%2bdeb12u10_arm64.deb",
        2320220,
        "ab" * 32,
    )


def test_a_file_that_differs_is_removed_and_named(tmp_path: Path) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(b"right")
    said = hashlib.sha256(b"right").hexdigest()
    check_file(path, said)
    path.write_bytes(b"wrong")
    with pytest.raises(CompressError, match=r"x\.deb: its sha256 is .* the index says") as error:
        check_file(path, said)
    assert "again" in error.value.hint
    assert not path.exists()
    with pytest.raises(CompressError, match="was not fetched"):
        check_file(path, said)


APT_GET = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
  *" update") {update} ;;
  *--print-uris*Dir::Cache::archives=*/nothing*) echo "'http://mirror/libx.deb' libx_1_arm64.deb 5 SHA256:{sha}" ;;
  *--download-only*) [ -e {archives}/libx_1_arm64.deb ] || printf %s {content} > {archives}/libx_1_arm64.deb ;;
esac
"""


def stand_in_apt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: str = ":", content: str = "right"
) -> tuple[Apt, Path]:
    """apt in the form of two scripts, and the file in which they note what was asked."""
    tools, log = tmp_path / "tools", tmp_path / "apt.log"
    apt = Apt(tmp_path / "downloads", "aarch64")
    sha = hashlib.sha256(b"right").hexdigest()
    values = {"log": log, "update": update, "sha": sha, "content": content, "archives": apt.files}
    write_program(tools / "apt-get", APT_GET.format(**values))
    write_program(tools / "apt-config", f"#!/bin/sh\nwhile read -r line; do echo \"$line\"; done <<'END'\n{DUMP}END\n")
    write_program(tools / "dpkg-deb", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tools))
    return apt, log


def test_packages_are_fetched_with_a_state_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt, log = stand_in_apt(tmp_path, monkeypatch)
    (found,) = apt.fetch(["libx"])
    assert (apt.files / found.file).read_bytes() == b"right"
    asked = log.read_text().splitlines()
    assert asked[0].endswith("update")
    assert "--print-uris" in asked[1] and asked[1].endswith("--yes --no-install-recommends install libx")
    assert asked[2].endswith("--download-only --yes --no-install-recommends install libx")
    settings = (apt.files.parent / "apt.conf").read_text().splitlines()
    assert settings[-1] == 'Acquire::Languages "none";'
    assert 'APT::Architecture "arm64";' in settings
    assert f'Dir::State "{apt.files.parent / "state"}";' in settings
    assert 'Dir::Etc::parts "/dev/null";' in settings
    assert (apt.files.parent / "state" / "status").read_bytes() == b""


def test_what_is_there_is_not_fetched_again_but_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt, _ = stand_in_apt(tmp_path, monkeypatch)
    first = apt.fetch(["libx"])
    before = (apt.files / "libx_1_arm64.deb").stat().st_mtime_ns
    assert apt.fetch(["libx"]) == first
    assert (apt.files / "libx_1_arm64.deb").stat().st_mtime_ns == before


def test_other_sources_replace_the_machine_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_apt(tmp_path, monkeypatch)
    apt = Apt(tmp_path / "downloads", "aarch64", tmp_path / "ports.list")
    apt.fetch(["libx"])
    settings = (apt.files.parent / "apt.conf").read_text()
    assert f'Dir::Etc::sourcelist "{tmp_path / "ports.list"}";' in settings
    assert 'Dir::Etc::sourceparts "/dev/null";' in settings


def test_what_apt_complains_of_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt, _ = stand_in_apt(tmp_path, monkeypatch, 'echo "W: old" >&2; echo "E: no such mirror" >&2; exit 100')
    with pytest.raises(CompressError) as error:
        apt.fetch(["libx"])
    assert error.value.message == "apt-get for arm64: E: no such mirror"
    assert "--sources" in error.value.hint


def test_a_file_that_was_changed_on_the_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt, _ = stand_in_apt(tmp_path, monkeypatch, content="wrong")
    with pytest.raises(CompressError, match="it was removed"):
        apt.fetch(["libx"])
    assert not list(apt.files.glob("*.deb"))


def test_without_apt_it_says_where_a_system_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompressError, match="apt-get is not there") as error:
        Apt(tmp_path, "aarch64").fetch(["libx"])
    assert "copy its folder" in error.value.hint
