"""Files of all kinds by their content: what the command line and `explain` are given."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import fastdeconv as fd
from fastdeconv.cli import main
from fastdeconv.network.choosing import open_network
from fastdeconv.network.importers.opening import open_model

onnx = pytest.importorskip("onnx", reason="reads and writes ONNX: pip install .[onnx]")
FRONTEND = {"kind": "mel", "sr": 8000, "n_fft": 256, "n_mels": 12}


@pytest.fixture
def model(tmp_path):
    """An ONNX file under a name that says nothing."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(4, 1, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node(
                "Conv", ["x", "first.weight"], ["c"], name="/first/Conv", pads=[1] * 4
            ),
            helper.make_node("Relu", ["c"], ["r"], name="/act/Relu"),
        ],
        "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 12, "frames"])],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "first.weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = tmp_path / "model.bin"
    path.write_bytes(made.SerializeToString())
    return path


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_import_writes_an_archive_that_explain_takes(model, tmp_path):
    archive = tmp_path / "net.npz"
    classes = tmp_path / "classes.txt"
    classes.write_text("\ufeffrock\njazz\n\npop\nfolk\n", encoding="utf-8")
    result = run("import", model, "-o", archive, "--input-shape", "1,12,40", "--frontend",
                 json.dumps(FRONTEND), "--classes", classes, "--name", "tagger")
    assert result.exit_code == 0, result.output
    assert "2 of 2 layers compared with" in result.output
    net = fd.Network.load(archive)
    assert [layer.name for layer in net.layers] == ["first", "act"]
    assert (net.name, net.classes) == ("tagger", ("rock", "jazz", "pop", "folk"))
    assert net.frontend == fd.Frontend(**FRONTEND) and net.input_shape == (1, 12, None)
    sound = np.random.default_rng(1).normal(0, 0.1, 8000).astype(np.float32)
    assert len(fd.explain((sound, 8000), archive).table) == 4


@pytest.mark.parametrize("command", ["explain", "why", "survey", "invariance"])
def test_commands_take_a_model_with_its_front_end(model, tmp_path, command):
    """The model leaves the number of frames open, so what it takes has to be in the file."""
    onnx_model = onnx.load(model)
    onnx_model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 30
    onnx.save(onnx_model, tmp_path / "fixed.onnx")
    (tmp_path / "sounds").mkdir()
    sound = np.random.default_rng(1).normal(0, 0.1, 8000)
    soundfile.write(tmp_path / "sounds" / "song.wav", sound, 8000)
    given = "sounds" if command == "survey" else "sounds/song.wav"
    arguments = [command, tmp_path / given, "-o", tmp_path / "out", "--network",
                 tmp_path / "fixed.onnx"]
    result = run(*arguments)
    assert result.exit_code == 1 and "--frontend" in result.output
    result = run(*arguments, "--frontend", json.dumps(FRONTEND))
    assert result.exit_code == 0, result.output
    result = run(command, tmp_path / given, "-o", tmp_path / "other", "--frontend", "{}")
    assert result.exit_code == 1 and "is a network already: frontend is for" in result.output


def test_the_sample_rate_and_a_file_of_the_front_end(model, tmp_path):
    record = tmp_path / "frontend.json"
    without_rate = {key: value for key, value in FRONTEND.items() if key != "sr"}
    record.write_text(json.dumps(without_rate), encoding="utf-8-sig")  # as some editors save it
    result = run("import", model, "-o", tmp_path / "net.npz", "--input-shape", "1,12,?",
                 "--frontend", record, "--sr", 16000)
    assert result.exit_code == 1 and "may vary; give input_shape=" in result.output
    result = run("import", model, "-o", tmp_path / "net.npz", "--input-shape", "1,12,30",
                 "--frontend", record, "--sr", 16000)
    assert result.exit_code == 0, result.output
    assert fd.Network.load(tmp_path / "net.npz").frontend.sr == 16000


@pytest.mark.parametrize(("arguments", "said"), [
    (["--input-shape", "12,30"], "must be C,H,W"), (["--sr", "8000"], "--sr goes with --frontend"),
    (["--frontend", "sr=8000"], "such as '{\"kind\": \"mel\", \"sr\": 16000}', or a file"),
    (["--frontend", "[1]"], "No such file"), (["--classes", "."], ".: a folder, not a regular"),
    (["--frontend", '{"kind": "mel", "bands": 3}'], "bands"),
    (["--frontend", '{"a": NaN}'], "no JSON object"),
])
def test_what_the_command_does_not_understand(model, tmp_path, arguments, said):
    result = run("import", model, "-o", tmp_path / "net.npz", *(
        arguments if "--input-shape" in arguments else ["--input-shape", "1,12,30", *arguments]
    ))
    assert result.exit_code != 0 and said in result.output
    assert not (tmp_path / "net.npz").exists()


def test_advice_about_files_is_also_for_the_command_line(tmp_path):
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 8, 8])
            for name in ("x", "a b", "c")]
    nodes = [helper.make_node("Relu", ["x"], [end.name]) for end in ends[1:]]
    made = helper.make_model(
        helper.make_graph(nodes, "net", ends[:1], ends[1:]),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=10,
    )
    (tmp_path / "two.onnx").write_bytes(made.SerializeToString())
    result = run("import", tmp_path / "two.onnx", "-o", tmp_path / "net.npz")
    assert result.exit_code == 1
    assert (
        "choose it with from_onnx(..., outputs='a b'), or fastdeconv import ... --outputs 'a b'"
        in result.output
    )
    result = run("import", tmp_path / "two.onnx", "-o", tmp_path / "net.npz", "--outputs", "a b")
    assert result.exit_code == 0, result.output


def test_checkpoints_are_not_opened(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({}))
    for content in (file.getvalue(), pickle.dumps({})):
        path = tmp_path / "model.pt"
        path.write_bytes(content)
        with pytest.raises(fd.ArchiveError, match=r"weights_only=True and call fastdeconv\."):
            open_network(path)


def test_an_archive_takes_no_options(tmp_path, model):
    archive = tmp_path / "net.npz"
    assert run("import", model, "-o", archive, "--input-shape", "1,12,30").exit_code == 0
    result = run("import", archive, "-o", tmp_path / "other.npz", "--outputs", "first")
    assert result.exit_code == 1 and "is a network already" in result.output


def test_a_file_that_is_nothing_of_all_that(tmp_path):
    path = tmp_path / "song.mp3"
    path.write_bytes(b"ID3 something")
    with pytest.raises(fd.ArchiveError, match=r"song\.mp3"):
        open_network(path)


def test_a_folder_or_a_pipe_is_an_error_of_ours(tmp_path):
    for path in (tmp_path, tmp_path / "a\0b"):
        with pytest.raises(fd.ArchiveError, match="cannot be opened"):
            open_model(path)


def test_options_of_another_kind_of_file_are_named(tmp_path, model):
    path = tmp_path / "net.npz"
    open_model(model, input_shape=(1, 12, 20)).save(path)
    with pytest.raises(fd.ParameterError, match=r"net\.npz' is a network already: name is for"):
        open_model(path, name="mine")
