"""The command line itself."""

import subprocess
import sys

import pytest

from flows.cli import main, parser

HEAVY = ("torch", "prefect", "mlflow", "pandas", "numpy", "great_expectations", "diffusers", "pydantic")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n main(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "exit status" in done.stdout


@pytest.mark.parametrize(
    "command", ["run", "check", "generate", "explain", "report", "promote", "up", "down", "status", "doctor"]
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args([command, "--help"])
    assert caught.value.code == 0
    assert f"darkroom {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["run"], ["generate", "m", "p", "--count", "0"], ["generate", "m", "p", "--seed", "-1"]],
)
def test_mistakes_on_the_command_line_are_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_a_darkroom_error_is_one_sentence_with_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("darkroom: there is no recipe 'nowhere'")
