#!/usr/bin/env python3
"""Writes what the program is made of, as CycloneDX 1.5 JSON on standard output.

    deploy/sbom.py [TARGET] > nodegauge.cdx.json

The crates that are linked into it for that target (default: x86_64-unknown-linux-gnu), with versions,
licences and the checksums of Cargo.lock, and what uses what. Compilers of protocol
files and other tools of the build are left out, tests too. Needs cargo. The same
Cargo.lock gives the same bytes.
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def checksums():
    """(name, version) -> SHA-256, as Cargo.lock has it."""
    found, entry = {}, {}
    for line in (ROOT / "Cargo.lock").read_text().splitlines():
        key, _, value = line.partition(" = ")
        if line == "[[package]]":
            entry = {}
        elif key in ("name", "version", "checksum"):
            entry[key] = value.strip('"')
            if key == "checksum":
                found[entry["name"], entry["version"]] = entry[key]
    return found


def main():
    target = sys.argv[1] if len(sys.argv) > 1 else "x86_64-unknown-linux-gnu"
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    packages = {p["id"]: p for p in metadata["packages"]}
    nodes = {n["id"]: n for n in metadata["resolve"]["nodes"]}

    def linked(node):
        """Neither for building nor for tests, nor run by the compiler."""
        for dependency in node["deps"]:
            kinds = any(k["kind"] is None for k in dependency["dep_kinds"])
            macro = any("proc-macro" in t["kind"] for t in packages[dependency["pkg"]]["targets"])
            if kinds and not macro:
                yield dependency["pkg"]

    first = metadata["resolve"]["root"]
    used, left = set(), [first]
    while left:
        package = left.pop()
        if package not in used:
            used.add(package)
            left.extend(linked(nodes[package]))
    sums = checksums()

    def reference(package):
        return f"pkg:cargo/{packages[package]['name']}@{packages[package]['version']}"

    def component(package):
        p = packages[package]
        entry = {"type": "application" if package == first else "library", "bom-ref": reference(package),
                 "name": p["name"], "version": p["version"], "purl": reference(package)}
        if p.get("license"):
            entry["licenses"] = [{"expression": p["license"].replace("/", " OR ")}]
        if (p["name"], p["version"]) in sums:
            entry["hashes"] = [{"alg": "SHA-256", "content": sums[p["name"], p["version"]]}]
        return entry

    ordered = sorted(used, key=reference)
    json.dump({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(first), "properties": [{"name": "target", "value": target}]},
        "components": [component(p) for p in ordered if p != first],
        "dependencies": [{"ref": reference(p), "dependsOn": sorted(map(reference, linked(nodes[p])))} for p in ordered],
    }, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
