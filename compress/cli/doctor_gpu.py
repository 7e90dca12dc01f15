"""What `edge-compress doctor` finds out about the GPU: whether a runtime can compute on it, and what to do if not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Provided:
    """Whether a runtime computes through a provider here: on what, or why not and the command that changes it."""

    runtime: str
    provider: str
    works: bool
    processor: str = ""
    why_not: str = ""
    remedy: str = ""

    @property
    def answer(self) -> tuple[str, str]:
        """What the table says of it."""
        return ("yes", self.processor) if self.works else ("no", f"{self.why_not}: {self.remedy}")


def providers() -> list[Provided]:
    """Starts the empty worker of every runtime on every provider but the CPU; without a GPU there is no need to."""
    from compress.errors import CompressError
    from compress.hosts.calls import ask
    from compress.hosts.local import LocalHost
    from compress.target import PROVIDERS
    from compress.worker.cuda import first_gpu
    from compress.worker.errors import JobError

    wanted = [
        (runtime, name)
        for runtime, names in PROVIDERS.items()
        if "cpu" in names  # what computes on a GPU alone stands among the runtimes
        for name in names
        if name != "cpu"
    ]
    try:
        first_gpu()
    except JobError as error:
        return [Provided(runtime, name, False, "", error.message, error.hint) for runtime, name in wanted]
    found = []
    for runtime, name in wanted:
        try:
            answer = ask(LocalHost(), {"action": "empty", "runtime": runtime, "provider": name}, timeout_s=120)
            found.append(Provided(runtime, name, True, answer["processor"]))
        except CompressError as error:
            found.append(Provided(runtime, name, False, "", error.message, error.hint))
    return found
