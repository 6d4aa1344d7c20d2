"""Headless Chromium for tests of pages.

It is driven over its own DevTools protocol: that needs no driver beside it and, unlike WebDriver, can compose text as an
input method does.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 15.0
QUIET = (
    "--headless --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-port=0"
)
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), "k": (75, "")}  # code, and what it types

# The texts whose contrast with the nearest background is below 4.5, by the formula of WCAG 2.2. The canvas converts every
# color syntax to RGBA.
FAINT = """(() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = (color) => {
        const [r, g, b] = rgba(color).map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        const { backgroundColor } = getComputedStyle(element);
        return rgba(backgroundColor)[3] || !element.parentElement ? backgroundColor : ground(element.parentElement);
    };
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !element.getClientRects().length) continue;
        const two = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => a - b);
        const contrast = (two[1] + 0.05) / (two[0] + 0.05);
        if (contrast < 4.5) found.push(`${contrast.toFixed(2)}: ${texts.currentNode.data.trim()}`);
    }
    return found;
})()"""


class Chromium:
    """A connection to a running Chromium."""

    def __init__(self, address: str) -> None:
        self._socket = connect(address, max_size=None)
        self._sent = 0
        self.events: list[dict[str, Any]] = []
        self.agent: str = self.command("Browser.getVersion")["userAgent"]

    def command(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its result; what happens meanwhile goes to `events`."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while (answer := json.loads(self._socket.recv(timeout=PATIENCE_S))).get("id") != self._sent:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]


class Page:
    """A tab with cookies and storage of its own."""

    def __init__(self, chromium: Chromium, width: int, height: int, language: str, scheme: str) -> None:
        self._chromium = chromium
        self._context = chromium.command("Target.createBrowserContext")["browserContextId"]
        target = chromium.command("Target.createTarget", url="about:blank", browserContextId=self._context)["targetId"]
        self._session = chromium.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self.command(f"{domain}.enable")
        self.command("Emulation.setFocusEmulationEnabled", enabled=True)
        self.command("Emulation.setUserAgentOverride", userAgent=chromium.agent, acceptLanguage=language)
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._chromium.command(method, self._session, **parameters)

    def close(self) -> None:
        self._chromium.command("Target.disposeBrowserContext", browserContextId=self._context)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        done = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise AssertionError(f"{expression}: {done['exceptionDetails']['exception']['description']}")
        return done["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.evaluate(f"Promise.resolve({expression}).then(Boolean)"):
            assert time.monotonic() < deadline, f"never true: {expression}\n{self.evaluate('document.body.innerText')}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """What is visible of the first element that fits."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def texts(self, selector: str) -> list[str]:
        return self.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.innerText)")

    def write(self, text: str) -> None:
        """Put text where the focus is, as if pasted."""
        self.command("Input.insertText", text=text)

    def compose(self, text: str) -> None:
        """Leave text in the state of an input method that has not been told yet which characters are meant."""
        self.command("Input.imeSetComposition", text=text, selectionStart=len(text), selectionEnd=len(text))

    def press(self, key: str, modifiers: int = 0, *, types: bool = True) -> None:
        code, text = KEYS[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.command("Input.dispatchKeyEvent", type="keyDown", text=text if types else "", **common)
        self.command("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, selector: str) -> None:
        """Press the middle of the first element that fits with the mouse; it must not be covered."""
        x, y = self.evaluate(
            f"""(() => {{
                const element = document.querySelector({json.dumps(selector)});
                element.scrollIntoView({{ block: "nearest" }});
                const {{ x, y, width, height }} = element.getBoundingClientRect();
                const at = [x + width / 2, y + height / 2];
                if (!element.contains(document.elementFromPoint(...at))) throw new Error("covered or not visible");
                return at;
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def show(self, file: Path) -> None:
        """Opens a report and unfolds all of it."""
        self.command("Page.navigate", url=file.as_uri())
        self.until("document.readyState === 'complete' && document.querySelector('main') !== null")
        self.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        width: int = self.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return width

    def faint(self) -> list[str]:
        """Visible texts with a contrast below 4.5 to their background, each with its contrast."""
        texts: list[str] = self.evaluate(FAINT)
        return texts

    def complaints(self) -> list[str]:
        """Errors and warnings of the console so far, and exceptions that nothing caught."""
        self.evaluate("0")
        found = []
        for event in self._chromium.events:
            if event.get("sessionId") != self._session:
                continue
            details = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(details["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning", "assert"):
                found.append(json.dumps(details["args"]))
            elif event["method"] == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
                found.append(details["entry"]["text"])
        return found


@contextmanager
def running(program: str, profile: Path) -> Iterator[Chromium]:
    """A Chromium of its own, with its files in the empty folder `profile`."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to be root's otherwise
    command = [program, *QUIET.split(), *sandbox, f"--user-data-dir={profile}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = profile / "DevToolsActivePort"  # its port, and the path of the browser's own connection
        deadline = time.monotonic() + 4 * PATIENCE_S
        while not port.exists() or len(port.read_text().split()) < 2:
            assert process.poll() is None, f"{program} ended with status {process.returncode} at its start"
            assert time.monotonic() < deadline, f"{program} did not open its DevTools port"
            time.sleep(0.1)
        yield Chromium("ws://127.0.0.1:{}{}".format(*port.read_text().split()))
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)
