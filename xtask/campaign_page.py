#!/usr/bin/env python3
"""Looks at the page as a reader does: real Chromium, driven through chromedriver's WebDriver protocol.

    python3 xtask/campaign_page.py http://127.0.0.1:PORT [--shots FOLDER]

Started by `cargo xtask campaign`, which starts the program it looks at. Standard library only. Every check runs in
light and dark, wide (1400 px) and narrow (390 px). Prints what failed, and one closing line
`campaign page: N passed, N failed`; answers 1 when anything failed.
"""

import base64
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

KEY_RIGHT, KEY_PLUS = "\ue014", "+"
WAIT_SECONDS = 30


class Browser:
    """One headless Chromium with a folder of its own, and its driver on a free port."""

    def __init__(self, width, height, scheme):
        self.folder = tempfile.mkdtemp(prefix="graylogic-campaign-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.driver = subprocess.Popen(["chromedriver", f"--port={self.port}"], **quiet)
        self.session = ""
        try:
            wait(lambda: self.call("GET", "/status")["ready"], "chromedriver to be ready")
            flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync",
                     "--disable-dev-shm-usage", f"--user-data-dir={self.folder}", f"--window-size={width},{height}"]
            wanted = {"goog:chromeOptions": {"args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}
            made = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self.session = "/session/" + made["sessionId"]
            self.devtools("Emulation.setDeviceMetricsOverride",
                          {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
            self.devtools("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
            self.devtools("Emulation.setTimezoneOverride", {"timezoneId": "Europe/Paris"})
        except BaseException:
            self.end()
            raise

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        address = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
        # A proxy named in the environment has no business between this script and its own driver.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def devtools(self, command, parameters):
        return self.call("POST", self.session + "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, address):
        self.call("POST", self.session + "/url", {"url": address})

    def ask(self, script, *arguments):
        return self.call("POST", self.session + "/execute/sync", {"script": script, "args": list(arguments)})

    def ask_later(self, script):
        return self.call("POST", self.session + "/execute/async", {"script": script, "args": []})

    def act(self, *sources):
        self.call("POST", self.session + "/actions", {"actions": list(sources)})

    def press(self, *keys):
        steps = [step for key in keys for step in ({"type": "keyDown", "value": key}, {"type": "keyUp", "value": key})]
        self.act({"type": "key", "id": "keys", "actions": steps})

    def drag(self, start, stop):
        move = lambda to, ms: {"type": "pointerMove", "x": int(to[0]), "y": int(to[1]), "duration": ms}
        self.act({"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": [
            move(start, 0), {"type": "pointerDown", "button": 0}, move(stop, 200), {"type": "pointerUp", "button": 0}]})

    def double_click(self, at):
        press = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self.act({"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": [
            {"type": "pointerMove", "x": int(at[0]), "y": int(at[1])}, *press, *press]})

    def console(self):
        return [entry for entry in self.call("POST", self.session + "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]

    def picture(self, file):
        shot = self.devtools("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})
        file.write_bytes(base64.b64decode(shot["data"]))

    def end(self):
        try:
            if self.session:
                self.call("DELETE", self.session)
        except OSError:
            pass  # The driver is gone already; what matters is that nothing stays behind.
        finally:
            self.driver.terminate()
            try:
                self.driver.wait(10)
            except subprocess.TimeoutExpired:
                self.driver.kill()
            shutil.rmtree(self.folder, ignore_errors=True)


def wait(question, what, seconds=WAIT_SECONDS):
    """Asks until the answer is truthy; a time-out names what was waited for."""
    end = time.monotonic() + seconds
    trouble = None
    while time.monotonic() < end:
        try:
            answer = question()
            if answer:
                return answer
        except OSError as error:
            trouble = error
        time.sleep(0.1)
    raise TimeoutError(f"waited {seconds} s for {what}" + (f" ({trouble})" if trouble else ""))


NUMBER = "return Number(document.getElementById(arguments[0]).textContent.replace(/[^0-9.]/g, ''))"
DRAWN = """
const canvas = document.querySelector('#canvas canvas');
if (!canvas || canvas.closest('[hidden]')) return 0;
const ink = document.createElement('canvas').getContext('2d');
ink.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--accent').trim();
ink.fillRect(0, 0, 1, 1);
const [red, green, blue] = ink.getImageData(0, 0, 1, 1).data;
const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
let found = 0;
for (let at = 0; at < pixels.length; at += 4) {
  if (pixels[at + 3] > 200 && Math.abs(pixels[at] - red) + Math.abs(pixels[at + 1] - green) + Math.abs(pixels[at + 2] - blue) < 40) found += 1;
}
return found;
"""
# The contrast of every text against the nearest painted ground behind it, by the rule of WCAG 2.
CONTRAST = """
const parse = (text) => { const found = text.match(/[0-9.]+/g).map(Number); return found.length > 3 ? found : [...found, 1]; };
const light = ([red, green, blue]) => [red, green, blue]
  .map((part) => part / 255).map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
  .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
const over = (top, ground) => [0, 1, 2].map((at) => top[at] * top[3] + ground[at] * (1 - top[3]));
const ground = (element) => {
  const painted = [];
  for (let at = element; at; at = at.parentElement) painted.push(parse(getComputedStyle(at).backgroundColor));
  return painted.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
};
const weak = [];
for (const element of document.querySelectorAll('body *')) {
  if (element.disabled || element.closest('[hidden], .unseen, .skip, noscript, canvas')) continue;
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== '')) continue;
  const behind = element.matches('.presets span') ? null : ground(element);
  if (!behind || element.getClientRects().length === 0) continue;
  const ink = over(parse(getComputedStyle(element).color), behind);
  const [high, low] = [light(ink), light(behind)].sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) weak.push(`${element.tagName} "${element.textContent.trim().slice(0, 30)}" ${ratio.toFixed(2)}`);
}
return weak;
"""
# The pure parts of the page, checked where they run.
PURE = """
const done = arguments[arguments.length - 1];
(async () => {
  const format = await import('/assets/format.js');
  const windows = await import('/assets/windows.js');
  const choice = await import('/assets/choice.js');
  const wrong = [];
  const same = (what, found, wanted) => {
    if (JSON.stringify(found) !== JSON.stringify(wanted)) wrong.push(`${what}: ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
  };
  for (const [value, wanted] of [[0, '0'], [0.1 + 0.2, '0.3'], [1234567.891, '1,234,568'], [-4.5, '-4.5'], [1e20, '100000000000000000000'], [1.5e-9, '1.5e-9'], [NaN, 'NaN']]) same(`reading ${value}`, format.reading(value), wanted);
  for (const [value, wanted] of [[0, '0 B'], [999, '999 B'], [1000, '1.00 kB'], [12345, '12.3 kB'], [999500, '1.00 MB']]) same(`bytes ${value}`, format.bytes(value), wanted);
  for (const [value, wanted] of [[0, '0 s'], [125000, '2 min 5 s'], [3605000, '1 h'], [90000000, '1 d 1 h']]) same(`span ${value}`, format.span(value), wanted);
  for (const [value, wanted] of [['power_watts', 'W'], ['energy_kwh', 'kWh'], ['sub_metering_1_wh', 'Wh'], ['value', ''], ['flow_l_per_s', 'l/s']]) same(`unit ${value}`, format.unit(value), wanted);
  same('shortened keeps pairs whole', format.shortened('a\\u{1F321}b', 2), 'a… (4 characters)');
  const answer = (window, time, mean, count) => ({ window_seconds: window, time, mean, min: mean, max: mean, count });
  const gaps = (...parts) => windows.columns(answer(...parts)).gaps;
  same('an empty window among full ones is a gap', gaps(60, [0, 60, 120, 180, 240], [1, 2, null, 3, 4], [6, 6, 0, 6, 6]), 1);
  same('hourly readings in windows of a minute have no gap', gaps(60, [0, 60, 3600, 3660, 7200, 10800], [1, null, 2, null, 3, 4], [1, 0, 1, 0, 1, 1]), 0);
  same('a missing hour among hourly readings is a gap', gaps(60, [0, 3600, 7200, 10800, 14400, 21600], [1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1]), 0 + 1);
  same('nothing is nothing', windows.summary(windows.columns(answer(60, [], [], []))), null);
  same('the mean is over readings', windows.summary(windows.columns(answer(60, [0, 60], [1, 4], [3, 1]))).mean, 1.75);
  const chosen = { bucket: 'b', measurement: 'm &=#', field: 'f', tags: { a: 'ä"<b>', z: '1' } };
  same('an address says what was chosen', choice.read(choice.write(chosen, { from: 1000, to: 2000 })), { ...chosen, range: { from: 1000, to: 2000 } });
  same('a damaged address chooses nothing', choice.read('#tags=%7B%22&range=9y&from=x').tags, null);
  const day = 86400000;
  same('a live series ends now', choice.resolve({ preset: '24h' }, 0, 100 * day - 5000, 100 * day), { from: 99 * day, to: 100 * day, live: true });
  same('a recording ends at its last reading', choice.resolve({ preset: '24h' }, 0, day, 100 * day), { from: 1000, to: day + 1000, live: false });
  return wrong;
})().then(done, (error) => done([String(error)]));
"""


class Campaign:
    def __init__(self, address, shots):
        self.address = address
        self.shots = shots
        self.passed = 0
        self.failures = []

    def check(self, where, what, holds, found=None):
        if holds:
            self.passed += 1
        else:
            self.failures.append(f"{where}: {what}" + ("" if found is None else f" (found {found})"))

    def look(self, width, height, scheme):
        where = f"{width} px, {scheme}"
        browser = Browser(width, height, scheme)
        try:
            browser.open(self.address)
            self.stands(browser, where)
            self.follows(browser, where, width)
            quiet = browser.console()
            self.check(where, "the console has no error", not quiet, [entry["message"] for entry in quiet][:3])
            if self.shots:
                browser.picture(self.shots / f"page-{width}-{scheme}.png")
        finally:
            browser.end()

    def stands(self, browser, where):
        """What is there without doing anything."""
        drawn = lambda: browser.ask(DRAWN)
        self.check(where, "points are stored", wait(lambda: browser.ask(NUMBER, "points") > 0, "a number of points"))
        self.check(where, "the page has its title", browser.ask("return document.title") == "Gray Logic Telemetry")
        self.check(where, "the store is well", browser.ask("return document.getElementById('state').dataset.state") == "ok")
        for fact in ["series-count", "measurement-count", "bytes-on-disk", "bytes-per-point", "memory-bytes"]:
            self.check(where, f"{fact} is not zero", wait(lambda: browser.ask(NUMBER, fact) > 0, fact))
        rows = wait(lambda: browser.ask("return document.querySelectorAll('#latest-rows tr').length"), "rows of latest values")
        self.check(where, "latest values are listed, 200 at most", 0 < rows <= 200, rows)
        wait(lambda: drawn() > 50, "a line on the chart")
        self.check(where, "the chart has a line", drawn() > 50, drawn())
        wide = browser.ask("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        self.check(where, "nothing reaches over the side", wide[0] <= wide[1], wide)
        weak = browser.ask(CONTRAST)
        self.check(where, "every text stands out from its ground", not weak, weak[:5])
        unnamed = browser.ask("""return [...document.querySelectorAll('button, input, select')].filter((one) =>
            !one.closest('[hidden]') && !(one.labels?.length || one.ariaLabel || one.textContent.trim())).map((one) => one.id)""")
        self.check(where, "every control has a name", not unnamed, unnamed)
        inline = browser.ask("return document.querySelectorAll('script:not([src])').length + document.querySelectorAll('style').length")
        self.check(where, "no script or style stands inline", inline == 0, inline)
        wrong = browser.ask_later(PURE)
        self.check(where, "the pure parts compute", not wrong, wrong)

    def follows(self, browser, where, width):
        """What happens when the reader does something."""
        address = lambda: browser.ask("return location.hash")
        drawn = lambda: browser.ask(DRAWN)
        settled = lambda: browser.ask("return !document.getElementById('plot').hasAttribute('aria-busy') && document.getElementById('message').hidden")

        before = address()
        self.check(where, "the address names a series", "measurement=" in before and "field=" in before, before)
        browser.ask("document.querySelector('#latest-rows tr:not([aria-current]) td.field button').click()")
        wait(lambda: address() != before, "another address after choosing another series")
        self.check(where, "another series is another address", address() != before)
        marked = wait(lambda: browser.ask("return document.querySelectorAll('#latest-rows tr[aria-current]').length"), "a marked row")
        self.check(where, "one row is marked", marked == 1, marked)
        browser.ask("history.back()")
        wait(lambda: address() == before, "the first address after going back")
        self.check(where, "back is back", address() == before)

        browser.ask("document.querySelector('#presets input[value=all]').click()")
        wait(lambda: "range=all" in address(), "the range in the address")
        wait(lambda: settled() and drawn() > 50, "a line over the whole range")
        self.check(where, "the whole range has a line", drawn() > 50, drawn())
        whole = browser.ask("return document.getElementById('readout').textContent")
        self.check(where, "the whole range is summed up", "Mean" in whole or "texts" in whole, whole)

        box = browser.ask("""const plot = document.querySelector('#canvas .u-over');
            plot.scrollIntoView({ block: 'center' });
            const { left, top, width, height } = plot.getBoundingClientRect();
            return [left, top, width, height]""")
        middle = box[1] + box[3] / 2
        if width > 500:
            browser.drag((box[0] + box[2] * 0.3, middle), (box[0] + box[2] * 0.6, middle))
            wait(lambda: "from=" in address(), "a zoomed range in the address")
            self.check(where, "dragging zooms", "from=" in address() and "to=" in address(), address())
            wait(settled, "the zoomed chart")
            browser.double_click((box[0] + box[2] / 2, middle))
            wait(lambda: "range=all" in address(), "the range from before zooming")
            self.check(where, "a double click goes back", "range=all" in address(), address())
            wait(settled, "the whole chart")
        browser.ask("document.getElementById('plot').focus()")
        browser.press(KEY_RIGHT, KEY_RIGHT)
        spoken = browser.ask("return document.getElementById('spoken').textContent")
        self.check(where, "the arrow keys read the chart aloud", spoken != "", spoken)
        browser.press(KEY_PLUS)
        wait(lambda: "from=" in address(), "a range zoomed by key")
        browser.press("0")
        wait(lambda: "range=all" in address(), "the range reset by key")
        self.check(where, "plus zooms and zero resets", True)

        browser.ask("const box = document.getElementById('filter'); box.value = 'no such word'; box.dispatchEvent(new Event('input'))")
        self.check(where, "a filter that fits nothing says so", browser.ask("return !document.getElementById('latest-none').hidden"))
        browser.ask("const box = document.getElementById('filter'); box.value = ''; box.dispatchEvent(new Event('input'))")

        paper = lambda: browser.ask("return getComputedStyle(document.body).backgroundColor")
        seen = {paper()}
        for _ in range(2):
            browser.ask("document.getElementById('theme').click()")
            seen.add(paper())
        chosen = browser.ask("return localStorage.getItem('graylogic-theme')")
        self.check(where, "the theme button shows both", len(seen) == 2 and chosen == "dark", [sorted(seen), chosen])
        browser.ask("document.getElementById('theme').click()")
        wait(lambda: settled() and drawn() > 50, "the chart in the first colours")

        kept = address()
        browser.open("about:blank")
        browser.open(self.address + "/" + kept)
        wait(lambda: settled() and drawn() > 50, "the chart after opening the link")
        self.check(where, "a link shows the same again", address() == kept, address())
        wide = browser.ask("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        self.check(where, "still nothing reaches over the side", wide[0] <= wide[1], wide)


def main(arguments):
    if not arguments or len(arguments) not in (1, 3) or (len(arguments) == 3 and arguments[1] != "--shots"):
        sys.exit(__doc__)
    shots = Path(arguments[2]) if len(arguments) == 3 else None
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(arguments[0].rstrip("/"), shots)
    for scheme in ["light", "dark"]:
        for width, height in [(1400, 900), (390, 844)]:
            try:
                campaign.look(width, height, scheme)
            except (OSError, KeyError, TypeError, subprocess.SubprocessError) as error:
                campaign.failures.append(f"{width} px, {scheme}: {type(error).__name__}: {error}")
    for failure in campaign.failures:
        print(f"campaign page: FAILED {failure}")
    print(f"campaign page: {campaign.passed} passed, {len(campaign.failures)} failed", flush=True)
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
