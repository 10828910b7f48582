#!/usr/bin/env python3
"""Makes a node of 500 containers, and looks at the pages of what runs on it in a browser.

pages.py tree FIXTURE TREE       unpacks a captured node and adds 250 pods of two containers
pages.py move TREE               makes their figures move until it is ended
pages.py take PORT               is an InfluxDB that takes everything, until it is ended
pages.py look AGENT AGGREGATOR UPDATES [DIRECTORY]
"""

import http.server
import importlib.util
import json
import math
import os
import pathlib
import shutil
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
PODS = 250
# What a name may be that hurts a page which writes markup.
HOSTILE = '<img src=x onerror=alert(1)>"\'&'


def make(fixture, tree):
    spec = importlib.util.spec_from_file_location("ttar", HERE.parent / "vm" / "ttar.py")
    ttar = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ttar)
    ttar.unpack(fixture, tree)
    burstable = pathlib.Path(tree, "sys/fs/cgroup/kubepods/burstable")
    pod = next(one for one in sorted(burstable.iterdir()) if one.name.startswith("pod"))
    containers = [one for one in sorted(pod.iterdir()) if one.is_dir()]
    logs = pathlib.Path(tree, "var/log/containers")
    logs.mkdir(parents=True, exist_ok=True)
    plain = shutil.ignore_patterns(*(one.name for one in containers))
    for number in range(PODS):
        uid = f"0a0b0c0d-0000-4000-8000-{number:012x}"
        shutil.copytree(pod, burstable / f"pod{uid}", ignore=plain)
        for container in range(2):
            cid = f"{number * 4 + container + 1:064x}"
            shutil.copytree(containers[container % len(containers)], burstable / f"pod{uid}" / cid)
            name = f"service-{number}-7d4b9c6f5d-x{number}"
            link = logs / f"{name}_team-{number % 20}_app-{container}-{cid}.log"
            link.symlink_to(f"/var/log/pods/team-{number % 20}_{name}_{uid}/app-{container}/0.log")
    hostile = pathlib.Path(tree, "sys/fs/cgroup/system.slice", HOSTILE + ".service")
    shutil.copytree(containers[0], hostile)


def move(tree):
    base = pathlib.Path(tree, "sys/fs/cgroup")
    all_of = [one.parent for one in base.rglob("cpu.stat") if "kubepods" in one.parts]
    leaves = [one for one in all_of if not any(below.is_dir() for below in one.iterdir())]
    used = dict.fromkeys([base, *all_of], 0)
    memory = dict.fromkeys(all_of, 0)
    for number, leaf in enumerate(leaves):
        for group in (leaf, *leaf.parents):
            if group in memory:
                memory[group] += (number % 40 + 2) << 20
    last = time.monotonic()
    while True:
        now = time.monotonic()
        for number, leaf in enumerate(leaves):
            # From 1 to 5 thousandths of a core.
            usec = int((now - last) * 1000 * (1 + 4 * (number % 50) / 50) * (1 + 0.5 * math.sin(now / 5 + number)))
            for group in (leaf, *leaf.parents):
                if group in used:
                    used[group] += usec
        for group, usec in used.items():
            (group / "cpu.stat").write_text(f"usage_usec {usec}\nuser_usec {usec}\nsystem_usec 0\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
        for group, bytes_ in memory.items():
            (group / "memory.current").write_text(f"{int(bytes_ * (1 + 0.1 * math.sin(now / 20)))}\n")
        last = now
        time.sleep(1)


def take(port):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = b'{"results":[{}]}'
            self.send_response(204 if self.path.startswith("/write") else 200)
            self.send_header("content-length", "0" if self.path.startswith("/write") else str(len(body)))
            self.end_headers()
            if not self.path.startswith("/write"):
                self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *words):
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


class Checks:
    def __init__(self):
        self.failed = 0

    def __call__(self, what, passed):
        self.failed += not passed
        print("ok   " if passed else "FAIL ", what, flush=True)


UPDATES = "Number(document.documentElement.dataset.updates)"
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
ROWS = "document.querySelectorAll('tbody tr').length"
FIRST = "document.querySelector('tbody tr .name b')?.textContent"


def agents_page(browser, check, address, updates, shots):
    browser.scheme("light")
    browser.size(1440, 900)
    browser.open(f"{address}/")
    browser.wait(f"{UPDATES} >= 2 && {ROWS} > 200")
    browser.run("document.querySelector('#pace').value = '1'; document.querySelector('#pace').dispatchEvent(new Event('change')); true")
    check("the agent's page lists the pods by namespace", browser.run("document.querySelectorAll('tbody tr.group').length") >= 20)
    lines = "[...document.querySelectorAll('tbody .spark path.stroke')].filter(p => (p.getAttribute('d') || '').length > 40).length"
    # A line needs some ticks.
    browser.wait(f"{lines} >= 10")
    check("and draws their lines", browser.run(lines) >= 10)

    # Rows of the same pods stay the same elements: nothing is built again.
    browser.run("window.kept = [...document.querySelectorAll('tbody tr')]; window.made = 0; new MutationObserver(all => all.forEach(one => one.addedNodes.forEach(node => { if (node.nodeName === 'TR' && !window.kept.includes(node)) window.made++; }))).observe(document.querySelector('tbody'), {childList: true}); true")
    before = browser.run(UPDATES)
    browser.wait(f"{UPDATES} >= {before + updates}", 300)
    check(f"{updates} updates made no row anew", browser.run("window.made") == 0 and browser.run("window.kept.every(one => one.isConnected)"))

    browser.click("thead th:first-child button")
    check("sorts by name", browser.run("document.querySelector('thead th').getAttribute('aria-sort')") == "ascending")
    browser.click("thead th:first-child button")
    check("and the other way", browser.run("document.querySelector('thead th').getAttribute('aria-sort')") == "descending" and browser.run(FIRST).startswith("team-"))

    browser.key("/", "/")
    browser.wait("document.activeElement.id === 'find'")
    for letter in "service-77":
        browser.key(letter, letter)
    browser.wait("document.querySelector('#count').textContent.startsWith('1 ')")
    check("filters by what is typed", "service-77-7d4b9c6f5d-x77" in browser.run("document.querySelector('tbody').textContent"))
    browser.run("document.querySelector('tbody tr.d1').focus(); true")
    browser.key("ArrowRight")
    browser.wait("document.querySelectorAll('tbody tr.d2').length === 2")
    browser.key("ArrowDown")
    browser.key("Enter")
    browser.wait("!document.querySelector('#detail').hidden && document.querySelectorAll('.chart:not([hidden]) path.stroke[d^=M]').length > 3")
    check("keys lead to a container's charts", browser.run("document.querySelector('.title').textContent").startswith("app-"))
    check("with a way back to its pod", "service-77" in browser.run("document.querySelector('.crumbs').textContent"))
    if shots:
        browser.shot(f"{shots}/agent-container.png")
    browser.key("Escape")
    browser.wait("document.querySelector('#detail').hidden")
    browser.run("const f = document.querySelector('#find'); f.value = ''; f.dispatchEvent(new Event('input')); true")

    browser.run("[...document.querySelectorAll('#view button')].at(-1).click(); true")
    browser.wait("document.querySelector('tbody').textContent.includes('kubepods')")
    shown = browser.run(f"[...document.querySelectorAll('tbody b')].some(one => one.textContent.includes({json.dumps(HOSTILE)}))")
    check("a hostile name is text", shown and browser.run("document.querySelectorAll('main img').length") == 0)
    browser.run("document.querySelectorAll('#view button')[0].click(); true")

    browser.click("#theme")
    check("the switch makes it dark", browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 22)")
    if shots:
        browser.shot(f"{shots}/agent-dark.png")
    browser.click("#theme")
    if shots:
        browser.shot(f"{shots}/agent-light.png")
    browser.size(390, 844, mobile=True)
    browser.wait(f"{OVERFLOW} <= 0", 20)
    check("it fits a phone", True)
    if shots:
        browser.shot(f"{shots}/agent-phone.png")


def aggregators_page(browser, check, address, shots):
    browser.size(1440, 900)
    browser.open(f"{address}/")
    browser.wait(f"{UPDATES} >= 1 && {ROWS} >= 2")
    names = sorted(browser.run("[...document.querySelectorAll('tbody b')].map(one => one.textContent)"))
    check(f"the aggregator's page lists the nodes {names}", names == ["node-1", "node-2"])
    browser.wait("document.querySelectorAll('.top li').length === 16")
    check("and who uses most", True)
    sinks = "[...document.querySelectorAll('#split dl dt')].map(one => [one.textContent, one.nextElementSibling.textContent, one.nextElementSibling.querySelector('.pill').classList.contains('ok')])"
    browser.wait(f"{sinks}.length === 2 && {sinks}.some(one => one[2] && /steps sent/.test(one[1])) && {sinks}.some(one => !one[2] && /wait/.test(one[1]))")
    shown = dict((name, (text, good)) for name, text, good in browser.run(sinks))
    check(f"and how its sinks fare {shown}", shown["good"][1] and not shown["dead"][1] and "failing" in shown["dead"][0])
    if shots:
        browser.shot(f"{shots}/aggregator-light.png")
    browser.click("#theme")
    check("the switch makes it dark", browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 22)")
    if shots:
        browser.shot(f"{shots}/aggregator-dark.png")
    browser.click("#theme")
    browser.run("document.querySelectorAll('#view button')[1].click(); true")
    browser.wait(f"{ROWS} >= 20")
    row = "tbody tr"
    for heading in ("namespace", "pod", "container"):
        # A row may go with its node between the two.
        for _ in range(10):
            browser.run(f"document.querySelector({json.dumps(row)})?.focus(); true")
            browser.key("Enter")
            try:
                browser.wait(f"location.hash.startsWith('#/{heading}/')", 5)
                break
            except TimeoutError:
                continue
        row = "#detail tbody tr"
        shown = f"location.hash.startsWith('#/{heading}/') && document.querySelectorAll('.chart:not([hidden]) path.stroke').length > 1"
        browser.wait(shown + ("" if heading == "container" else f" && document.querySelector('{row}') != null"))
        check(f"leads to a {heading}", True)
    browser.scheme("dark")
    if shots:
        browser.shot(f"{shots}/aggregator-container.png")
    browser.size(390, 844, mobile=True)
    browser.open(f"{address}/#/")
    browser.wait(f"{ROWS} >= 2 && {OVERFLOW} <= 0", 20)
    check("it fits a phone", True)
    if shots:
        browser.shot(f"{shots}/aggregator-phone.png")


def many(address, nodes, updates, shots=None):
    """The aggregator's page of a cluster that has so many nodes."""
    from browser import Browser

    check = Checks()
    nodes, updates = int(nodes), int(updates)
    browser = Browser()
    try:
        browser.scheme("light")
        browser.size(1440, 900)
        browser.open(f"{address}/")
        browser.wait(f"{UPDATES} >= 1 && {ROWS} >= {nodes}", 60)
        check(f"the page lists {nodes} nodes", browser.run(ROWS) == nodes)
        browser.wait("document.querySelectorAll('.top li').length === 16")
        browser.run("document.querySelector('#pace').value = '2'; document.querySelector('#pace').dispatchEvent(new Event('change')); true")
        # The longest that the page answers to nothing: a timer that is late.
        browser.run("window.longest = 0; let last = performance.now(); setInterval(() => { const now = performance.now(); window.longest = Math.max(window.longest, now - last - 10); last = now; }, 10); window.kept = [...document.querySelectorAll('tbody tr')]; true")
        before = browser.run(UPDATES)
        browser.wait(f"{UPDATES} >= {before + updates}", 300)
        check(f"{updates} updates made no row anew", browser.run("window.kept.every(one => one.isConnected)"))
        print(f"      the page was busy for {browser.run('window.longest'):.0f} ms at most")
        browser.click("thead th:first-child button")
        check("sorts by name", browser.run("document.querySelector('thead th').getAttribute('aria-sort')") == "ascending")
        if shots:
            browser.shot(f"{shots}/aggregator-many.png")
        name = browser.run("document.querySelector('tbody b').textContent")
        browser.key("/", "/")
        browser.wait("document.activeElement.id === 'find'")
        for letter in name:
            browser.key(letter, letter)
        browser.wait(f"{ROWS} >= 1 && {ROWS} <= 20")
        check(f"filters by what is typed, {name}", name in browser.run("document.querySelector('tbody').textContent"))
        browser.run("document.querySelector('tbody tr').focus(); true")
        browser.key("Enter")
        browser.wait("location.hash.startsWith('#/node/') && document.querySelectorAll('.chart:not([hidden]) path.stroke').length > 1")
        check("leads to a node", True)
        browser.key("Escape")
        browser.wait("document.querySelector('#detail').hidden")
        browser.run("const f = document.querySelector('#find'); f.value = ''; f.dispatchEvent(new Event('input')); true")
        browser.run("document.querySelectorAll('#view button')[1].click(); true")
        browser.wait(f"{ROWS} >= 10")
        check(f"and shows {browser.run(ROWS)} rows of namespaces", True)
        check(f"nothing is complained of {browser.complaints}", not browser.complaints)
    finally:
        browser.close()
    return check.failed


def look(agent, aggregator, updates, shots=None):
    from browser import Browser

    check = Checks()
    browser = Browser()
    try:
        agents_page(browser, check, agent, int(updates), shots)
        aggregators_page(browser, check, aggregator, shots)
        check(f"nothing is complained of {browser.complaints}", not browser.complaints)
        elsewhere = [url for url in browser.requests if not url.startswith((agent, aggregator, "about:"))]
        check(f"nobody else is asked {elsewhere}", not elsewhere)
    finally:
        browser.close()
    return check.failed


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    do = {"tree": make, "move": move, "take": take, "look": look, "many": many}[sys.argv[1]]
    sys.exit(do(*sys.argv[2:]) or 0)
