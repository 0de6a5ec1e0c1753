"""A browser, and pages for it to open.

Debian's chromium (or any Chrome that Playwright has) is driven by Playwright. Without one the
tests are skipped, unless FASTDECONV_REQUIRE_BROWSER=1 says that they must run.
"""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest
import soundfile

import fastdeconv as fd

SR = 11025

# Longer than anything takes on a machine that is busy: a guard against what never comes true.
PATIENCE = 60
# True once something has been heard; a sound that loops never ends before it is looked at.
SOUNDING = "Number(document.getElementById('time').textContent.replace(' s', '')) > 0.15"
# The audio elements of a page, in a global of its own: first what plays, then the original.
KEEP_SOUNDS = """sounds = []; const make = Audio; Audio = function () {
    const sound = new make(); sounds.push(sound); return sound; };"""
MUTED = "sounds.map(sound => sound.muted)"
PAUSED = "sounds.every(sound => sound.paused)"
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def unavailable(reason):
    if os.environ.get("FASTDECONV_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        unavailable("no browser tests: playwright is not installed")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            # Sounds begin without a click; no sandbox, because containers run as root.
            browser = playwright.chromium.launch(
                executable_path=executable,
                args=["--autoplay-policy=no-user-gesture-required", "--no-sandbox"],
            )
        except Error as error:
            unavailable(f"no browser tests: chromium does not start ({str(error).splitlines()[0]})")
        yield browser
        browser.close()


class Opened:
    """A page that is open, and everything it complained about or asked the network for."""

    def __init__(self, page, address):
        self.page, self.complaints = page, []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.on("request", self._asked)
        page.on("requestfailed", self._failed)
        page.set_default_timeout(1000 * PATIENCE)
        page.add_init_script(KEEP_SOUNDS)
        page.goto(address)

    def _asked(self, request):
        if not request.url.startswith(("file:", "data:")):
            self.complaints.append(f"asked for {request.url}")

    def _failed(self, request):
        # What is no longer wanted, a sound left for another one, is not a failure.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"failed: {request.url}")

    def text(self, selector):
        """What is shown; a panel that a link opens may not be there at once."""
        self.page.locator(selector).first.wait_for()
        return self.page.inner_text(selector)

    def visible(self, selector=".card"):
        """Texts of the headings of the cards that are shown, in order."""
        return self.page.eval_on_selector_all(
            f"#grid {selector}:not([hidden]) h3 a", "links => links.map(link => link.textContent)"
        )

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def wait_for(self, condition):
        # Not Playwright's own, which the page's content security policy forbids.
        end = time.monotonic() + PATIENCE
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"never came true: {condition}"
            self.page.wait_for_timeout(20)


@pytest.fixture
def open_page(browser):
    """Open a file or an address; the page must not have complained by the end of the test."""
    opened = []

    def open_it(path, *, fragment="", width=1280, height=900, scheme="light", touch=False):
        address = path if isinstance(path, str) else path.resolve().as_uri()
        page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme=scheme,
            has_touch=touch, is_mobile=touch,
        )
        opened.append(Opened(page, address + fragment))
        return opened[-1]

    yield open_it
    for one in opened:
        one.page.close()
        assert one.complaints == []


def make_network(names=("pool1", "pool2"), channels=(6, 8), classes=None, name="tiny"):
    """A small network. Features 0 and 1 of its first layer are alike, feature 2 is silent."""
    rng = np.random.default_rng(0)
    layers, arrays, inputs = [], {}, 1
    for i, (pool, outputs) in enumerate(zip(names, channels), start=1):
        layers += [
            {"type": "conv2d", "name": f"conv{i}", "padding": "same"},
            {"type": "relu", "name": f"relu{i}"},
            {"type": "max_pool2d", "name": pool, "kernel_size": 2},
        ]
        arrays[f"conv{i}.weight"] = rng.standard_normal((outputs, inputs, 3, 3))
        arrays[f"conv{i}.bias"] = np.zeros(outputs)
        inputs = outputs
    arrays["conv1.weight"][1] = 1.01 * arrays["conv1.weight"][0]
    arrays["conv1.weight"][2] = 0
    if classes:
        layers += [
            {"type": "global_avg_pool2d", "name": "mean"}, {"type": "flatten", "name": "flat"},
            {"type": "linear", "name": "fc"},
        ]
        arrays["fc.weight"] = rng.standard_normal((len(classes), inputs))
        arrays["fc.bias"] = np.zeros(len(classes))
    frontend = fd.Frontend(sr=SR, n_fft=256, hop_length=128)
    return fd.Network(
        layers, arrays, (1, None, None), frontend=frontend, name=name, classes=classes
    )


def make_samples(seed=0, seconds=2.0):
    """Clicks, a chord and a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * SR)) / SR
    samples = 0.01 * rng.standard_normal(t.size)
    for hz in rng.uniform(100, 1000, 3):
        samples += 0.1 * np.sin(2 * np.pi * hz * t)
    samples[rng.integers(500, 1500) :: SR // 3] += 0.8
    return samples.astype(np.float32)


@pytest.fixture(scope="session")
def song_folder(tmp_path_factory):
    """The result of one song, with sounds of a format that takes little room."""
    out = tmp_path_factory.mktemp("song")
    path = out / "clicks.wav"
    soundfile.write(path, make_samples(), SR)
    return fd.explain(path, make_network(classes=["rock", "jazz"])).save(out / "out")
