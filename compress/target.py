"""A target: runtime + host + settings, one TOML file, and where such files are found."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from compress.errors import RecipeError, did_you_mean
from compress.processors import PROCESSORS, emulated
from compress.schema import Strict, read_toml, validate

SCHEMA = 1
CPUS = ("any", "native", *PROCESSORS)
# What may compute, for runtimes that let a target say so; the first is the default.
PROVIDERS = {
    "onnxruntime": ("cpu", "cuda", "tensorrt", "nv-tensorrt-rtx"),
    "torch": ("cpu", "cuda"),
    "tensorrt": ("cuda",),
    "litert": ("cpu",),
    "tflite_runtime": ("cpu",),
    "executorch": ("cpu",),
}


class Budgets(Strict):
    """Hard bounds of the device. A shipped artifact above one of them fails the gate."""

    latency_ms: float | None = Field(default=None, gt=0)
    size_bytes: int | None = Field(default=None, gt=0)
    memory_bytes: int | None = Field(default=None, gt=0)
    min_accelerated: float | None = Field(default=None, ge=0, le=1)


class CheckTolerances(Strict):
    """What `edge-compress check` lets pass, as shares of the baseline's figure; `operators` is a number.

    `accelerated` is how much the share of operators on the accelerated path may fall. Memory is also allowed the
    last MiB, which differs from run to run.
    """

    latency: float = Field(default=0.02, ge=0.001, le=1)
    load: float = Field(default=0.25, ge=0.01, le=10)
    memory: float = Field(default=0.10, ge=0, le=10)
    size: float = Field(default=0.02, ge=0, le=10)
    operators: int = Field(default=0, ge=0)
    accelerated: float = Field(default=0.0, ge=0, le=1)


class SshSettings(Strict):
    """`[ssh]`: the machine behind `host = "ssh"`.

    `address` is what the ssh command takes: `user@machine`, or a `Host` of its configuration. `config` is such a file
    instead of the user's own, relative to the target file. `python` runs the worker there; it needs numpy and the
    runtime.
    """

    address: str = Field(pattern=r"^[^-\s][^\s]*$")
    python: str = Field(default="python3", pattern=r"^[^-\s][^\n]*$")
    config: str | None = None


class AdbSettings(Strict):
    """`[adb]`: the phone behind `host = "adb"`.

    `serial` is what `adb devices` lists; without it there must be one device. Either `python` runs the worker there,
    as the app `run_as` where it belongs to one; or `benchmark_binary`, the runtime's own tool, takes times alone: a
    file here, relative to the target file, or `device:` and its path on the phone. `folder` is where files go there.
    Times are refused while the battery holds less than `min_battery` percent or the phone throttles; `cool_s` is how
    long to wait until it does not.
    """

    serial: str | None = Field(default=None, pattern=r"^[^-\s][^\s]*$")
    python: str | None = Field(default=None, pattern=r"^[^-\s][^\n]*$")
    run_as: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_.]*$")
    benchmark_binary: str | None = Field(default=None, pattern=r"^[^-\s][^\n]*$")
    folder: str = Field(default="/data/local/tmp", pattern=r"^/[A-Za-z0-9._/-]+$")
    min_battery: int = Field(default=20, ge=0, le=100)
    cool_s: float = Field(default=120.0, ge=0, le=3600)

    @model_validator(mode="after")
    def _one_way(self) -> AdbSettings:
        if (self.python is None) == (self.benchmark_binary is None):
            raise ValueError("give one of python (the worker runs there) and benchmark_binary (times alone)")
        if self.run_as is not None and self.python is None:
            raise ValueError("run_as names the app that python belongs to; there is no python")
        named = self.benchmark_binary or ""
        if named.startswith("device:") and not named.startswith("device:/"):
            raise ValueError(f"benchmark_binary: device: is followed by an absolute path; got {named!r}")
        return self


class Target(Strict):
    """Where an artifact runs.

    `cpu` states the instruction set the artifact must be right on: `native` is this machine's, `any` every
    64-bit CPU, else a name of `compress.processors`. On x86 without a dot-product instruction ONNX Runtime's int8 sums
    can saturate: where that may be, it uses 7-bit weights. The host `emulated` is the processor that `cpu` names, and
    takes no times; the host `ssh` is the machine that the table `[ssh]` names, `adb` the phone that `[adb]` names.
    `fusion` lets a scheme use operators of newer formats, or of its runtime alone, where they are faster.
    `flavour` is the form of the quantized graph: `tensorrt` files go to an engine that reads ONNX on a GPU; here they
    are checked and timed on the CPU, which says nothing of that engine's speed.
    `provider` is what of the machine computes: its CPU, or a GPU through one of ONNX Runtime's execution providers or
    through torch. `compile` lets torch compile the graph where it runs.
    `format` is the file that ships: `ort` is ONNX Runtime's own, for its builds for phones, and `target_platform` the
    family of processors that it is optimised for when it is converted.
    `width_multiple` is the multiple that its kernels like widths to keep to: what a cut leaves is rounded to it.
    Where it is None a pass measures it, if it measures at all.
    """

    schema_: int = Field(alias="schema")
    name: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    description: str = ""
    runtime: str
    host: Literal["local", "emulated", "ssh", "adb"] = "local"
    threads: int = Field(default=1, ge=1, le=256)
    cpu: str = "any"
    fusion: bool = True
    flavour: Literal["cpu", "tensorrt"] = "cpu"
    provider: Literal["cpu", "cuda", "tensorrt", "nv-tensorrt-rtx"] = "cpu"
    compile: bool = False
    format: Literal["onnx", "ort"] = "onnx"
    target_platform: Literal["arm", "amd64"] | None = None
    schemes: tuple[str, ...] | None = None
    width_multiple: int | None = Field(default=None, ge=1, le=256)
    budgets: Budgets = Budgets()
    check: CheckTolerances = CheckTolerances()
    ssh: SshSettings | None = None
    adb: AdbSettings | None = None

    @field_validator("schema_")
    @classmethod
    def _known_schema(cls, value: int) -> int:
        if value != SCHEMA:
            raise ValueError(f"this version reads schema = {SCHEMA}; got {value}")
        return value

    @field_validator("cpu")
    @classmethod
    def _known_cpu(cls, value: str) -> str:
        if value not in CPUS:
            raise ValueError(f"there is no processor {value!r}: {did_you_mean(value, CPUS)}")
        return value

    @model_validator(mode="after")
    def _says_which_machine(self) -> Target:
        if self.host == "ssh" and self.ssh is None:
            raise ValueError('host = "ssh" needs a table [ssh] with an address')
        if self.host != "ssh" and self.ssh is not None:
            raise ValueError(f'the table [ssh] is read only with host = "ssh", not with {self.host!r}')
        if self.host == "adb" and self.adb is None:
            raise ValueError('host = "adb" needs a table [adb] with python or benchmark_binary')
        if self.host != "adb" and self.adb is not None:
            raise ValueError(f'the table [adb] is read only with host = "adb", not with {self.host!r}')
        return self

    @model_validator(mode="after")
    def _of_onnx(self) -> Target:
        if self.flavour == "tensorrt" and self.runtime not in ("onnxruntime", "tensorrt"):
            raise ValueError(f'flavour = "tensorrt" is a form of .onnx files; the runtime is {self.runtime!r}')
        if self.runtime == "tensorrt" and self.flavour != "tensorrt":
            raise ValueError(f'TensorRT takes flavour = "tensorrt"; got {self.flavour!r}')
        return self

    @model_validator(mode="after")
    def _of_ort(self) -> Target:
        if self.format == "onnx":
            if self.target_platform is not None:
                raise ValueError('target_platform belongs to format = "ort"; add that, or drop this key')
            return self
        if self.runtime != "onnxruntime" or self.flavour != "cpu":
            raise ValueError('format = "ort" is ONNX Runtime\'s own: it needs runtime = "onnxruntime", flavour = "cpu"')
        if self.target_platform is None:
            raise ValueError('format = "ort" needs the key target_platform, "arm" or "amd64"')
        if self.target_platform == "amd64" and self.cpu != "native":
            raise ValueError(
                'target_platform = "amd64" lays the file out for processors like the one that converts it: '
                f'it needs cpu = "native"; got {self.cpu!r}. For every processor: target_platform = "arm"'
            )
        return self

    @model_validator(mode="after")
    def _can_be_emulated(self) -> Target:
        names = [item.name for item in emulated()]
        if self.host == "emulated" and self.cpu not in names:
            raise ValueError(f'host = "emulated" needs the key cpu, one of {", ".join(names)}; got {self.cpu!r}')
        if self.host == "emulated" and self.budgets.latency_ms is not None:
            raise ValueError("budgets.latency_ms: an emulated processor gives answers and no times; drop this bound")
        return self

    @model_validator(mode="after")
    def _has_provider(self) -> Target:
        # A runtime of another distribution knows its own.
        known = PROVIDERS.get(self.runtime, (self.provider,))
        if self.provider not in known:
            raise ValueError(f"provider: {self.runtime} has no {self.provider!r}: {did_you_mean(self.provider, known)}")
        if self.compile and self.runtime != "torch":
            raise ValueError(f"compile is a setting of torch; the runtime is {self.runtime!r}")
        if "tensorrt" in self.provider and self.flavour != "tensorrt":
            raise ValueError(f'provider = "{self.provider}" takes files of flavour = "tensorrt"; set that key, too')
        return self

    @property
    def job_settings(self) -> dict[str, str | bool]:
        """The keys of a worker's job that this target sets; see `compress.worker.job.Job`."""
        provider = {"provider": self.provider} if self.provider != "cpu" else {}
        return {**provider, "compile": True} if self.compile else {**provider}


def profiles() -> dict[str, Path]:
    """Returns the generic profiles that ship with the package, by name."""
    folder = Path(str(resources.files("compress") / "profiles"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def project_targets(folder: Path) -> dict[str, Path]:
    """Returns the target files of the nearest `targets/` folder at or above `folder`, by name."""
    for parent in (folder, *folder.parents):
        if (parent / "targets").is_dir():
            return {path.stem: path for path in sorted((parent / "targets").glob("*.toml"))}
    return {}


def load_target(name: str, folder: Path) -> Target:
    """Finds a target by path, then in the project's `targets/`, then among the profiles.

    Args:
        name: A file ending in `.toml` (relative to `folder`), or a name.
        folder: The recipe's folder.

    Raises:
        RecipeError: If there is no such target, or the file is wrong.
    """
    if name.endswith(".toml"):
        path = (folder / name).resolve()
    else:
        known = {**profiles(), **project_targets(folder.resolve())}
        if name not in known:
            raise RecipeError(f"targets: there is no target {name!r}", did_you_mean(name, known))
        path = known[name]
    values = read_toml(path)
    values.setdefault("name", path.stem)
    _beside(path, values.get("ssh"), "config")
    _beside(path, values.get("adb"), "benchmark_binary")
    return validate(Target, values, str(path))


def _beside(path: Path, settings: object, key: str) -> None:
    """Makes a file that a table names relative to the target file; what lies on the device stays as it is."""
    if isinstance(settings, dict) and isinstance(named := settings.get(key), str) and not named.startswith("device:"):
        settings[key] = str(path.parent / Path(named).expanduser())
