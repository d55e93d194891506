//! The programs of the VPN's hosts: strongSwan, FRR and a metadata service, with their configuration.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bedrock_gateway::process::Process;

use crate::Error;
use crate::machine::Machine;
use crate::namespace::{Namespace, run};

/// A metadata service, in Python.
pub const IMDS: &str = include_str!("imds.py");
/// The configuration of AWS's ends and Commercial's router; names in `@` are replaced.
const FAR_SWANCTL: &str = include_str!("far/swanctl.conf");
const FAR_FRR: &str = include_str!("far/frr.conf");
const ROUTER_FRR: &str = include_str!("far/router.conf");
/// The device's number, major 10 and minor 200.
const TUN: u64 = 10 << 8 | 200;
/// Time for a daemon to listen.
pub(super) const DAEMON_START: Duration = Duration::from_secs(20);

/// Fails if ESP cannot run in user space; the error says what is missing.
pub fn check() -> Result<(), Error> {
    let tun = "/dev/net/tun";
    let why = match std::fs::metadata(tun) {
        // Opens it, since the file exists without the kernel's driver.
        Ok(file) if file.rdev() == TUN => match std::fs::File::options().read(true).write(true).open(tun) {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        },
        Ok(_) => "it is another device".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::Failed(format!("vpn needs {tun} for ESP in user space: {why}")))
}

/// charon's plugins and its log; `more` are further settings.
pub(super) fn strongswan(machine: &Machine, more: &str) -> Result<(), Error> {
    let more = if more.contains("charon-systemd") { more.to_owned() } else { format!("charon-systemd {{\n{more}}}\n") };
    let text = format!(
        "charon-systemd {{\n  load = random nonce openssl gcm hmac kdf sha2 kernel-libipsec kernel-netlink socket-default \
         vici\n  # libipsec always adds routes: behind all others.\n  routing_table_prio = 40000\n  \
         filelog {{\n    stderr {{\n      default = 1\n    }}\n  }}\n}}\nswanctl {{\n  load = random openssl\n}}\n{more}"
    );
    write(&machine.outside("/etc/strongswan.conf"), &text)
}

/// Starts charon and gives it its connections.
pub(super) fn charon(name: &str, machine: &Machine, space: &Namespace, dir: &Path) -> Result<Process, Error> {
    let command = machine.exec(Some(space), "charon-systemd");
    let mut process = Process::start("charon", command, &dir.join(format!("{name}.charon.log")))?;
    let start = Instant::now();
    // Its socket exists before it listens.
    while let Err(error) = run(machine.exec(Some(space), "swanctl").args(["--load-all", "--noprompt"])) {
        process.check()?;
        if start.elapsed() > DAEMON_START {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(process)
}

/// Waits for a daemon's socket.
fn listens(process: &mut Process, socket: &Path) -> Result<(), Error> {
    let start = Instant::now();
    while !socket.exists() {
        process.check()?;
        if start.elapsed() > DAEMON_START {
            return Err(process.not_ready(DAEMON_START).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// strongSwan's connections at AWS's end of a tunnel.
pub(super) fn swanctl(far: &str, outside: &str, psk: &str) -> String {
    FAR_SWANCTL.replace("@FAR@", far).replace("@OUTSIDE@", outside).replace("@PSK@", psk)
}

/// FRR's configuration at AWS's end of a tunnel: the inside addresses of this end and the other, the address of Commercial's router;
/// and BGP's timers.
pub fn far_end([far, near, router]: [&str; 3], (keepalive, hold): (u32, u32)) -> String {
    let text = FAR_FRR.replace("@FAR@", far).replace("@NEAR@", near).replace("@ROUTER@", router);
    text.replace("@KEEPALIVE@", &keepalive.to_string()).replace("@HOLD@", &hold.to_string())
}

/// FRR's configuration at Commercial's router: the addresses of both ends.
pub fn router([one, two]: [&str; 2]) -> String {
    ROUTER_FRR.replace("@ONE@", one).replace("@TWO@", two)
}

/// Starts FRR: its routes in the kernel, and BGP.
pub fn frr(name: &str, machine: &Machine, space: &Namespace, dir: &Path) -> Result<Vec<Process>, Error> {
    // No PAM in this root.
    write(&machine.outside("/etc/frr/vtysh.conf"), "username root nopassword\n")?;
    let run = machine.outside("/run/frr");
    // The user frr of the packages' root.
    std::os::unix::fs::chown(&run, Some(998), Some(998)).map_err(Error::file("cannot change", &run))?;
    let start = |daemon: &str| {
        let mut command = machine.exec(Some(space), daemon);
        command.args(["-f", "/etc/frr/frr.conf", "-A", "127.0.0.1", "--log", "stdout"]);
        Process::start(daemon, command, &dir.join(format!("{name}.{daemon}.log")))
    };
    let mut zebra = start("zebra")?;
    // Otherwise bgpd retries only after ten seconds.
    listens(&mut zebra, &run.join("zserv.api"))?;
    Ok(vec![zebra, start("bgpd")?])
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(file, text).map_err(Error::file("cannot write", file))
}
