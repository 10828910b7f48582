#!/usr/bin/env python3
"""The table of what measure.py has measured: medians over the rounds, and ratios to ours.

table.py RUNS.jsonl [RUNS.tsv]

Writes Markdown to standard output, and every run as a line of RUNS.tsv.
"""

import json
import os
import statistics
import sys
import time

OURS = "nodegauge"
COLUMNS = [
    ("containers", "containers"),
    ("round", "round"),
    ("program", "program"),
    ("version", "version"),
    ("load", "load"),
    ("cgroups", "cgroups_of_the_machine"),
    ("cpu", "cpu_cores"),
    ("cpu_user", "cpu_user_cores"),
    ("cpu_system", "cpu_system_cores"),
    ("cpu_per_sample", "cpu_seconds_per_sample"),
    ("cpu_alone", "cpu_without_scrapes_cores"),
    ("resident", "resident_bytes"),
    ("charged", "charged_bytes"),
    ("descriptors", "descriptors"),
    ("threads", "threads"),
    ("scrape_median", "scrape_median_seconds"),
    ("scrape_min", "scrape_min_seconds"),
    ("scrape_max", "scrape_max_seconds"),
    ("bytes", "body_bytes"),
    ("wire_bytes", "gzip_bytes"),
    ("samples", "samples"),
    ("container_samples", "container_samples"),
    ("family_count", "container_families"),
    ("seen", "containers_seen"),
    ("complete_after", "complete_after_seconds"),
    ("age_median", "age_median_seconds"),
    ("cpu_error", "cpu_error_ratio"),
    ("memory_error", "memory_error_bytes"),
    ("scrapes_failed", "scrapes_failed"),
    ("log_errors", "log_errors"),
]


def flat(row):
    """A run with its lists made figures."""
    scrapes = row.get("scrape_seconds") or []
    ages = row.get("age_seconds") or []
    row["scrape_median"] = statistics.median(scrapes) if scrapes else None
    row["scrape_min"], row["scrape_max"] = min(scrapes, default=None), max(scrapes, default=None)
    row["age_median"] = statistics.median(ages) if ages else None
    row["family_count"] = len(row["container_families"]) if row.get("seen") else None
    if row.get("cpu") and row.get("samples"):
        # At an interval of one second each sample is collected once a second.
        row["cpu_per_sample"] = row["cpu"] / row["samples"]
    return row


def median(rows, key):
    found = [row[key] for row in rows if row.get(key) is not None]
    return statistics.median(found) if found else None


def most(rows, key, by=max):
    found = [row[key] for row in rows if row.get(key) is not None]
    return by(found) if found else None


def number(value, form="{:.1f}", scale=1.0):
    return "–" if value is None else form.format(value * scale)


def times(rows, ours, key):
    ratio = None
    if ours and median(rows, key) is not None and median(ours, key):
        ratio = median(rows, key) / median(ours, key)
    return number(ratio, "{:.2f} ×" if ratio is not None and ratio < 10 else "{:.0f} ×")


def table(size, groups):
    """Two tables of one size: what it costs, and what one gets."""
    ours = groups.get(OURS)
    costs = [
        f"**{size} containers**: what it costs",
        "",
        "| | CPU, % of a core | user + system | without scrapes | µs a sample | | memory, MiB | | with the kernel's, MiB | scrape, ms | best | worst | |",
        "|---|" + "---:|" * 12,
    ]
    gets = [
        f"**{size} containers**: what one gets",
        "",
        "| | shown | complete after, s | families | samples of a container | body, KB | gzip, KB | age, s "
        "| CPU off by | memory off by, B | failed scrapes | error lines |",
        "|---|" + "---:|" * 11,
    ]
    for name, rows in groups.items():
        measured = [row for row in rows if "cpu" in row]
        title = f"{name} {rows[0]['version']}"
        if not measured:
            costs.append(f"| {title} | {rows[0].get('failed', 'failed')} |" + " |" * 11)
            continue
        split = " + ".join(number(median(measured, key), "{:.1f}", 100) for key in ("cpu_user", "cpu_system"))
        costs.append(
            "| "
            + " | ".join(
                [
                    title,
                    number(median(measured, "cpu"), "{:.2f}", 100),
                    split,
                    number(median(measured, "cpu_alone"), "{:.2f}", 100),
                    number(median(measured, "cpu_per_sample"), scale=1e6),
                    times(measured, ours, "cpu"),
                    number(median(measured, "resident"), scale=2**-20),
                    times(measured, ours, "resident"),
                    number(median(measured, "charged"), scale=2**-20),
                    number(median(measured, "scrape_median"), scale=1000),
                    number(most(measured, "scrape_min", min), scale=1000),
                    number(most(measured, "scrape_max"), "{:.0f}", 1000),
                    times(measured, ours, "scrape_median"),
                ]
            )
            + " |"
        )
        knows_containers = any("cpu_error" in row for row in measured)
        off = most(measured, "cpu_error", lambda x: max(x, key=abs))
        seen = most(measured, "seen", min)
        samples = median(measured, "container_samples")
        gets.append(
            "| "
            + " | ".join(
                [
                    title,
                    number(seen or 0, "{:.0f}") if knows_containers else "the machine",
                    number(median(measured, "complete_after")) if knows_containers else "–",
                    number(median(measured, "family_count"), "{:.0f}"),
                    number(samples / size if samples else None),
                    number(median(measured, "bytes"), "{:.0f}", 1e-3),
                    number(median(measured, "wire_bytes"), "{:.0f}", 1e-3),
                    number(median(measured, "age_median"), "{:.2f}"),
                    number(off, "{:.2f} %", 100),
                    number(most(measured, "memory_error", lambda x: max(x, key=abs)), "{:.0f}"),
                    f"{sum(row['scrapes_failed'] for row in measured)} of {sum(row['scrapes'] for row in measured)}",
                    number(median(measured, "log_errors"), "{:.0f}"),
                ]
            )
            + " |"
        )
    return costs + [""] + gets + [""]


def families(rows):
    """Which families of cAdvisor's we have."""
    names = lambda program: set().union(
        *(row["container_families"] for row in rows if row["program"] == program and row.get("seen"))
    )
    theirs, mine = names("cAdvisor"), names(OURS)
    if not theirs or not mine:
        return []
    text = f"Of the {len(theirs)} families that cAdvisor has of a container {len(theirs & mine)} are in nodegauge's answer"
    if theirs - mine:
        text += "; missing are " + ", ".join(f"`{name}`" for name in sorted(theirs - mine))
    return [text + ".", ""]


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), os.uname().machine)
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / 2**20
    v2 = os.path.isfile("/sys/fs/cgroup/cgroup.controllers")
    return f"{os.cpu_count()} CPUs ({model}), {memory:.0f} GiB, Linux {os.uname().release}, cgroup {'v2' if v2 else 'v1'}"


def main():
    with open(sys.argv[1]) as file:
        rows = [flat(json.loads(line)) for line in file]
    loads = [row["load"] for row in rows]
    rounds = max(row["round"] for row in rows)
    windows = [row["window"] for row in rows if "window" in row]
    print(
        f"{time.strftime('%Y-%m-%d', time.gmtime(rows[0]['time']))}, {machine()}; load {min(loads):.1f} to {max(loads):.1f}. "
        f"Each measured for {statistics.median(windows or [0]):.0f} s; medians of {rounds} round{'s' if rounds > 1 else ''}; "
        "× is the ratio to nodegauge's.\n"
    )
    order = list(dict.fromkeys(row["program"] for row in rows if row["round"] == 1))
    for size in sorted({row["containers"] for row in rows}):
        groups = {name: [r for r in rows if r["containers"] == size and r["program"] == name] for name in order}
        print("\n".join(table(size, {name: group for name, group in groups.items() if group})))
    print("\n".join(families(rows)))
    examples = {row["program"]: row["log_example"] for row in rows if row.get("log_example")}
    if examples:
        print("Error lines, an example of each:\n")
        print("\n".join(f"- {name}: `{line}`" for name, line in examples.items()))
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w") as file:
            file.write("\t".join(title for _, title in COLUMNS) + "\n")
            for row in rows:
                cells = ("" if row.get(key) is None else f"{row[key]:.6g}" if isinstance(row[key], float) else str(row[key]) for key, _ in COLUMNS)
                file.write("\t".join(cells) + "\n")


if __name__ == "__main__":
    main()
