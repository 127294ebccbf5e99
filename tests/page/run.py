"""Tries the registry's web page in a real browser: see scripts/try-page."""

import pathlib
import random
import struct
import sys
import threading
import time
import zlib

from browser import Browser
from stage import Host, crowd, fleet

IMAGES = pathlib.Path(__file__).resolve().parents[2] / "docs/images"
IMAGE_BYTES_MAX = 200_000
EVIL = "<img src=x onerror=window.is_owned=1>"
ROW = "[...document.querySelectorAll('#services .row.service:not([hidden])')]"
IS_LIVE = "document.querySelector('#connection').dataset.state === 'live'"
HAS_DIALOG = "document.querySelector('dialog[open]') !== null"
PROBLEM = "document.querySelector('dialog .problem').textContent"
STEPS = []


def step(function):
    STEPS.append(function)
    return function


def in_sight(text):
    return f"{ROW}.some((row) => row.textContent.includes({text!r}))"


def shown(text):
    return f"document.querySelector('#shown').textContent === {text!r}"


def search(browser, text):
    browser.keys("/")
    assert browser.run("return document.activeElement.id") == "search"
    browser.type(text)


def no_search(browser):
    browser.run("document.querySelector('#search').focus()")
    browser.keys("Escape")


def has_no_overflow(browser, what):
    wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], f"{what}: {wide[0]} pixels in a window of {wide[1]}"


@step
def services_appear_as_they_register(host, browser):
    browser.open(host.url + "/")
    browser.wait("it says that nothing is there", "document.querySelector('#empty').textContent.includes('Nothing is registered')")
    browser.wait("it is live", IS_LIVE)
    host.register({"id": "http-1", "name": "By HTTP", "host": "10.0.0.1", "port": 80, "type": "web"})
    browser.wait("one by HTTP", in_sight("By HTTP"), 3)
    host.register_by_zeromq("By ZeroMQ", "10.0.0.2", "81", "--type", "web", "--id", "zmq-1", "--ttl", "3600")
    browser.wait("one by ZeroMQ", in_sight("By ZeroMQ"), 3)
    browser.wait("both are counted", shown("2 of 2 services"))
    host.register_many(list(fleet()))
    browser.wait("all are counted", shown("338 of 338 services"))


@step
def what_vanishes_is_told_of(host, browser):
    host.register({"id": "short-1", "name": "Short", "host": "10.0.0.3", "port": 82, "type": "web"}, ttl=0.3)
    browser.wait("it is gone again", f"!{in_sight('Short')} && document.querySelector('#shown').textContent === '338 of 338 services'")
    browser.run("document.querySelector('#tab-activity').click()")
    expired = "[...document.querySelectorAll('#activity .row:not([hidden])')].find((row) => /Expired.*Short/.test(row.textContent))"
    browser.wait("the activity has it", f"{expired} !== undefined")
    browser.run(f"{expired}.click()")
    browser.wait("its history says why", "/Expired.*after its last heartbeat/s.test(document.querySelector('.history').textContent)")
    browser.keys("Escape")
    browser.wait("it is closed", "document.querySelector('#detail').hidden")
    browser.run("document.querySelector('#tab-services').click()")


@step
def search_finds_by_everything(host, browser):
    for text, many in [("camera-17", 1), ("type:camera", 64), ("tag:pci", 48), ("10.0.0.2:81", 1), ("grafana.example/d/auth-3", 1)]:
        search(browser, text)
        browser.wait(text, shown(f"{many} of 338 services"))
        no_search(browser)
    search(browser, "nowhere")
    browser.wait("there is none", "document.querySelector('#empty').textContent.includes('No service is like that')")
    no_search(browser)
    browser.wait("all again", shown("338 of 338 services"))
    browser.run("[...document.querySelectorAll('#types button')].find((one) => one.textContent.startsWith('motor')).click()")
    browser.wait("those of a type", shown("48 of 338 services"))
    browser.run("document.querySelector('#types button').click()")


@step
def drain_and_deregister_by_keyboard(host, browser):
    search(browser, "billing-3")
    browser.wait("one is found", shown("1 of 338 services"))
    browser.keys("Enter", "ArrowDown", "Enter")
    browser.wait("it is open", "document.querySelector('#detail h2')?.textContent === 'Billing 3'")
    assert browser.run("return document.activeElement.classList.contains('close')")
    browser.keys("Tab", "Enter")
    browser.wait("it asks", HAS_DIALOG)
    browser.keys("Escape")
    browser.wait("no is no", f"!({HAS_DIALOG})")
    assert "drain" not in host.call("GET", "/v1/services/billing-3")[1]["service"]
    browser.keys("Enter")
    browser.wait("it asks again", HAS_DIALOG)
    browser.keys("Tab")
    browser.type("new disks")
    browser.keys("Enter")
    browser.wait("it is drained", "document.querySelector('#detail .badge').textContent === 'Drained'")
    assert host.call("GET", "/v1/services/billing-3")[1]["service"]["drain"]["reason"] == "new disks"
    browser.wait("the focus stays", "document.activeElement.textContent === 'Undrain'")
    browser.keys("Enter")
    browser.wait("it is not any more", "document.querySelector('#detail .badge').textContent === 'Passing'")
    browser.keys("Tab", "Enter")
    browser.wait("it asks, and one key too many removes nothing", f"{HAS_DIALOG} && document.activeElement.textContent === 'Cancel'")
    browser.keys("Tab", "Enter")
    browser.wait("it is gone", "document.querySelector('#detail .badge').textContent.startsWith('Not registered')")
    browser.wait("its history has it", "document.querySelector('.history').textContent.includes('Deregistered')")
    assert host.call("GET", "/v1/services/billing-3")[0] == 404
    browser.keys("Escape")
    no_search(browser)
    browser.wait("one less", shown("337 of 337 services"))


@step
def what_services_say_is_text(host, browser):
    evil = {
        "id": EVIL, "name": EVIL, "host": EVIL, "port": 1, "type": EVIL, "tags": [EVIL],
        "metadata": {EVIL: EVIL, "link": "javascript:window.is_owned=1", "deep": {"a": EVIL}, "site": "https://example.org/a"},
        "extra": EVIL,
    }  # fmt: skip
    host.register(evil)
    search(browser, "onerror")
    browser.wait("it is shown", shown("1 of 338 services"))
    browser.keys("Enter", "ArrowDown", "Enter")
    browser.wait("it is shown as text", f"document.querySelector('#detail h2')?.textContent === {EVIL!r}")
    links = browser.run("return [...document.querySelectorAll('#detail a')].map((a) => [a.href, a.rel])")
    assert links == [["https://example.org/a", "noopener noreferrer"]], links
    assert not browser.run("return document.querySelector('main img')")
    browser.run("document.querySelector('#tab-activity').click()")
    time.sleep(0.3)
    assert not browser.run("return window.is_owned")
    assert browser.objections() == []
    # Nor would markup be made of it, if the page tried to.
    refused = "try { document.body.insertAdjacentHTML('beforeend', arguments[0]); return false } catch { return true }"
    assert browser.run(refused, EVIL) and not browser.run("return window.is_owned")
    browser.objections()
    browser.run("document.querySelector('#tab-services').click()")
    browser.keys("Escape")
    no_search(browser)
    # Who deletes it means it, whatever it is called.
    browser.run("document.querySelector('#detail').hidden || document.querySelector('.close').click()")
    host.call("DELETE", "/v1/services/" + "".join(f"%{byte:02x}" for byte in EVIL.encode()))
    browser.wait("it is gone", shown("337 of 337 services"))


@step
def dark_and_phone_have_room(host, browser):
    for width, height, is_phone in [(1440, 900, False), (1024, 700, False), (768, 1024, True), (390, 844, True), (320, 640, True)]:
        browser.size(width, height, is_phone=is_phone)
        for scheme in ["light", "dark"]:
            browser.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
            is_dark = browser.run("return getComputedStyle(document.documentElement).getPropertyValue('--is-dark').trim()")
            assert is_dark == ("1" if scheme == "dark" else "0")
            browser.run(f"{ROW}[0].click()")
            browser.wait("a service is open", "!document.querySelector('#detail').hidden")
            has_no_overflow(browser, f"{width} with a service open")
            browser.keys("Escape")
            has_no_overflow(browser, str(width))
            browser.wait("rows are in sight", f"{ROW}.length > 3")
    browser.prefer(prefers_color_scheme="light")
    browser.run("document.querySelector('#theme').click()")
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    browser.open(host.url + "/")
    assert browser.run("return document.documentElement.dataset.theme") == "dark", "it is kept"
    browser.run("localStorage.clear()")
    browser.prefer()
    browser.size(1440, 900)
    browser.open(host.url + "/")
    browser.wait("it is live", IS_LIVE)


@step
def it_finds_back_after_a_kill(host, browser):
    host.kill()
    browser.wait("it says that the connection is lost", "document.querySelector('#banners').textContent.includes('connection to the registry was lost')")
    assert browser.run(f"return {ROW}.length") > 3, "what was known is still shown"
    host.start()
    host.register({"id": "after", "name": "After", "host": "10.0.0.9", "port": 80, "type": "web"})
    browser.wait("it is live again", f"{IS_LIVE} && document.querySelector('#banners').textContent === ''")
    browser.wait("it shows what there is now", shown("1 of 1 service"))
    browser.wait("it is in sight", in_sight("After"), 3)


@step
def ten_thousand_are_smooth(host, browser):
    begin = time.monotonic()
    host.register_many(list(crowd(10_000)))
    took = time.monotonic() - begin
    browser.wait("all are there", shown("10,001 of 10,001 services"), 30)
    rows = browser.run("return document.querySelectorAll('#services .row.service').length")
    assert rows < 80, f"{rows} rows are in the page"
    frames = browser.run_async("""
      const list = document.querySelector('#services');
      const times = [];
      let last = performance.now();
      const frame = (now) => {
        times.push(now - last);
        last = now;
        list.scrollTop += 900;
        if (times.length < 180) requestAnimationFrame(frame);
        else done(times.slice(2).sort((a, b) => a - b));
      };
      requestAnimationFrame(frame);
    """)
    median, p95 = frames[len(frames) // 2], frames[int(len(frames) * 0.95)]
    print(f"    10,000 registered in {took:.1f} s; a frame while scrolling: {median:.1f} ms, p95 {p95:.1f} ms")
    assert median < 40 and p95 < 120, (median, p95)
    browser.run("document.querySelector('#services').focus()")
    browser.keys("End")
    browser.wait("the last is in sight", in_sight("Crowd 09999"))
    took = browser.run("""
      const search = document.querySelector('#search');
      const begin = performance.now();
      search.value = 'crowd-0999';
      search.dispatchEvent(new Event('input'));
      return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - begin))));
    """)
    browser.wait("ten are found", shown("10 of 10,001 services"))
    print(f"    a search among them: {took:.0f} ms")
    no_search(browser)


@step
def it_goes_on_where_it_was(host, browser):
    lasting = Host(host.programs, storage="sqlite")
    lists = "performance.getEntriesByType('resource').filter(({ name }) => /limit=10000$/.test(name)).length"
    try:
        lasting.register({"id": "before", "name": "Before", "host": "10.0.0.1", "port": 80, "type": "web"})
        browser.open(lasting.url + "/")
        browser.wait("it is live", f"{IS_LIVE} && {in_sight('Before')}")
        lasting.kill()
        browser.wait("it is lost", f"!({IS_LIVE})")
        lasting.start()
        lasting.register({"id": "behind", "name": "Behind", "host": "10.0.0.1", "port": 80, "type": "web"})
        browser.wait("both are there", f"{IS_LIVE} && {in_sight('Before')} && {in_sight('Behind')}")
        assert browser.run(f"return {lists}") == 1, "it has listed again, and not gone on"
    finally:
        lasting.close()


@step
def what_lets_no_stream_through_is_polled(host, browser):
    # As a proxy may do that knows nothing of streams.
    hidden = "{ const real = fetch; window.fetch = (url, asked) => { delete asked?.headers?.Accept; return real(url, asked); }; }"
    script = browser.devtools("Page.addScriptToEvaluateOnNewDocument", source=hidden)["identifier"]
    browser.open(host.url + "/")
    browser.wait("it polls", "document.querySelector('#connection').dataset.state === 'polling'")
    host.register({"id": "polled", "name": "A polled one", "host": "10.0.0.1", "port": 80, "type": "web"})
    browser.wait("it is there", in_sight("A polled one"), 5)
    browser.devtools("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


@step
def who_must_prove_it_gives_a_token(host, browser):
    (reader, lines), (writer, more) = host.token("reader"), host.token("writer", "--allow", "read,register")
    closed = Host(host.programs, lines + more)
    try:
        one = {"name": "Theirs", "host": "10.0.0.1", "port": 80, "type": "web", "ttl": 3600}
        assert closed.call("PUT", "/v1/services/theirs", one, writer)[0] == 200
        browser.open(closed.url + "/")
        browser.wait("it asks who we are", "document.querySelector('#empty').textContent.includes('Who are you?')")
        browser.run("document.querySelector('#empty button').click()")
        browser.wait("it asks", HAS_DIALOG)
        browser.type("wrong")
        browser.keys("Enter")
        browser.wait("a wrong one is told", f"{PROBLEM}.includes('not known')")
        browser.run("document.querySelector('#token-text').value = arguments[0]", reader)
        browser.run("document.querySelector('#token-text').focus()")
        browser.keys("Enter")
        browser.wait("it is let in", f"{IS_LIVE} && {in_sight('Theirs')}")
        assert browser.run("return [sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        browser.run("document.querySelector('#services').focus()")
        browser.keys("Home", "d")
        browser.wait("it asks", HAS_DIALOG)
        browser.keys("Tab", "Enter")
        browser.wait("what is refused is told", f"{PROBLEM}.startsWith('Not allowed')")
        browser.keys("Escape")
        assert "drain" not in closed.call("GET", "/v1/services/theirs", token=reader)[1]["service"]
    finally:
        closed.close()


def past_hour(host):
    """Lets a host have an hour behind it: it is started now and then, each time with a clock that is less late."""
    chance = random.Random(3)
    waiting = [(max(0.3, chance.triangular(0, 62, 55)), "register", one) for one in fleet()]
    waiting += [(chance.uniform(2, 40), "again", one) for one in chance.sample(list(fleet()), 60)]
    waiting += [(chance.uniform(1, 30), "gone", one) for one in chance.sample(list(fleet()), 12)]
    waiting.sort(key=lambda entry: -entry[0])
    there = {}
    for first in range(62, -1, -2):
        host.start(minutes_ago=first)
        for at, what, one in [entry for entry in waiting if first <= entry[0] < first + 2]:
            if what == "gone" and there.pop(one["id"], None):
                host.call("DELETE", f"/v1/services/{one['id']}")
            elif what == "register" or (what == "again" and one["id"] in there):
                host.register(one, ttl=30)
                there[one["id"]] = one
        host.stop()
    host.start()
    for id, reason in [("billing-4", "disk swap"), ("catalog-9", "canary"), ("search-2", "reindexing")]:
        host.call("PUT", f"/v1/services/{id}/drain", {"reason": reason})
    return list(there)


def keep_beating(host, ids, is_over):
    """As services do, each in its own time; but for two, which run out."""
    while not is_over.is_set():
        for place in range(0, len(ids), len(ids) // 8):
            names = [id for id in ids[place : place + len(ids) // 8] if id not in ("sensor-7", "orders-12")]
            host.call("POST", "/v1/renew", {"services": names})
            if is_over.wait(1):
                return


def compressed(picture):
    """The same picture in fewer bytes: browsers write them in haste."""
    head, chunks, at = picture[:8], [], 8
    while at < len(picture):
        (length,) = struct.unpack(">I", picture[at : at + 4])
        chunks.append((picture[at + 4 : at + 8], picture[at + 8 : at + 8 + length]))
        at += 12 + length
    data = zlib.compress(zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT")), 9)
    chunks = [chunk for chunk in chunks if chunk[0] == b"IHDR"] + [(b"IDAT", data), (b"IEND", b"")]
    crc = lambda kind, body: struct.pack(">I", zlib.crc32(kind + body))
    return head + b"".join(struct.pack(">I", len(body)) + kind + body + crc(kind, body) for kind, body in chunks)


def make_images(host, browser):
    """The pictures of the documentation."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    staged, is_over = Host(host.programs, storage="sqlite", cleanup=600, is_started=False), threading.Event()
    ids = past_hour(staged)
    beats = threading.Thread(target=keep_beating, args=[staged, ids, is_over])
    beats.start()
    try:
        time.sleep(32)
        for name, (width, height, scale), scheme in [
            ("page-light", (1360, 800, 1), "light"),
            ("page-dark", (1360, 800, 1), "dark"),
            ("page-phone", (390, 844, 2), "light"),
        ]:
            browser.size(width, height, scale, is_phone=scale > 1)
            browser.prefer(prefers_color_scheme=scheme)
            browser.open(staged.url + "/")
            browser.wait("it is live", IS_LIVE)
            if name == "page-dark":
                browser.run("[...document.querySelectorAll('#types button')].find((one) => one.textContent.startsWith('billing')).click()")
                browser.wait("those of a type", f"{ROW}.every((row) => row.textContent.includes('billing'))")
                browser.run(f"{ROW}.find((row) => row.textContent.includes('billing-4')).click()")
                browser.run("document.activeElement.blur()")
            time.sleep(7)
            picture = compressed(browser.picture())
            assert len(picture) <= IMAGE_BYTES_MAX, f"{name} has {len(picture)} bytes"
            (IMAGES / f"{name}.png").write_bytes(picture)
            print(f"    {name}.png, {len(picture)} bytes")
    finally:
        is_over.set()
        beats.join()
        staged.close()


def main():
    programs, *flags = sys.argv[1:]
    host, browser = Host(programs), None
    try:
        browser = Browser()
        browser.size(1440, 900)
        only = [flag for flag in flags if not flag.startswith("--")]
        for one in STEPS:
            if only and one.__name__ not in only:
                continue
            if flags == ["--images-only"]:
                break
            begin = time.monotonic()
            one(host, browser)
            objections = browser.objections()
            assert objections == [], f"{one.__name__}: {objections}"
            print(f"  {one.__name__}: {time.monotonic() - begin:.1f} s", flush=True)
        if any(flag.startswith("--images") for flag in flags):
            make_images(host, browser)
    finally:
        if browser:
            browser.close()
        host.close()
    print("try-page: all is well")


main()
