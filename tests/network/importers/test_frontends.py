"""Front ends inside models that take samples become front ends of ours."""

from __future__ import annotations

import warnings

import librosa
import numpy as np
import pytest

import fastdeconv as fd

torch = pytest.importorskip("torch", reason="exports models: pip install .[torch]")
pytest.importorskip("onnx", reason="reads models: pip install .[torch]")
pytest.importorskip("onnxscript", reason="exports models: pip install .[torch]")

SR, N_FFT, HOP = 16000, 400, 160


class Tagger(torch.nn.Module):
    """Samples, a spectrogram made in one way or another, and convolutions."""

    def __init__(self, stft: str, power: int, bands: int | None, scale: str, one_d: bool = False):
        super().__init__()
        self.stft, self.power, self.bands, self.scale, self.one_d = stft, power, bands, scale, one_d
        self.register_buffer("window", torch.hann_window(N_FFT))
        filters = librosa.filters.mel(sr=SR, n_fft=N_FFT, n_mels=bands or 1, htk=True, norm=None)
        self.register_buffer("filters", torch.tensor(filters.T.copy()))
        n, k = np.arange(N_FFT), np.arange(N_FFT // 2 + 1)[:, None]
        basis = self.window.double().numpy() * np.exp(-2j * np.pi * k * n / N_FFT)
        self.real, self.imaginary = (
            torch.nn.Conv1d(1, len(k), N_FFT, stride=HOP, bias=False) for _ in range(2)
        )
        for conv, part in ((self.real, basis.real), (self.imaginary, basis.imag)):
            conv.weight.data = torch.tensor(part[:, None], dtype=torch.float32)
        self.register_buffer("dct", torch.randn(40, 20))
        rows = bands or len(k)
        if one_d:
            self.net = torch.nn.Sequential(torch.nn.Conv1d(rows, 6, 3), torch.nn.ReLU())
        else:
            self.net = torch.nn.Sequential(
                torch.nn.Conv2d(1, 5, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stft == "conv":
            padded = torch.nn.functional.pad(x[:, None], (N_FFT // 2,) * 2, mode="reflect")
            size = self.real(padded) ** 2 + self.imaginary(padded) ** 2
            size = size if self.power == 2 else torch.sqrt(size)
        else:
            found = torch.stft(
                x, N_FFT, HOP, window=self.window, return_complex=True,
                center=self.stft != "no center",
            )
            size = found.abs() ** self.power
        if self.bands:
            size = torch.matmul(size.transpose(1, 2), self.filters).transpose(1, 2)
        if self.scale == "clamp":
            size = torch.log(size.clamp(min=1e-5))
        elif self.scale == "offset":
            size = torch.log(size + 1e-6) * 0.25 + 1.5
        elif self.scale == "db":
            size = 10 * torch.log10(size.clamp(min=1e-10))
        elif self.scale == "log1p":
            size = torch.log10(1 + 10000 * size)
        elif self.scale == "top_db":
            size = 10 * torch.log10(size.clamp(min=1e-10))
            size = torch.maximum(size, size.amax() - 80)
        elif self.scale == "normalized":
            size = torch.log(size / self.window.square().sum() + 1e-6)
        elif self.scale == "cepstrum":
            size = torch.log(size + 1e-3).transpose(1, 2) @ self.dct
            size = size.transpose(1, 2)
        return self.net(size if self.one_d else size[:, None])


@pytest.mark.parametrize(("stft", "power", "bands", "scale", "one_d"), [
    ("stft", 2, 40, "clamp", False), ("conv", 2, 40, "offset", False),
    ("stft", 1, None, "linear", False), ("no center", 2, 64, "db", False),
    ("conv", 1, 32, "log1p", True), ("stft", 2, 40, "clamp", True),
    ("conv", 2, 40, "top_db", False), ("conv", 2, 40, "normalized", False),
    ("conv", 2, 40, "cepstrum", False),
])
def test_what_makes_a_spectrogram_inside_becomes_the_front_end(stft, power, bands, scale, one_d):
    torch.manual_seed(0)
    model = Tagger(stft, power, bands, scale, one_d).eval()
    net = fd.from_torch(model, (1, SR), frontend={"sr": SR})
    fe = net.frontend
    assert (fe.kind, fe.sr, fe.n_fft, fe.hop_length) == (
        "filters" if bands else "stft", SR, N_FFT, HOP,
    )
    assert fe.power == power and fe.center == (stft != "no center")
    if bands:
        np.testing.assert_array_equal(fe.filters, model.filters.numpy().T)
    assert "through the front end" in net.receipt
    # A sound that the import did not see, and a longer one.
    time = np.arange(2 * SR) / SR
    sound = np.sin(2 * np.pi * 440 * time) * np.exp(-time) + 0.02 * np.cos(9000 * time)
    sound += np.random.default_rng(3).normal(0, 0.01, sound.size)
    clip = fd.load_clip((sound.astype(np.float32), SR), fe)
    with torch.no_grad():
        wanted = model(torch.tensor(clip.samples[None]))[0].numpy()
    found = net.forward(clip.x)[net.layers[-1].name]
    np.testing.assert_allclose(
        found.reshape(wanted.shape), wanted, atol=2e-3 * np.abs(wanted).max()
    )
    explanation = fd.explain((sound.astype(np.float32), SR), net)
    assert any(row["level"] is not None for row in explanation.table)


def test_an_example_of_a_single_frame_is_enough():
    class OneFrame(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("window", torch.hann_window(N_FFT))
            self.conv = torch.nn.Conv1d(N_FFT // 2 + 1, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            stft = torch.stft(
                x, N_FFT, HOP, window=self.window, center=False, return_complex=True
            )
            return torch.relu(self.conv(stft.abs()))

    fe = fd.from_torch(OneFrame(), (1, N_FFT), frontend={"sr": SR}).frontend
    assert (fe.kind, fe.n_fft, fe.center) == ("stft", N_FFT, False)


def found(scale: str) -> fd.Frontend:
    model = Tagger("conv", 2, 40, scale).eval()
    net = fd.from_torch(model, torch.zeros(1, SR), frontend={"sr": SR})
    return net.frontend


def test_scales_are_said_as_plainly_as_they_can_be():
    assert found("top_db").scale == {"type": "db", "ref": 1.0, "amin": 1e-10, "top_db": 80.0}
    fe = found("normalized")
    assert fe.normalize is None and fe.scale["offset"] == 1e-6
    assert fe.scale["gain"] == pytest.approx(1 / 150, rel=1e-4)


def test_preemphasis_before_an_stft_is_recognised():
    class Emphasised(Tagger):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.cat([x[:, :1], x[:, 1:] - 0.97 * x[:, :-1]], 1))

    model = Emphasised("conv", 2, 40, "linear").eval()
    net = fd.from_torch(model, torch.zeros(1, SR), frontend={"sr": SR})
    assert net.frontend.preemphasis == 0.97
    assert net.receipt.endswith("(the first sample may be emphasised in another way)")
    sound = np.random.default_rng(0).normal(0, 0.1, SR).astype(np.float32)
    sound[0] = 0
    with torch.no_grad():
        wanted = model(torch.tensor(sound[None]))[0].numpy()
    clip = fd.Clip(sound, SR, net.frontend)
    np.testing.assert_allclose(
        net.forward(clip.x)[net.layers[-1].name], wanted, atol=1e-4 * np.abs(wanted).max()
    )


def test_frames_as_rows_may_be_as_many_as_there_are():
    """PANNs-like: (batch, 1, frames, bands)."""
    class Rows(Tagger):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            padded = torch.nn.functional.pad(x[:, None], (N_FFT // 2,) * 2, mode="reflect")
            size = self.real(padded) ** 2 + self.imaginary(padded) ** 2
            return self.net((size.transpose(1, 2) @ self.filters)[:, None])

    net = fd.from_torch(
        Rows("conv", 2, 40, "linear").eval(), torch.zeros(1, SR), frontend={"sr": SR}
    )
    assert (net.frontend.layout, net.frontend.frames) == ("CTF", None)
    assert net.input_shape == (1, None, 40)


def test_what_follows_an_unknown_spectrogram_can_be_imported_by_itself():
    class Split(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front = torch.nn.Sequential(torch.nn.Conv1d(1, 40, 300, stride=160))
            self.net = torch.nn.Sequential(torch.nn.Conv1d(40, 6, 3), torch.nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(self.front(x[:, None]).abs())

    model = Split().eval()
    with pytest.raises(fd.ParameterError, match=r"no STFT .* give .* or let its convolutions be "
                       r"layers .*kind='waveform'"):
        fd.from_torch(model, torch.zeros(1, SR), frontend={"sr": SR})
    net = fd.from_torch(model, torch.zeros(1, SR), frontend={"kind": "waveform", "sr": SR})
    assert net.layers[0].name == "front.0"
    sound = np.random.default_rng(0).normal(0, 0.1, SR).astype(np.float32), SR
    assert np.abs(fd.explain(sound, net, layers="net.1").sound("net.1", 0)).max() > 0
    net = fd.from_torch(model, torch.zeros(1, SR), inputs="front")
    assert [layer.name for layer in net.layers] == ["abs1", "net.0", "net.1"]
    assert net.input_shape == (40, 1, None)
    with pytest.raises(fd.ParameterError, match="no input, node or value 'nothing'"):
        fd.from_torch(model, torch.zeros(1, SR), inputs="nothing")


def test_the_error_says_what_was_found_and_what_to_give():
    class Centred(Tagger):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x - 30 * x[:, 4000:4001])

    with pytest.raises(fd.ParameterError, match=(
        r"an STFT \(n_fft 400, hop_length 160, win_length 400, window 'hann'\) and a matrix of 40 "
        r"bands \('filters.*begin after it"
    )):
        fd.from_torch(
            Centred("conv", 2, 40, "clamp").eval(), torch.zeros(1, SR), frontend={"sr": SR}
        )


def test_a_model_that_resamples_before_its_stft_begins_after_that() -> None:
    class Resampling(Tagger):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kernel = torch.hann_window(9)[None, None] / 4.5
            return super().forward(torch.nn.functional.conv1d(x[:, None], kernel, stride=2)[:, 0])

    model = Resampling("conv", 2, 40, "clamp").eval()
    with pytest.raises(fd.ParameterError, match=r"only resamples.*inputs='(.*)', fr") as refused:
        fd.from_torch(model, torch.zeros(1, SR), frontend={"sr": SR})
    start = str(refused.value).rpartition("inputs='")[2].partition("'")[0]
    net = fd.from_torch(model, torch.zeros(1, SR), inputs=start, frontend={"sr": SR / 2})
    assert net.frontend is not None and (net.frontend.sr, net.frontend.kind) == (SR / 2, "filters")


def test_the_front_end_ends_where_one_value_leads_on() -> None:
    class Smoothed(Tagger):
        """A gain by the smoothed bands, which are transposed for that, as PCEN has it."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = torch.stft(x, N_FFT, HOP, window=self.window, return_complex=True).abs()
            bands = self.filters.T @ found
            kernel = torch.full((1, 1, 9), 1 / 9)
            slow = torch.nn.functional.conv1d(bands.transpose(0, 1), kernel, padding=4)
            return self.net((bands / (slow.transpose(0, 1) + 1e-3))[:, None])

    torch.manual_seed(0)
    model = Smoothed("stft", 1, 40, "linear").eval()
    net = fd.from_torch(model, torch.zeros(1, SR // 4), frontend={"sr": SR})
    assert net.frontend is not None and net.frontend.kind == "filters"
    assert [layer.name for layer in net.layers][-3:] == ["net.0", "net.1", "net.2"]


def test_a_shape_that_means_two_inputs_is_refused():
    class Either(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Conv1d(1, 4, 9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x[:, 0, None] if x.ndim == 3 else x[:, None] - 0.9)

    with pytest.raises(fd.ParameterError, match=r"accepts \(1, 4000\) and \(1, 1, 4000\)"):
        fd.from_torch(Either().eval(), (1, 4000))


def test_without_the_sample_rate_the_error_says_how_to_get_on():
    with pytest.raises(fd.ParameterError, match=r"frontend=\{'sr': \.\.\.\}, its sample rate"):
        fd.from_torch(Tagger("stft", 2, 40, "clamp").eval(), (1, SR))


def test_what_no_front_end_can_say_is_refused():
    model = Tagger("stft", 2, 40, "clamp").eval()
    model.window = torch.rand(N_FFT)
    with pytest.raises(fd.ParameterError, match="window of the model's STFT is not one of hann"):
        fd.from_torch(model, (1, SR), frontend={"sr": SR})

    class Odd(Tagger):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            size = torch.stft(x, N_FFT, HOP, window=self.window, return_complex=True).abs()
            return self.net(torch.floor(3 * size)[:, None])

    with pytest.raises(fd.ParameterError, match=r"\(Floor\) cannot be a layer"):
        fd.from_torch(Odd("stft", 1, None, "linear").eval(), (1, SR), frontend={"sr": SR})


def test_a_model_without_an_stft_has_no_front_end_to_be_recognised():
    plain = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 9), torch.nn.ReLU()).eval()
    with pytest.raises(fd.ParameterError, match="the model has no STFT"):
        fd.from_torch(plain, (1, 1, 4000), frontend={"sr": SR})


class Whisper(torch.nn.Module):
    """The front end of Whisper, up to its normalisation or without it, and two convolutions."""

    def __init__(self, drop: bool, normalise: bool) -> None:
        super().__init__()
        self.drop, self.normalise = drop, normalise
        filters = librosa.filters.mel(sr=SR, n_fft=N_FFT, n_mels=80)
        self.register_buffer("window", torch.hann_window(N_FFT))
        self.register_buffer("filters", torch.tensor(filters))
        self.net = torch.nn.Sequential(
            torch.nn.Conv1d(80, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv1d(6, 6, 3)
        )

    def level(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, N_FFT, HOP, window=self.window, return_complex=True)
        spectrum = spectrum[..., :-1] if self.drop else spectrum
        level = (self.filters @ spectrum.abs() ** 2).clamp(min=1e-10).log10()
        if self.normalise:
            level = (torch.maximum(level, level.max() - 8.0) + 4.0) / 4.0
        return level

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(self.level(x))


def fading_noise() -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.1, SR)
    return (noise * np.linspace(1, 1e-5, SR)).astype(np.float32)


def test_the_front_end_of_whisper_can_be_written() -> None:
    frontend = fd.Frontend(
        sr=SR, n_fft=N_FFT, hop_length=HOP, kind="mel", n_mels=80, power=2.0, pad_mode="reflect",
        scale={"type": "db", "ref": 1.0, "amin": 1e-10, "top_db": 80.0},
        normalize={"type": "affine", "scale": 0.025, "shift": 1.0}, frames=100, layout="FCT",
    )
    samples = fading_noise()
    clip = fd.Clip(samples, SR, frontend)
    wanted = Whisper(drop=True, normalise=True).level(torch.tensor(samples))
    np.testing.assert_allclose(clip.x[:, 0], wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_the_front_end_of_whisper_is_recognised(drop: bool, normalise: bool) -> None:
    torch.manual_seed(0)
    model = Whisper(drop, normalise).eval()
    net = fd.from_torch(model, torch.zeros(1, SR), frontend={"sr": SR})
    assert [layer.name for layer in net.layers] == ["net.0", "net.1", "net.2"]
    assert net.frontend is not None and net.frontend.frames == (100 if drop else None)
    samples = fading_noise()
    with torch.no_grad():
        wanted = model(torch.tensor(samples[None]))[0].numpy()
    found = net.forward(fd.Clip(samples, SR, net.frontend).x)["net.2"]
    np.testing.assert_allclose(found[:, 0], wanted, atol=1e-4 * np.abs(wanted).max())


def test_an_import_may_begin_at_the_logarithm_of_a_log10() -> None:
    # PyTorch divides it by a constant of the type of a value that lies before it.
    model = Whisper(drop=False, normalise=True).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        exported = torch.onnx.export(
            model, (torch.zeros(1, SR),), dynamo=True, optimize=False, verbose=False
        ).model_proto
    level = next(n for n in exported.graph.node if n.output[0] == "log10")
    (log,) = (n for n in exported.graph.node if n.output[0] == level.input[0])
    assert log.op_type == "Log"
    net = fd.from_onnx(exported, inputs=log.output[0])
    assert net.input_shape == (80, 1, None)
    with pytest.raises(fd.ParameterError, match=(
        "'x' is not computed from 'max_1', where the network begins; begin at a value from which "
        "all of the rest is computed"
    )):
        fd.from_onnx(exported, inputs="max_1")
