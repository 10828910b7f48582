"""What is compared: how each program is started, where it is asked, and how its figures
of one container are found in its answer.

All get the same: an interval of one second, no container runtime to ask for names, and
nothing to do that is not about containers where that can be switched off. cAdvisor and
nodegauge collect the same kinds; Telegraf reads the files that these read most of their
figures from; netdata takes what its plugin takes, from the same cgroups.
"""

import os
import re

# cAdvisor's default kinds, by its names.
KINDS = "cpu,percpu,cpuLoad,memory,disk,diskIO,network,oom_event,pressure"

V1_FILES = {
    "cpuacct": ["cpuacct.usage", "cpuacct.stat", "cpuacct.usage_percpu"],
    "cpu": ["cpu.stat", "cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"],
    "memory": [
        "memory.usage_in_bytes",
        "memory.max_usage_in_bytes",
        "memory.stat",
        "memory.failcnt",
        "memory.limit_in_bytes",
        "memory.soft_limit_in_bytes",
    ],
    "pids": ["pids.current", "pids.max"],
}
V2_FILES = [
    "cpu.stat",
    "cpu.weight",
    "memory.current",
    "memory.peak",
    "memory.stat",
    "memory.events",
    "memory.max",
    "pids.current",
    "pids.max",
]


class Program:
    """One of those compared. `cpu` and `memory` take the lines of the burning container
    and say its CPU seconds and its memory in bytes, or None."""

    def __init__(self, name, version, command, path="/metrics", *, errors, cpu=None, memory=None, logs=()):
        self.name = name
        self.version = version
        self.command = command
        self.path = path
        self.errors = re.compile(errors)
        self.cpu = cpu
        self.memory = memory
        # Besides what it writes to its output.
        self.logs = list(logs)


def value(line):
    """Of a line of exposition, which may end in a time."""
    return float(line[line.rindex("}") + 1 :].split()[0])


def total(lines, name, scale=1.0):
    found = [value(line) for line in lines if line.startswith(name + "{")]
    return sum(found) * scale if found else None


def cadvisor_cpu(lines):
    return total(lines, "container_cpu_usage_seconds_total")


def cadvisor_memory(lines):
    return total(lines, "container_memory_usage_bytes")


def nodegauge(binary, version, port, _told, _work, name="nodegauge", more=()):
    command = [binary, "agent", "--listen", f"127.0.0.1:{port}", "--interval", "1s", "--metrics", KINDS]
    command += ["--runtime", "none", "--kubelet", "none"]
    command += more
    return Program(name, version, command, errors=r" ERROR ", cpu=cadvisor_cpu, memory=cadvisor_memory)


def nodegauge_held(*words):
    """With room for handles to every file, as far as descriptors go: what the default trades for memory."""
    return nodegauge(*words, name="nodegauge, files held", more=["--handle-memory", "256MiB"])


def cadvisor(binary, version, port, _told, _work):
    command = [binary, "-listen_ip", "127.0.0.1", "-port", str(port), "-housekeeping_interval", "1s"]
    command += ["-allow_dynamic_housekeeping=false", "-docker_only=false", "-v", "2"]
    return Program("cAdvisor", version, command, errors=r"^[EF]\d{4} ", cpu=cadvisor_cpu, memory=cadvisor_memory)


def node_exporter(binary, version, port, _told, _work):
    command = [binary, "--web.listen-address", f"127.0.0.1:{port}"]
    return Program("node_exporter", version, command, errors=r"level=error")


def telegraf(binary, version, port, told, work):
    where = "kubepods/*/*/*"
    inputs = []
    if os.path.isfile("/sys/fs/cgroup/cgroup.controllers"):
        inputs.append((f"/sys/fs/cgroup/{told['parent']}/{where}", V2_FILES))
    else:
        for controller, files in V1_FILES.items():
            inputs.append((f"/sys/fs/cgroup/{controller}/{told['parent']}/{where}", files))
    text = '[agent]\n  interval = "1s"\n  flush_interval = "1s"\n  omit_hostname = true\n'
    text += '  metric_buffer_limit = 100000\n  skip_processors_after_aggregators = true\n'
    for directory, files in inputs:
        names = ", ".join(f'"{file}"' for file in files)
        text += f'[[inputs.cgroup]]\n  paths = ["{directory}"]\n  files = [{names}]\n'
    text += f'[[outputs.prometheus_client]]\n  listen = "127.0.0.1:{port}"\n'
    with open(f"{work}/telegraf.conf", "w") as file:
        file.write(text)

    def cpu(lines):
        seconds = total(lines, "cgroup_cpuacct_usage", 1e-9)
        return seconds if seconds is not None else total(lines, "cgroup_cpu_stat_usage_usec", 1e-6)

    def memory(lines):
        usage = total(lines, "cgroup_memory_usage_in_bytes")
        return usage if usage is not None else total(lines, "cgroup_memory_current")

    return Program(
        "Telegraf",
        version,
        [binary, "--config", f"{work}/telegraf.conf"],
        # It says so when a collection takes longer than the interval.
        errors=r"Z E! |did not complete within its",
        cpu=cpu,
        memory=memory,
    )


def netdata(binary, version, port, _told, work):
    home = f"{work}/netdata"
    for name in ("cache", "lib", "log", "conf"):
        os.makedirs(f"{home}/{name}", exist_ok=True)
    off = "timex checks idlejitter tc diskspace proc apps perf slabinfo nfacct python.d charts.d go.d ebpf ioping fping"
    off = [*off.split(), "cups", "freeipmi", "xenstat", "netdata monitoring", "netdata monitoring extended"]
    unified = "yes" if os.path.isfile("/sys/fs/cgroup/cgroup.controllers") else "no"
    sections = {
        "global": {"run as user": "root"},
        "directories": {"config": f"{home}/conf", **{n: f"{home}/{n}" for n in ("cache", "lib", "log")}, "home": home},
        # As long as cAdvisor keeps its samples.
        "db": {"mode": "ram", "retention": "120", "update every": "1"},
        "web": {"bind to": f"127.0.0.1:{port}"},
        **{section: {"enabled": "no"} for section in ("cloud", "ml", "health", "statsd", "registry")},
        "plugins": {"cgroups": "yes", **{name: "no" for name in off}},
        "plugin:cgroups": {
            "use unified cgroups": unified,
            # Its own limit is 1,000.
            "maximum cgroups to find": "20000",
            "max cgroups to allow": "20000",
            "run script to rename cgroups matching": "!*",
        },
    }
    with open(f"{home}/netdata.conf", "w") as file:
        for section, settings in sections.items():
            file.write(f"[{section}]\n" + "".join(f"    {key} = {to}\n" for key, to in settings.items()))

    def cpu(lines):
        return total(lines, "netdata_k8s_cgroup_cpu_per_core_total", 1e-9)

    def memory(lines):
        return total([x for x in lines if 'dimension="ram"' in x], "netdata_k8s_cgroup_mem_usage")

    return Program(
        "netdata",
        version,
        [binary, "-D", "-c", f"{home}/netdata.conf"],
        "/api/v1/allmetrics?format=prometheus&source=as-collected",
        errors=r"netdata (ERROR|FATAL) ",
        cpu=cpu,
        memory=memory,
        logs=[f"{home}/log/error.log"],
    )


PROGRAMS = {f.__name__: f for f in (nodegauge, nodegauge_held, cadvisor, netdata, telegraf, node_exporter)}
