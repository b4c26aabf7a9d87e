"""Fixtures of the viewer's tests: small records with known numbers, a real Chromium, a real JupyterLab."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

_LAB_FLAGS = (
    "--no-browser",
    "--allow-root",
    "--ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--IdentityProvider.token=",
    "--ServerApp.password=",
    "--ServerApp.disable_check_xsrf=True",
    "--ServerApp.terminals_enabled=False",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.extension_manager=readonly",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)
_LOCAL = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "file:", "about:")


@pytest.fixture
def new_page(chromium):
    """Open pages that remember errors and every request that left the machine; ``offline=True`` by default."""
    contexts = []

    def make(*, offline=True, black_hole=False, **options):
        context = chromium.new_context(offline=offline, viewport={"width": 1250, "height": 1000}, **options)
        contexts.append(context)
        page = context.new_page()
        page.errors, page.outside, page.dialogs = [], [], []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(_LOCAL) else page.outside.append(r.url))
        page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
        if black_hole:
            page.route(lambda url: url.startswith("http"), lambda _: None)
        return page

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def open_viewer(new_page, tmp_path):
    """Save a viewer as a page, open it from file:// and wait for its first picture."""

    def opened(viewer, **options):
        path = viewer.save_html(tmp_path / f"{time.monotonic_ns()}.html")
        page = new_page(**options)
        page.goto(f"file://{path}", wait_until="commit")
        page.wait_for_selector(".attnlib-viewer[data-tick]", timeout=20_000)
        return page

    return opened


@contextlib.contextmanager
def lab_server(folder: Path, home: Path, settings: dict):
    """Run a JupyterLab of its own on loopback and yield its address."""
    for plugin, values in settings.items():
        package, name = plugin.split(":")
        file = home / "settings" / package / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = dict(
        os.environ,
        JUPYTER_CONFIG_DIR=str(home / "config"),
        JUPYTER_DATA_DIR=str(home / "data"),
        JUPYTER_RUNTIME_DIR=str(home / "runtime"),
        JUPYTERLAB_SETTINGS_DIR=str(home / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(home / "workspaces"),
        IPYTHONDIR=str(home / "ipython"),
        PYDEVD_DISABLE_FILE_VALIDATION="1",
    )
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        *_LAB_FLAGS,
        f"--port={port}",
        f"--ServerApp.root_dir={folder}",
    ]
    with open(home / "lab.log", "wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_for(url: str, server: subprocess.Popen, timeout: float = 120) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended with {server.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(url)


class Lab:
    """One notebook in a JupyterLab, driven by commands and keys."""

    def __init__(self, page, address):
        self.page, self.address = page, address

    def open(self, name):
        self.page.goto(f"{self.address}/doc/tree/{name}?reset", wait_until="domcontentloaded")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
        self.page.wait_for_function("() => window.jupyterapp")
        self.page.wait_for_function(
            """() => { const w = window.jupyterapp.shell.currentWidget;
              const k = w && w.context && w.context.sessionContext.session && w.context.sessionContext.session.kernel;
              return !!k && k.status === 'idle' && k.connectionStatus === 'connected'; }""",
            timeout=120_000,
        )

    def command(self, name):
        return self.page.evaluate("(name) => window.jupyterapp.commands.execute(name)", name)

    def run_all(self):
        self.command("notebook:run-all-cells")
        return self.page.evaluate(
            """() => { const out = [];
              for (const c of window.jupyterapp.shell.currentWidget.content.model.cells)
                if (c.type === 'code') for (const o of c.outputs.toJSON())
                  if (o.output_type === 'error') out.push(o.ename + ': ' + o.evalue);
              return out; }"""
        )


@pytest.fixture(scope="session")
def lab_folder(tmp_path_factory):
    """Folder that the test JupyterLab shows."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="session")
def lab_address(lab_folder, tmp_path_factory):
    """Address of a JupyterLab of this session."""
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
    with lab_server(lab_folder, tmp_path_factory.mktemp("home"), quiet) as address:
        yield address


@pytest.fixture
def lab(new_page, lab_address):
    """A page of that JupyterLab."""
    driver = Lab(new_page(offline=False), lab_address)
    yield driver
    with contextlib.suppress(Exception):
        driver.command("kernelmenu:shutdown")


@pytest.fixture(scope="session")
def scene():
    """A record over 5x7 patches (3 layers, 2 heads, one class token), its picture and one region."""
    import numpy as np
    import torch

    from attnlib.layout import TokenLayout
    from attnlib.picture import Picture
    from attnlib.record import AttentionRecord
    from attnlib.regions import Regions

    generator = torch.Generator().manual_seed(11)
    weights = [torch.softmax(3 * torch.randn(1, 2, 36, 36, generator=generator), dim=-1) for _ in range(3)]
    layout = TokenLayout((5, 7), 13, ("class",), readout=(0,))
    record = AttentionRecord.from_weights(weights, layout=layout)
    pixels = np.random.default_rng(5).integers(0, 255, (65, 91, 3), dtype=np.uint8)
    mask = np.zeros((65, 91))
    mask[13:39, 26:65] = 1
    return {
        "record": record,
        "weights": weights,
        "layout": layout,
        "picture": Picture(pixels, "noise.png"),
        "regions": Regions.from_masks({"the middle": mask}),
    }


@pytest.fixture(scope="session")
def sentence():
    """A record over 7 tokens of text, 3 layers and 2 heads."""
    import torch

    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord

    generator = torch.Generator().manual_seed(7)
    weights = [torch.softmax(2 * torch.randn(1, 2, 7, 7, generator=generator), dim=-1) for _ in range(3)]
    tokens = ["[CLS]", "the", "play", "##ing", "field", "is", "[SEP]"]
    layout = TokenLayout(None, tokens=tokens, readout=(0,))
    return {
        "record": AttentionRecord.from_weights(weights, layout=layout),
        "weights": weights,
        "tokens": tokens,
    }


@pytest.fixture(scope="session")
def read():
    """Read what a reference of the blob describes, as decode.js does: read(blob, reference)."""
    import zlib

    import numpy as np

    from attnlib.widgets.packing import log_values

    kinds = {"f32": np.float32, "f16": np.float16, "u8": np.uint8}

    def values(blob, reference):
        raw = blob[reference["offset"] : reference["offset"] + reference["length"]]
        raw = zlib.decompress(raw) if reference["packed"] else raw
        found = np.frombuffer(raw, kinds[reference["dtype"]]).reshape(reference["shape"])
        if reference["dtype"] == "u8":
            return log_values(found, values(blob, reference["scale"]))
        return found.astype(np.float32)

    return values
