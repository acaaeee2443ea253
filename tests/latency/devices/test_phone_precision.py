import json

import pytest
from click.testing import CliRunner

from latency.profile import main
from tests.latency.devices.phones import RUNTIME
from tests.phone.phone import SERIAL, FakePhone


def test_quantized_model_gives_on_the_phone_what_it_gives_here(shared_phone: FakePhone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB", str(shared_phone.adb))
    words = ["mobilenet_v2@0.1", "--image-size", "32", "--outputs", "10", "--device", f"android:{SERIAL}", "--runtime", RUNTIME]
    done = CliRunner().invoke(main, [*words, "--precision", "int8", "--plan", "quick", "--json", "--fresh"])
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    assert (result["model"], result["parity"]["status"]) == ("mobilenet_v2@0.1 int8", "equal")
