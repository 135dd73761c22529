"""The encoder of notebook 06 where its package is not installed: the Hub's copy, checked, or a small BERT."""

import pytest
from faults import FaultyHub

from course_utils import artifacts
from course_utils.data.paraphrases import PAIRS
from course_utils.models import encoder

NAMES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "model.safetensors")


@pytest.fixture
def files(monkeypatch):
    folder = encoder.packaged_encoder()
    monkeypatch.setattr(encoder, "PACKAGE", "no-such-package")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in NAMES}


def test_without_the_package_the_hubs_copy_is_taken(hub: FaultyHub, files):
    hub.add_files("models", encoder.HUB_ID, files | {"pytorch_model.bin": b"not wanted"})
    found = encoder.downloaded_encoder()
    assert (found / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert not (found / "pytorch_model.bin").exists()
    assert artifacts.encoder_folder("course", PAIRS) == str(found)


def test_other_weights_are_refused(hub: FaultyHub, files):
    hub.add_files("models", encoder.HUB_ID, files | {"model.safetensors": b"other"})
    with pytest.raises(ValueError, match="not the published model"):
        artifacts.encoder_folder("course", PAIRS)


def test_without_the_hub_a_small_bert_serves_and_a_line_says_so(files, capsys):
    folder = artifacts.encoder_folder("course", PAIRS)
    assert "scratch_encoder" in folder
    assert "small BERT with random weights" in capsys.readouterr().out
