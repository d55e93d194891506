#!/usr/bin/env python3
"""Renders the configuration of the VPN machine's programs from the tunnels' secret and the machine's settings.

render.py --secret FILE --settings FILE --out DIR [--device NAME] [--libipsec TUNNEL]

Writes swanctl.conf, frr.conf, interfaces (for `ip -batch`), firewall.nft and watch.json to DIR. The parameters are those
that AWS documents for its end:
  https://docs.aws.amazon.com/vpn/latest/s2svpn/VPNTunnels.html           algorithms, lifetimes, DPD, replay window
  https://docs.aws.amazon.com/vpn/latest/s2svpn/cgw-best-practice.html    MTU and MSS
  https://docs.aws.amazon.com/vpn/latest/s2svpn/vpn-route-priority.html   nothing outranks AWS's MED between a connection's tunnels
  https://docs.aws.amazon.com/vpn/latest/s2svpn/your-cgw.html             BGP: one hop away, no GTSM, no BFD
--libipsec is for kernels without ESP: one tunnel, which charon encrypts in user space behind its device ipsec0.
"""
import argparse
import ipaddress
import json
import os
import re
import sys

# AWS's figure for AES-GCM with NAT traversal on a path of 1500 bytes; an Elastic IP is always behind NAT. libipsec reads at most
# 1400 bytes from its device.
MTU, MTU_LIBIPSEC = 1438, 1400
# AWS's default timers, in seconds.
KEEPALIVE, HOLD = 10, 30
# Ranges of 169.254.0.0/16 that AWS reserves.
RESERVED = ["169.254.%d.0/30" % third for third in range(6)] + ["169.254.169.252/30"]
HEALTH_PORT = 10081


class Faults:
    """Collects every fault of a document with the name of its field, so that one run reports all of them."""

    def __init__(self, document):
        self.document = document
        self.said = []

    def say(self, field, what):
        self.said.append("%s: %s: %s" % (self.document, field, what))

    def keys(self, value, field, known):
        """Whether the value is an object; reports missing and unknown keys."""
        if not isinstance(value, dict):
            self.say(field or "(all)", "is not an object")
            return False
        prefix = field + "." if field else ""
        for key in sorted(set(known) - set(value)):
            self.say(prefix + key, "is missing")
        for key in sorted(set(value) - set(known)):
            self.say(prefix + key, "is unknown")
        return True

    def text(self, holder, key, field, pattern, what):
        value = holder.get(key)
        if value is None and key not in holder:
            return None
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            self.say(field, "is not " + what)
            return None
        return value

    def address(self, holder, key, field):
        if key not in holder:
            return None
        try:
            if not isinstance(holder[key], str):
                raise ValueError
            return ipaddress.IPv4Address(holder[key])
        except ValueError:
            return self.say(field, "is not an IPv4 address")

    def network(self, holder, key, field):
        if key not in holder:
            return None
        try:
            if not isinstance(holder[key], str) or "/" not in holder[key]:
                raise ValueError
            return ipaddress.IPv4Network(holder[key])
        except ValueError:
            return self.say(field, "is not an IPv4 network (its first address and a length, as 10.20.0.0/16)")

    def asn(self, holder, key):
        if key not in holder:
            return None
        value = holder[key]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4294967294:
            return self.say(key, "is not an AS number")
        return value


def load(path, document):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        sys.exit("render: %s: %s: %s" % (document, path, error.strerror))
    except ValueError as error:
        # The parser's own message may quote a key.
        where = "line %s" % error.lineno if isinstance(error, json.JSONDecodeError) else "its encoding"
        sys.exit("render: %s: is not JSON (%s)" % (document, where))


def read_settings(value):
    faults = Faults("settings")
    known = ["stack", "resource", "environment", "name", "other", "bucket", "release", "secret", "local_cidr",
             "remote_cidr", "route_tables", "log_group"]
    if not faults.keys(value, "", known):
        return None, faults
    name = faults.text(value, "name", "name", "[ab]", "a gateway (a or b)")
    environment = faults.text(value, "environment", "environment", "[a-z][a-z0-9-]{0,31}", "an environment's name")
    tables = value.get("route_tables", [])
    if not isinstance(tables, list) or "route_tables" in value and not tables:
        faults.say("route_tables", "is not a list of route tables")
        tables = []
    for nth, table in enumerate(tables):
        if not isinstance(table, str) or not re.fullmatch("rtb-[0-9a-f]{8,17}", table):
            faults.say("route_tables[%d]" % nth, "is not a route table's id")
    local = faults.network(value, "local_cidr", "local_cidr")
    remote = faults.network(value, "remote_cidr", "remote_cidr")
    if local and remote and local.overlaps(remote):
        faults.say("remote_cidr", "overlaps local_cidr")
    other = faults.address(value, "other", "other")
    return {"name": name, "environment": environment, "route_tables": tables, "local_cidr": local,
            "remote_cidr": remote, "other": other}, faults


def read_secret(value, name):
    """The secret with this gateway's tunnels. The other gateway reads the same secret, so its tunnels are checked too."""
    faults = Faults("secret")
    if not faults.keys(value, "", ["local_asn", "remote_asn", "gateways"]):
        return None, faults
    read = {"local_asn": faults.asn(value, "local_asn"), "remote_asn": faults.asn(value, "remote_asn")}
    if read["local_asn"] and read["local_asn"] == read["remote_asn"]:
        faults.say("remote_asn", "is the same as local_asn")
    seen = {}

    def once(field, address):
        if address is not None and seen.setdefault(address, field) != field:
            faults.say(field, "is the same as " + seen[address])

    gateways = value.get("gateways", {})
    if "gateways" in value and faults.keys(gateways, "gateways", ["a", "b"]):
        for key in ("a", "b"):
            gateway, field = gateways.get(key), "gateways." + key
            if key not in gateways or not faults.keys(gateway, field, ["outside", "tunnels"]):
                continue
            outside = faults.address(gateway, "outside", field + ".outside")
            once(field + ".outside", outside)
            tunnels = gateway.get("tunnels", [])
            if "tunnels" in gateway and (not isinstance(tunnels, list) or len(tunnels) != 2):
                faults.say(field + ".tunnels", "is not a list of two tunnels")
                continue
            here = [read_tunnel(tunnel, "%s.tunnels[%d]" % (field, nth), faults, once) for nth, tunnel in
                    enumerate(tunnels)]
            if key == name:
                read.update(outside=outside, tunnels=here)
    return read, faults


def read_tunnel(tunnel, field, faults, once):
    if not faults.keys(tunnel, field, ["outside", "inside", "psk"]):
        return None
    outside = faults.address(tunnel, "outside", field + ".outside")
    once(field + ".outside", outside)
    inside = faults.network(tunnel, "inside", field + ".inside")
    if inside and (inside.prefixlen != 30 or not inside.subnet_of(ipaddress.IPv4Network("169.254.0.0/16"))):
        inside = faults.say(field + ".inside", "is not a /30 of 169.254.0.0/16")
    if inside and str(inside) in RESERVED:
        inside = faults.say(field + ".inside", "is reserved by AWS")
    once(field + ".inside", inside)
    # The format that AWS allows.
    psk = faults.text(tunnel, "psk", field + ".psk", "[A-Za-z1-9._][A-Za-z0-9._]{7,63}",
                      "a key in the format of AWS (8 to 64 letters, digits, dots and underscores, no 0 first)")
    return {"outside": outside, "inside": inside, "psk": psk}


def compile_tunnels(secret, libipsec):
    """Number, device and the addresses of both ends, for each tunnel."""
    for number, tunnel in enumerate(secret["tunnels"], 1):
        if libipsec in (None, number):
            # AWS's end has the first host address of the /30.
            far, near = tunnel["inside"].hosts()
            yield {"number": number, "device": "ipsec0" if libipsec else "vpn%d" % number, "near": near, "far": far,
                   "outside": tunnel["outside"], "psk": tunnel["psk"]}


def swanctl(secret, tunnels, libipsec):
    lines = ["# Written by render.py.", "connections {"]
    for tunnel in tunnels:
        n = tunnel["number"]
        lines += [
            "  vpn%d {" % n,
            "    version = 2",
            "    remote_addrs = %s" % tunnel["outside"],
            "    proposals = aes256gcm16-prfsha384-ecp384",
            # AWS ends an SA after 8 hours; this end renews it before that.
            "    rekey_time = 25200s",
            "    over_time = 2700s",
            "    dpd_delay = 10s",
            "    keyingtries = 0",
            "    mobike = no",
        ]
        lines += ["    encap = yes"] if libipsec else ["    if_id_in = %d" % n, "    if_id_out = %d" % n]
        lines += [
            "    local {",
            "      auth = psk",
            "      id = %s" % secret["outside"],
            "    }",
            "    remote {",
            "      auth = psk",
            "      id = %s" % tunnel["outside"],
            "    }",
            "    children {",
            "      vpn%d {" % n,
            # AWS's end accepts any selector. Routes choose the traffic, and the firewall restricts it.
            "        local_ts = 0.0.0.0/0",
            "        remote_ts = 0.0.0.0/0",
            "        esp_proposals = aes256gcm16-ecp384",
            "        rekey_time = 2700s",
            "        life_time = 3600s",
            "        replay_window = 1024",
            "        start_action = start",
            "        close_action = start",
            "        dpd_action = restart",
            "      }",
            "    }",
            "  }",
        ]
    lines += ["}", "secrets {"]
    for tunnel in tunnels:
        lines += ["  ike-vpn%d {" % tunnel["number"], "    id-far = %s" % tunnel["outside"],
                  "    id-near = %s" % secret["outside"], "    secret = \"%s\"" % tunnel["psk"], "  }"]
    return lines + ["}"]


def frr(settings, secret, tunnels):
    """GIVE-0 to GIVE-6 announce the same route with paths of increasing length. watch.py chooses one for each neighbour. The
    choice here holds until then: it makes Commercial prefer a to b. Both tunnels of a machine get the same, and their routes the
    same preference, so that AWS's MED decides between them."""
    rank = 5 if settings["name"] == "a" else 6
    lines = [
        "! Written by render.py.",
        "frr defaults traditional",
        "hostname bedrock-gateway-vpn-%s" % settings["name"],
        "log syslog informational",
        "ip prefix-list LOCAL seq 5 permit %s" % settings["local_cidr"],
        "ip prefix-list REMOTE seq 5 permit %s%s" % (
            settings["remote_cidr"], "" if settings["remote_cidr"].prefixlen == 32 else " le 32"),
    ]
    for level in range(7):
        lines += ["route-map GIVE-%d permit 10" % level, " match ip address prefix-list LOCAL"]
        if level:
            lines.append(" set as-path prepend" + " %d" % secret["local_asn"] * level)
        lines.append("exit")
    lines += [
        "route-map TAKE permit 10",
        " match ip address prefix-list REMOTE",
        "exit",
        "router bgp %d" % secret["local_asn"],
        " bgp router-id %s" % tunnels[0]["near"],
        " bgp log-neighbor-changes",
        # This machine has no route of the range itself: it is the VPC's.
        " no bgp network import-check",
        " timers bgp %d %d" % (KEEPALIVE, HOLD),
    ]
    for tunnel in tunnels:
        far = tunnel["far"]
        lines += [" neighbor %s remote-as %d" % (far, secret["remote_asn"]),
                  " neighbor %s description tunnel %d" % (far, tunnel["number"]),
                  " neighbor %s timers connect 5" % far]
    # One tunnel at a time: a flow must not be divided.
    lines += [" address-family ipv4 unicast", "  network %s" % settings["local_cidr"], "  maximum-paths 1"]
    for tunnel in tunnels:
        far = tunnel["far"]
        lines += ["  neighbor %s route-map TAKE in" % far,
                  "  neighbor %s route-map GIVE-%d out" % (far, rank),
                  "  neighbor %s maximum-prefix 100" % far]
    return lines + [" exit-address-family", "exit"]


def interfaces(tunnels, device, libipsec):
    lines = []
    for tunnel in tunnels:
        name = tunnel["device"]
        if not libipsec:
            lines.append("link add %s type xfrm dev %s if_id %d" % (name, device, tunnel["number"]))
        lines += ["address add %s/30 dev %s" % (tunnel["near"], name),
                  "link set %s mtu %d up" % (name, MTU_LIBIPSEC if libipsec else MTU)]
    return lines


def firewall(settings, tunnels, libipsec):
    """Commercial may answer connections but not open one, whichever gateway a connection was opened through."""
    devices = ", ".join('"%s"' % tunnel["device"] for tunnel in tunnels)
    outside = ", ".join(str(tunnel["outside"]) for tunnel in tunnels)
    far = ", ".join(str(tunnel["far"]) for tunnel in tunnels)
    local, remote = settings["local_cidr"], settings["remote_cidr"]
    # The MTU less the IP and TCP headers.
    mss = (MTU_LIBIPSEC if libipsec else MTU) - 40
    return [
        "# Written by render.py.",
        "table inet bedrock_gateway",
        "delete table inet bedrock_gateway",
        "table inet bedrock_gateway {",
        "  chain input {",
        "    type filter hook input priority filter; policy drop;",
        "    iifname \"lo\" accept",
        "    ct state established,related accept",
        "    meta l4proto { icmp, icmpv6 } accept",
        "    udp sport 67 udp dport 68 accept",
        "    ip saddr { %s } udp dport { 500, 4500 } accept" % outside,
        "    ip saddr { %s } ip protocol esp accept" % outside,
        "    iifname { %s } ip saddr { %s } tcp dport 179 accept" % (devices, far),
        "    ip saddr %s tcp dport %d accept" % (settings["other"], HEALTH_PORT),
        "  }",
        "  chain forward {",
        "    type filter hook forward priority filter; policy drop;",
        "    tcp flags & (syn | rst) == syn tcp option maxseg size > %d tcp option maxseg size set %d" % (mss, mss),
        "    oifname { %s } ip saddr %s ip daddr %s accept" % (devices, local, remote),
        "    iifname { %s } ip saddr %s ip daddr %s tcp flags & (syn | ack) != syn accept" % (devices, remote, local),
        "    iifname { %s } ip saddr %s ip daddr %s ip protocol icmp accept" % (devices, remote, local),
        "  }",
        "}",
    ]


def watch(settings, secret, tunnels):
    return [json.dumps({
        "environment": settings["environment"], "name": settings["name"],
        "other": "http://%s:%d/" % (settings["other"], HEALTH_PORT), "port": HEALTH_PORT,
        "remote_cidr": str(settings["remote_cidr"]), "route_tables": settings["route_tables"],
        "local_asn": secret["local_asn"],
        "tunnels": [{"number": tunnel["number"], "device": tunnel["device"], "far": str(tunnel["far"])}
                    for tunnel in tunnels],
    }, indent=2)]


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n")[2])
    for option in ("--secret", "--settings", "--out"):
        parser.add_argument(option, required=True)
    parser.add_argument("--device", default="eth0")
    parser.add_argument("--libipsec", type=int, choices=(1, 2))
    options = parser.parse_args()
    settings, faults = read_settings(load(options.settings, "settings"))
    secret, more = read_secret(load(options.secret, "secret"), settings and settings["name"])
    said = faults.said + more.said
    if said:
        sys.exit("\n".join("render: " + line for line in said))
    tunnels = list(compile_tunnels(secret, options.libipsec))
    os.makedirs(options.out, mode=0o700, exist_ok=True)
    for name, lines in (
        ("swanctl.conf", swanctl(secret, tunnels, options.libipsec)),
        ("frr.conf", frr(settings, secret, tunnels)),
        ("interfaces", interfaces(tunnels, options.device, options.libipsec)),
        ("firewall.nft", firewall(settings, tunnels, options.libipsec)),
        ("watch.json", watch(settings, secret, tunnels)),
    ):
        # swanctl.conf holds the keys.
        mode = 0o600 if name == "swanctl.conf" else 0o644
        with open(os.open(os.path.join(options.out, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
