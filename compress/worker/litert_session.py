"""TensorFlow Lite files in the LiteRT interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from .arrays import Array
from .feed import check_inputs, portions
from .session import OperatorTime
from .tflite_session import TfliteSession, delegated

WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"}


class LiteRtSession(TfliteSession):
    """One `.tflite` file in LiteRT."""

    title = "LiteRT"

    def _open(self, artifact: Path, threads: int) -> Any:
        return Interpreter(model_path=str(artifact), num_threads=threads)

    def profile(self, inputs: Mapping[str, Array], calls: int) -> tuple[OperatorTime, ...]:
        """Returns the time of every operator by LiteRT's own profiler; see `litert_profile`.

        An operator is called like the tensor that it writes.
        """
        from .litert_profile import events, operator_times

        nodes = self._interpreter._get_ops_details()
        tensors = {item["index"]: item["name"] for item in self._interpreter.get_tensor_details()}
        names = {node["index"]: tensors.get(int(node["outputs"][0]), "") for node in nodes if len(node["outputs"])}
        taken = delegated(nodes)
        swallowed = [names[node["index"]] for node in nodes if node["index"] in taken and node["op_name"] in WEIGHTED]
        feed = portions(self.inputs, check_inputs(self.inputs, inputs))[0]
        return operator_times(events(self._artifact, self._threads, feed, calls), swallowed, names)
