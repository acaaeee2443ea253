import os
import subprocess
import sys
from pathlib import Path

MEASURE = """
import latency
from latency.onnx_graph import emit
from search_spaces import Architecture, Block, Head
arch = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=8),), head=Head(outputs=2))
for device in map(latency.open_device, ("local", "local:python")):
    device.time([emit(arch)], latency.QUICK)
"""


def test_measuring_leaves_nothing_of_the_runtimes_telemetry_in_the_home(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY" and not k.startswith("XDG_")}
    home = environment | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", MEASURE], env=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [p for p in tmp_path.rglob("*") if "onnxruntime" in p.name.lower()]
