"""A browser that tests drive: Debian's Chromium without a window, by Selenium. Nothing is downloaded."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any, Self

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

BINARY, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-default-apps", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-features=OptimizationHints,MediaRouter,Translate", "--force-device-scale-factor=1", "--hide-scrollbars",
    "--force-prefers-reduced-motion")
WITHIN_S = 15
WIDE, NARROW = (1440, 900), (400, 800)


class Browser:
    """One browser. `origin` is the address of the page, without a path."""

    def __init__(self) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="amqpd-chromium-", ignore_cleanup_errors=True)
        options = webdriver.ChromeOptions()
        options.binary_location = BINARY
        for option in (*OPTIONS, f"--user-data-dir={self._profile.name}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.origin = ""
        self.resize(*WIDE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()
        self._profile.cleanup()

    def begin(self, origin: str) -> None:
        """Begin with a page, without cookies, without what was complained of before, and in the light theme."""
        self.origin = origin
        self.driver.get(origin + "/login")
        self.driver.delete_all_cookies()
        self.driver.execute_script("localStorage.clear(); sessionStorage.clear()")
        self.theme("light")
        self.resize(*WIDE)
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)

    def sign_in(self, name: str = "guest", password: str = "guest") -> None:
        """Sign in with the form."""
        self.open("/login")
        self.fill("username", name)
        self.fill("password", password)
        self.find("main form button").click()
        self.wait(lambda: "/login" not in self.driver.current_url)

    def open(self, path: str) -> None:
        """Open a page by its path, and wait until it is there."""
        self.driver.get(self.origin + path)

    def find(self, selector: str) -> WebElement:
        """Return the first element of a CSS selector; wait until there is one that is shown."""
        self.wait(lambda: any(one.is_displayed() for one in self.all(selector)), selector)
        return next(one for one in self.all(selector) if one.is_displayed())

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements of a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        """Click an element."""
        self.find(selector).click()

    def press(self, text: str, within: str = "body") -> None:
        """Click the button, or the link, with this text."""
        found = [one for one in self.find(within).find_elements(By.CSS_SELECTOR, "button, a, summary")
                 if one.is_displayed() and one.text.strip() == text]
        assert found, f"no button {text!r} in {within}"
        found[0].click()

    def fill(self, name: str, value: str, within: str = "") -> None:
        """Fill a field, by its name."""
        field = self.find(f'{within} [name="{name}"]')
        if field.tag_name == "select":
            self.driver.execute_script(
                "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change', {bubbles: true}))",
                field, value)
        else:
            field.clear()
            field.send_keys(value)

    def text(self, selector: str = "main") -> str:
        """Return the text of an element, as it is seen."""
        return self.find(selector).text

    def wait(self, condition: Any, what: str = "") -> None:
        """Wait until a condition is true."""
        WebDriverWait(self.driver, WITHIN_S, 0.05, [Exception]).until(lambda _: condition(), what)

    def wait_for(self, text: str, selector: str = "body") -> None:
        """Wait until an element has this text."""
        self.wait(lambda: text in self.driver.find_element(By.CSS_SELECTOR, selector).text, f"{text!r} in {selector}")

    def resize(self, width: int, height: int) -> None:
        """Make the page so large."""
        self._do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def theme(self, scheme: str) -> None:
        """Make the system's theme `light` or `dark`."""
        self._do("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}])

    def shoot(self, file: Path, *, is_whole: bool = True) -> None:
        """Take a picture: of the whole page, or of what the window shows."""
        options: dict[str, Any] = {"captureBeyondViewport": is_whole}
        if is_whole:
            size = self._do("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {
                "x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 3000), "scale": 1}
        file.write_bytes(base64.b64decode(self._do("Page.captureScreenshot", format="png", **options)["data"]))

    def complaints(self) -> list[str]:
        """Return the errors in the console, and the requests that left the host, since the last call.

        An answer to a form with what is wrong in it has status 422, of which the console makes an error.
        """
        found = [one["message"] for one in self.driver.get_log("browser")
                 if one["level"] in ("SEVERE", "WARNING") and "status of 422" not in one["message"]]
        return found + [address for address in self.requests() if not address.startswith((self.origin, "data:"))]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call."""
        found = []
        for line in self.driver.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return [one for one in found if not one.startswith(("chrome", "about:"))]

    def _do(self, command: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)
