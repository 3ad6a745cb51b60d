"""How each program is configured and started. To add one: README.md, "Adding a contender"."""

import os
import random
import tempfile
from dataclasses import dataclass, field

import lib
from lib import Proc, write

ZONE = "bench.test"
UPSTREAM_ANSWER = "192.0.2.1"  # what udpd answers
EXTRA = []  # builds of hard besides the first
ANSWER, FORWARD = {}, {}  # name: function of a Setup that writes a configuration and returns the command


@dataclass
class Names:
    """Names with one IPv4 and one IPv6 address each, and the file of queries that asks for all of them."""

    count: int
    dir: str
    hosts: list = field(init=False, default_factory=list)  # (name, IPv4, IPv6)
    queries: str = field(init=False)

    def __post_init__(self):
        for i in range(self.count):
            self.hosts.append((f"svc-{i:05d}.apps.{ZONE}", f"10.0.{i // 250}.{i % 250 + 1}", f"2001:db8::{i + 1:x}"))
        self.queries = f"{self.dir}/queries-{self.count}"
        lines = [f"{n} {t}\n" for n, _, _ in self.hosts for t in ("A", "AAAA")]
        random.Random(1).shuffle(lines)
        write(self.queries, "".join(lines))


@dataclass
class Setup:
    """What a contender is asked to be. dir is its own, empty directory."""

    tools: str  # where build.py put hard and the C programs
    dir: str
    port: int
    names: Names = None
    upstreams: list = ()  # "address:port"

    def file(self, name, text):
        write(f"{self.dir}/{name}", text)
        return f"{self.dir}/{name}"

    def records(self):
        """Every record as (name, type, value)."""
        for name, a, aaaa in self.names.hosts:
            yield name, "A", a
            yield name, "AAAA", aaaa

    def zone(self, name="zone"):
        head = f"$ORIGIN {ZONE}.\n$TTL 3600\n@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n"
        return self.file(name, head + "".join(f"{n}. {t} {v}\n" for n, t, v in self.records()))


def contender(registry, name, program):
    """Puts the function into registry under name if its program is installed (asked for when it runs)."""

    def add(function):
        registry[name] = (program, function)
        return function

    return add


def start(registry, name, tools, tmp, cpus, **setup):
    """Starts a contender on a free port; returns its process and its port."""
    s = Setup(tools, tempfile.mkdtemp(prefix=name + "-", dir=tmp), lib.free_port(), **setup)
    return Proc(registry[name][1](s), cpus, s.dir + "/log"), s.port


# --- hard --------------------------------------------------------------------


def hard_config(s, defaults, names, upstreams=("127.0.0.9:9",)):
    """A configuration file for hard; defaults and names are TOML. Nothing answers at 127.0.0.9."""
    servers = ", ".join(f'"{u}"' for u in upstreams)
    c = f"""[listen]
dns = ["127.0.0.1:{s.port}"]
http = ""
control = ""
[store]
path = "{s.dir}/hard.db"
[log]
level = "warn"
[upstream]
servers = [{servers}]
[defaults]
{defaults}
{names}"""
    return s.file("hard.toml", c)


def hard_static(s):
    """One name for each of s.names, always healthy."""
    return "".join(f'[name."{n}"]\ncandidates = ["{a}", "{aaaa}"]\n' for n, a, aaaa in s.names.hosts)


def hard_probed(addresses, port):
    """One name for each address, n0.ZONE and so on, with an HTTP check of it."""
    check = f'check = "http://:{port}/"'
    return "".join(f'[name."n{i}.{ZONE}"]\n{check}\ncandidates = ["{a}"]\n' for i, a in enumerate(addresses))


def hard_build(program):
    """Registers one build of hard under its program's name."""

    @contender(ANSWER, program, program)
    def _(s):
        return [f"{s.tools}/{program}", hard_config(s, 'check = "static:"', hard_static(s))]

    @contender(FORWARD, program, program)
    def _(s):
        names = '[name."local.test"]\ncandidates = ["127.0.0.1"]\n'
        return [f"{s.tools}/{program}", hard_config(s, 'check = "static:"', names, s.upstreams)]


hard_build("hard")


def add_builds(tools):
    """Registers the builds of hard in tools other than the first; they are measured wherever hard is. Returns their names."""
    EXTRA.extend(sorted(set(os.listdir(tools)) - {"hard", "qload", "udpd", "httpd"}))
    for program in EXTRA:
        hard_build(program)
    return EXTRA


# --- the floor ---------------------------------------------------------------


@contender(ANSWER, "C-echo", "udpd")
def _(s):
    return [f"{s.tools}/udpd", "echo", "127.0.0.1", str(s.port)]


# --- authoritative servers ---------------------------------------------------


@contender(ANSWER, "gdnsd", "gdnsd")
def _(s):
    os.mkdir(s.dir + "/zones")
    s.zone(f"zones/{ZONE}")
    threads = "udp_threads => 1, tcp_threads => 1"
    s.file("config", f"options => {{ listen => 127.0.0.1:{s.port}, {threads}, run_dir => {s.dir}/run, state_dir => {s.dir}/state }}\n")
    return ["gdnsd", "-c", s.dir, "start"]


NSD = """server:
  ip-address: {addr}@{port}
  username: ""
  chroot: ""
  server-count: 1
  reuseport: yes
  database: ""
  zonesdir: "{dir}"
  pidfile: "{dir}/pid"
  xfrdfile: "{dir}/xfrd"
  zonelistfile: "{dir}/zonelist"
  rrl-ratelimit: 0
  minimal-responses: yes
  tcp-count: 1000
remote-control:
  control-enable: no
zone:
  name: {zone}
  zonefile: {file}
"""


def nsd(s, addr="127.0.0.1"):
    return ["nsd", "-d", "-c", s.file("nsd.conf", NSD.format(addr=addr, port=s.port, dir=s.dir, zone=ZONE, file=s.zone()))]


contender(ANSWER, "nsd", "nsd")(nsd)


@contender(ANSWER, "knot", "knotd")
def _(s):
    c = f"""server:
  rundir: "{s.dir}"
  listen: 127.0.0.1@{s.port}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
log:
  - target: stderr
    any: error
database:
  storage: "{s.dir}/db"
zone:
  - domain: {ZONE}
    file: "{s.zone()}"
    zonefile-sync: -1
    journal-content: none
"""
    return ["knotd", "-c", s.file("knot.conf", c)]


# --- dnsdist, unbound --------------------------------------------------------


def dnsdist(s, lines):
    head = ['setSecurityPollSuffix("")', f"setLocal('127.0.0.1:{s.port}', {{reusePort=true}})"]
    return ["dnsdist", "--supervised", "--disable-syslog", "-C", s.file("dnsdist.conf", "\n".join(head + lines) + "\n")]


@contender(ANSWER, "dnsdist-cache", "dnsdist")
def _(s):  # its packet cache, filled by the first round of queries from an NSD, which then is idle
    behind = " ".join(nsd(s, "127.0.0.9"))
    front = dnsdist(
        s,
        [
            f"newServer({{address='127.0.0.9:{s.port}', healthCheckMode='up'}})",
            "setServerPolicy(firstAvailable)",
            "getPool(''):setCache(newPacketCache(200000, {maxTTL=86400, temporaryFailureTTL=0}))",
        ],
    )
    return ["sh", "-c", f"{behind} & exec {' '.join(front)}"]


@contender(FORWARD, "dnsdist", "dnsdist")
def _(s):
    return dnsdist(s, [f"newServer({{address='{u}'}})" for u in s.upstreams])


def unbound(s, lines):
    c = f"""server:
  interface: 127.0.0.1@{s.port}
  num-threads: 1
  so-reuseport: yes
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{s.dir}"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  do-not-query-localhost: no
  do-ip6: no
  local-zone: "test." nodefault
  incoming-num-tcp: 1000
  outgoing-range: 8192
  num-queries-per-thread: 4096
"""
    return ["unbound", "-d", "-c", s.file("unbound.conf", c + "\n".join(lines) + "\nremote-control:\n  control-enable: no\n")]


@contender(ANSWER, "unbound", "unbound")
def _(s):
    return unbound(s, [f'  local-zone: "{ZONE}." static'] + [f'  local-data: "{n}. 3600 {t} {v}"' for n, t, v in s.records()])


@contender(FORWARD, "unbound", "unbound")
def _(s):
    return unbound(s, ["forward-zone:", '  name: "."'] + [f"  forward-addr: {u.replace(':', '@')}" for u in s.upstreams])


# --- HAProxy, as a prober ----------------------------------------------------


def haproxy(s, backends, check):
    """backends: [[(address, port)]]; check: options of each server line. Its state is read from s.dir/stats."""
    lines = [
        f"global\n  stats socket {s.dir}/stats\n  nbthread 1\n  maxconn 8000\n  spread-checks 50",
        "defaults\n  mode http\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s",
    ]
    if "inter 10ms" in check:
        lines.append("  timeout check 100ms")
    for b, servers in enumerate(backends):
        lines += [f"backend b{b}", "  option httpchk GET /"]
        lines += [f"  server s{i} {a}:{p} check {check}" for i, (a, p) in enumerate(servers)]
    return ["haproxy", "-db", "-f", s.file("haproxy.cfg", "\n".join(lines) + "\n")]
