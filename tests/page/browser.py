"""A browser, by the WebDriver protocol, with nothing but Python's own library."""

import base64
import json
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Tab": "\ue004",
    "ArrowDown": "\ue015",
    "ArrowUp": "\ue013",
    "End": "\ue010",
    "Home": "\ue011",
    "Delete": "\ue017",
}
# What the browser objects to is kept before the page's own scripts run.
WITNESS = """
window.objections = [];
addEventListener("securitypolicyviolation", (event) =>
  objections.push(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
addEventListener("error", (event) => objections.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => objections.push(`rejection: ${event.reason}`));
"""


class Browser:
    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(prefix="try-page-", ignore_cleanup_errors=True)
        command = ["chromedriver", "--port=0"]
        self.driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.driver.stdout:
            if "on port" in line and "successfully" in line:
                self.address = "http://127.0.0.1:" + line.rstrip(".\n ").rsplit(" ", 1)[1]
                break
        else:
            raise SystemExit("try-page: chromedriver does not start")
        options = {"args": [*FLAGS, f"--user-data-dir={self.profile.name}"]}
        capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = None
        session = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.session = f"/session/{session['sessionId']}"
        self.devtools("Page.addScriptToEvaluateOnNewDocument", source=WITNESS)

    def close(self):
        try:
            if self.session:
                self.ask("DELETE", "")
        finally:
            self.driver.kill()
            self.driver.wait()
            self.profile.cleanup()

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.address + (self.session or "") + path, data, method=method)
        asked.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(asked, timeout=60) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def devtools(self, command, **parameters):
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, url):
        self.ask("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """The value of the body of a function."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def run_async(self, script, *arguments):
        """What the body of a function hands to `done`."""
        script = "const done = arguments[arguments.length - 1];" + script
        return self.ask("POST", "/execute/async", {"script": script, "args": list(arguments)})

    def wait(self, what, expression, seconds=15):
        """Waits until an expression of JavaScript is true; its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {expression}")):
            if time.monotonic() > end:
                seen = self.run("return document.querySelector('#search').value + ' ' + document.activeElement.outerHTML.slice(0, 200) + document.body.innerText")
                raise AssertionError(f"{what}: not within {seconds} s: {expression}\n{seen[:2000]}")
            time.sleep(0.05)
        return value

    def keys(self, *keys):
        """Presses keys, one after the other, wherever the focus is."""
        actions = []
        for key in keys:
            value = KEYS.get(key, key)
            actions += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def type(self, text):
        self.keys(*text)

    def size(self, width, height, scale=1, is_phone=False):
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)

    def prefer(self, **features):
        media = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.devtools("Emulation.setEmulatedMedia", features=media)

    def picture(self):
        return base64.b64decode(self.devtools("Page.captureScreenshot", format="png")["data"])

    def objections(self):
        """What the browser has refused or failed to do; answers of the registry that are no success are not meant."""
        logged = [entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"})]
        meant = [text for text in logged if "Failed to load resource" not in text and "net::ERR" not in text]
        return self.run("return window.objections.splice(0)") + meant
