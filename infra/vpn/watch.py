#!/usr/bin/env python3
"""Watches the tunnels to Commercial, claims the VPC's routes, sets BGP's announcements, and sends metrics to CloudWatch.

watch.py [FILE]    FILE: the watch.json of render.py (default /etc/bedrock-gateway/vpn/watch.json)

The rule (docs/vpn.md has its reasons):
  A tunnel is well while BGP is up over it with a route and its far end answers probes. If the far end has answered no probe
  since BGP came up, BGP alone decides.
  A gateway is well while one of its tunnels is well. It reports this to the other gateway on port 10081.
  A gateway wants the routes when it has been well for five rounds and the other gateway is not well. The other gateway is not
  well if it says so, or has been silent for five rounds.
  If both are well: `a` wants the routes if `b` does not have them, or once `a` has been well for sixty rounds. `b` wants the
  routes that it has until `a` has them.
  A gateway writes routes to its own interface only.
  `b` takes silence for the death of `a` only once. If `a` takes the routes back, `a` is alive, and silence alone moves the
  routes again only after six hundred rounds.
  BGP follows the routes: the holder announces the shortest path, the same over both tunnels while both are well, so that AWS's
  MED decides between them. Over its only well tunnel the path is shorter than what the dead tunnel has left behind, which
  Commercial believes for up to thirty seconds.
"""
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request

# The length of a round in seconds. Other times are in rounds, unless said otherwise.
ROUND = float(os.environ.get("BEDROCK_GATEWAY_ROUND_SECONDS", "1"))
# Failed (SILENT) or good (STEADY) probes in a row that change a state.
SILENT = STEADY = 5
# How long `a` must be well before it takes the routes from a `b` that is also well.
RETURN = int(os.environ.get("BEDROCK_GATEWAY_RETURN_ROUNDS", "60"))
# How long `b` does not claim routes that a silent `a` has taken back.
YIELD = 600
# Between two reads of the routes while this machine has them, and between two reports to CloudWatch.
LOOK = 10
REPORT = 60
# Seconds after which a program has failed.
PATIENCE = 20
IMDS = os.environ.get("BEDROCK_GATEWAY_IMDS", "http://169.254.169.254")


def say(line):
    print(line, flush=True)


def run(*command):
    """A program's output. Raises OSError or subprocess.SubprocessError if it fails."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True,
                          timeout=PATIENCE, text=True).stdout


FAILED = (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError)


# The last message about each failing thing.
SAID = {}


def complain(what, error):
    """Logs each cause once: there are many rounds, and CloudWatch charges for the log."""
    why = reason(error)
    if SAID.get(what) != why:
        SAID[what] = why
        say("%s: %s" % (what, why))


def content(what):
    if SAID.pop(what, None):
        say("%s: well again" % what)


def reason(error):
    """The last line that a program wrote to stderr, else the error."""
    said = (getattr(error, "stderr", None) or "").strip().splitlines()
    return said[-1] if said else str(error)


# The metadata service and the other gateway are called directly, whatever proxy the environment names.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def metadata(item):
    request = urllib.request.Request(IMDS + "/latest/api/token", method="PUT",
                                     headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    with DIRECT.open(request, timeout=5) as answer:
        token = answer.read().decode()
    request = urllib.request.Request(IMDS + "/latest/meta-data/" + item, headers={"X-aws-ec2-metadata-token": token})
    with DIRECT.open(request, timeout=5) as answer:
        return answer.read().decode().strip()


class Tunnel:
    """One tunnel's last known state."""

    def __init__(self, settings):
        self.number, self.device, self.far = settings["number"], settings["device"], settings["far"]
        self.installed = self.established = self.answered = self.well = False
        # Rounds since the far end last answered; None: never since BGP came up.
        self.unanswered = None
        self.given = None
        self.probe = None

    def look(self, sas, neighbours):
        neighbour = neighbours.get(self.far, {})
        family = neighbour.get("addressFamilyInfo", {}).get("ipv4Unicast", {})
        self.given = family.get("routeMapForOutgoingAdvertisements")
        self.installed = bool(re.search(r"\bname=vpn%d [^{}]*\bstate=(INSTALLED|REKEYING|REKEYED)\b" % self.number, sas))
        self.established = neighbour.get("bgpState") == "Established" and family.get("acceptedPrefixCounter", 0) > 0
        answered = self.probe is not None and self.probe.poll() == 0
        if self.probe is not None and self.probe.poll() is None:
            self.probe.kill()
            self.probe.wait()
        self.probe = None
        if not self.established:
            self.unanswered = None
        elif answered:
            self.unanswered = 0
        elif self.unanswered is not None:
            self.unanswered += 1
        was, self.well = self.well, self.established and (self.unanswered or 0) < SILENT
        if was != self.well:
            why = "" if self.well else ": BGP is down" if not self.established else ": its far end has stopped answering"
            say("tunnel %d is %s%s" % (self.number, "well" if self.well else "not well", why))
        return was and not self.well

    def ask(self):
        """One echo request through the tunnel. What is answered within the round counts."""
        try:
            self.probe = subprocess.Popen(["ping", "-q", "-n", "-c", "1", "-W", "1", "-I", self.device, self.far],
                                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except OSError as error:
            complain("ping", error)


class Routes(threading.Thread):
    """Reads the VPC's routes and claims them, in its own thread, since AWS may be slow to answer."""

    def __init__(self, settings):
        super().__init__(daemon=True)
        self.tables, self.cidr = settings["route_tables"], settings["remote_cidr"]
        self.wanted = threading.Event()
        self.holds = False
        self.taken_back = False
        # Whether silence of the other gateway was the only reason for the last claim.
        self.silence = False
        self.interface = None

    def run(self):
        first = True
        while True:
            if not first:
                self.wanted.wait()
            try:
                self.look(claim=not first)
                first = False
                content("routes")
            except FAILED as error:
                complain("routes", error)
            for nth in range(LOOK):
                time.sleep(ROUND)
                if nth and self.wanted.is_set() and not self.holds:
                    break

    def look(self, claim):
        if self.interface is None:
            mac = metadata("mac")
            self.interface = metadata("network/interfaces/macs/%s/interface-id" % mac)
        found = json.loads(run("aws", "ec2", "describe-route-tables", "--output", "json", "--route-table-ids",
                               *self.tables))
        targets = {}
        for table in found["RouteTables"]:
            targets[table["RouteTableId"]] = next(
                (route for route in table["Routes"] if route.get("DestinationCidrBlock") == self.cidr), None)
        others = [table for table in self.tables
                  if (targets.get(table) or {}).get("NetworkInterfaceId") != self.interface]
        had, self.holds = self.holds, not others
        if others and had:
            # Not claimed again at once: by the next round the other gateway has said whether it wants the routes.
            say("routes: taken by another")
            self.taken_back = self.silence
            return
        if not others and not had:
            say("routes: this machine has them")
        if not claim or not others or not self.wanted.is_set():
            return
        for table in others:
            action = "create-route" if targets.get(table) is None else "replace-route"
            run("aws", "ec2", action, "--route-table-id", table, "--destination-cidr-block", self.cidr,
                "--network-interface-id", self.interface)
            say("routes: %s in %s claimed" % (self.cidr, table))
        self.holds = True

    def want(self, wanted, silence):
        if wanted:
            self.silence = silence
            self.wanted.set()
        else:
            self.wanted.clear()


class Gateway:
    """This machine."""

    def __init__(self, settings):
        self.settings = settings
        self.name = settings["name"]
        self.tunnels = [Tunnel(tunnel) for tunnel in settings["tunnels"]]
        self.routes = Routes(settings)
        self.well_for = 0
        # The other gateway's last report, and the rounds since.
        self.other, self.silent = {"well": False, "holds": False}, SILENT
        self.yields = 0
        self.looked = 0.0
        self.wants = None

    def round(self):
        sas, neighbours = "", {}
        try:
            sas = run("swanctl", "--list-sas", "--raw")
            content("swanctl")
        except FAILED as error:
            complain("swanctl", error)
        try:
            neighbours = json.loads(run("vtysh", "-c", "show bgp neighbors json"))
            content("vtysh")
        except FAILED as error:
            complain("vtysh", error)
        fell = [tunnel for tunnel in self.tunnels if tunnel.look(sas, neighbours)]
        for tunnel in self.tunnels:
            tunnel.ask()
        well = any(tunnel.well for tunnel in self.tunnels)
        self.well_for = self.well_for + 1 if well else 0
        self.looked = time.monotonic()
        self.hear()
        self.decide()
        for tunnel in fell:
            # BGP alone would keep the dead routes for half a minute.
            if tunnel.established and well:
                self.vtysh("clear bgp %s" % tunnel.far)
        self.announce()

    def hear(self):
        try:
            with DIRECT.open(self.settings["other"], timeout=max(ROUND, 0.2)) as answer:
                word = json.load(answer)
                self.other, self.silent = {"well": word["well"] is True, "holds": word["holds"] is True}, 0
        except FAILED:
            self.silent += 1
            if self.silent == SILENT:
                say("the other gateway is silent")

    def decide(self):
        silent = self.silent >= SILENT
        if self.routes.taken_back:
            # The other gateway is alive, though it cannot be heard.
            self.routes.taken_back, self.yields = False, YIELD
            say("the other gateway is alive: its silence is ignored for %d rounds" % YIELD)
        self.yields = max(0, self.yields - 1) if silent else 0
        other_well = self.other["well"] if not silent else self.yields > 0
        other_holds = not silent and self.other["holds"]
        if self.name == "a":
            turn = not other_holds or self.well_for >= RETURN
        else:
            turn = self.routes.holds and not other_holds and not (silent and self.yields)
        wants = self.well_for >= STEADY and (not other_well or turn)
        if wants != self.wants:
            say("wants the routes" if wants else "does not want the routes")
            self.wants = wants
        self.routes.want(wants, silence=silent and self.name == "b")
        if not wants and other_holds:
            self.routes.holds = False

    def announce(self):
        """Sets the length of the path that each neighbour gets (docs/vpn.md): 0 to 3 for the tunnels that answers may take, 4 to 6
        for the others."""
        well = sum(tunnel.well for tunnel in self.tunnels)
        for tunnel in self.tunnels:
            level = 5 if self.name == "a" else 6
            if self.routes.holds:
                level = (2 if self.name == "a" else 0) + (well == len(self.tunnels)) if tunnel.well else 4
            level = "GIVE-%d" % level
            if tunnel.given is not None and tunnel.given != level:
                self.vtysh("configure terminal", "router bgp %d" % self.settings["local_asn"],
                           "address-family ipv4 unicast", "neighbor %s route-map %s out" % (tunnel.far, level))

    def vtysh(self, *commands):
        try:
            run("vtysh", *(word for command in commands for word in ("-c", command)))
            say("bgp: %s" % commands[-1])
        except FAILED as error:
            complain("vtysh", error)

    def word(self):
        """The report to the other gateway. A machine whose rounds have stopped is not well."""
        fresh = time.monotonic() - self.looked < max(SILENT * ROUND, 2)
        return {"gateway": self.name, "well": fresh and self.well_for > 0, "holds": fresh and self.routes.holds}

    def report(self):
        gateway = [{"Name": "Environment", "Value": self.settings["environment"]},
                   {"Name": "Gateway", "Value": self.name}]

        def metric(name, value, *more):
            return {"MetricName": name, "Value": int(value), "Dimensions": gateway + list(more)}

        data = [metric("RouteHeld", self.routes.holds)]
        for tunnel in self.tunnels:
            number = {"Name": "Tunnel", "Value": str(tunnel.number)}
            data += [metric("TunnelUp", tunnel.installed, number), metric("BgpUp", tunnel.established, number)]
        try:
            run("aws", "cloudwatch", "put-metric-data", "--namespace", "BedrockGateway", "--metric-data",
                json.dumps(data))
            content("metrics")
        except FAILED as error:
            complain("metrics", error)


def serve(gateway):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(gateway.word()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    port = gateway.settings["port"]
    server = http.server.ThreadingHTTPServer((os.environ.get("BEDROCK_GATEWAY_LISTEN", ""), port), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def every(rounds, action):
    def loop():
        while True:
            time.sleep(rounds * ROUND)
            action()

    threading.Thread(target=loop, daemon=True).start()


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "/etc/bedrock-gateway/vpn/watch.json"
    try:
        with open(path, encoding="utf-8") as file:
            gateway = Gateway(json.load(file))
    except (OSError, ValueError, KeyError) as error:
        sys.exit("watch: %s: %s" % (path, error))
    gateway.routes.start()
    serve(gateway)
    every(REPORT, gateway.report)
    say("gateway %s: %d tunnels" % (gateway.name, len(gateway.tunnels)))
    while True:
        begun = time.monotonic()
        gateway.round()
        time.sleep(max(0.0, ROUND - (time.monotonic() - begun)))


if __name__ == "__main__":
    main()
