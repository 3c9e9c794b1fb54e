"""A headless Chromium over its DevTools pipe: what it requests, what it complains of, what a page shows in it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page of a browser."""

    def __init__(self, write_to: int, read_from: int) -> None:
        self._to, self._from = os.fdopen(write_to, "wb", buffering=0), os.fdopen(read_from, "rb", buffering=0)
        self._last, self._rest, self._session = 0, b"", None
        self.events: list[dict] = []

    def close(self) -> None:
        self.call("Browser.close", on_page=False)
        self._to.close()
        self._from.close()

    def call(self, method: str, *, on_page: bool = True, **parameters: object) -> dict:
        """Call a method of the DevTools protocol and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if on_page:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._last:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict:
        while b"\0" not in self._rest:
            read = self._from.read(1 << 20)
            assert read, "the browser is gone"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, url: str, width: int, height: int, *, scheme: str = "light") -> None:
        """Open a page of this size and wait until it is loaded."""
        target = self.call("Target.createTarget", on_page=False, url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", on_page=False, targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression: str) -> object:
        """Evaluate JavaScript on the page."""
        evaluated = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in evaluated, evaluated
        return evaluated["result"].get("value")

    def requests(self) -> list[str]:
        """Return the addresses that were requested."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[dict]:
        """Return what went to the console, and what a script died of."""
        names = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}
        return [event for event in self.events if event["method"] in names]


@contextmanager
def browser(folder: object) -> Iterator[Browser]:
    """Start a browser with a profile of its own in `folder`, and end it."""
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()

    def at_three_and_four() -> None:
        os.dup2(to_browser, 13)
        os.dup2(from_browser, 14)
        os.dup2(13, 3)
        os.dup2(14, 4)

    process = subprocess.Popen(
        [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe",
         f"--user-data-dir={folder}"],
        preexec_fn=at_three_and_four,  # noqa: PLW1509
        close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_browser)
    os.close(from_browser)
    page = Browser(from_us, to_us)
    try:
        yield page
        page.close()
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
