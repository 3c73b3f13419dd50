"""The command line of vLLM for a model directory; vLLM itself is asked in benchmarks/server.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.commands.cli import main
from emollm.commands.serve_llm import ServeLlmConfig, vllm_command
from emollm.core.bases import model_folder
from emollm.core.card import read_card, write_card
from emollm.core.errors import ConfigError, ModelError


def options(command: list[str]) -> dict[str, str]:
    return {name: value for name, value in zip(command, [*command[1:], ""], strict=True) if name.startswith("--")}


def test_full_weights_are_served_under_their_folders_name(model_directory: Path) -> None:
    command, environment = vllm_command(
        ServeLlmConfig(model=str(model_directory), gpus=0, memory_gib=1.5), ["--seed", "1"]
    )
    found = options(command)
    assert (found["--model"], found["--served-model-name"]) == (str(model_directory), model_directory.name)
    assert command[-2:] == ["--seed", "1"] and "--enable-prefix-caching" in command
    assert found["--host"] == "127.0.0.1" and found["--max-model-len"] == "1536"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "1.5"


def test_an_adapter_is_served_on_its_base(model_directory: Path, tiny_base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    card = read_card(model_directory)
    base = card.base.model_copy(update={"name": str(tiny_base)})
    folder = tmp_path / "mine"
    folder.mkdir()
    write_card(folder, card.model_copy(update={"adapter": "lora", "base": base}))
    LoraConfig(r=12).save_pretrained(folder)
    found = options(vllm_command(ServeLlmConfig(model=str(folder), gpus=2, replicas=4))[0])
    assert found["--lora-modules"] == f"mine={folder}"
    assert (found["--model"], found["--max-lora-rank"]) == (str(tiny_base), "16")
    assert (found["--tensor-parallel-size"], found["--data-parallel-size"]) == ("2", "4")


def test_a_model_that_cannot_be_served_is_refused(model_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = ServeLlmConfig(model=str(model_folder("minilm-affect")))
    with pytest.raises(ModelError, match="is not a decoder that generates answers"):
        vllm_command(heads)
    with pytest.raises(ModelError, match="is not a model directory"):
        vllm_command(ServeLlmConfig(model="/nowhere"))
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="set a key in VLLM_API_KEY"):
        vllm_command(ServeLlmConfig(model=str(model_directory), host="0.0.0.0"))


def test_the_command_can_be_shown(model_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["serve-llm", str(model_directory), "--gpus", "0", "--show", "--", "--max-num-seqs", "8"])
    told = capsys.readouterr().out
    assert "vllm.entrypoints.openai.api_server --model" in told and told.strip().endswith("--max-num-seqs 8")
    with pytest.raises(ConfigError, match="no Python with vLLM at /nowhere/python; run make vllm"):
        main(["serve-llm", str(model_directory), "--python", "/nowhere/python"])
