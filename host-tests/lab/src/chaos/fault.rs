//! The faults of a path, and the limits for the gateway.

use std::fmt;

/// The table in each path's host: it counts packets by DSCP value; the other chains are empty without a
/// fault.
pub const TABLE: &str = "\
table ip chaos {
  set arrived {
    type dscp
    flags dynamic
    counter
  }
  chain arriving {
    type filter hook prerouting priority -300;
    update @arrived { ip dscp counter }
  }
  chain input {
    type filter hook input priority 0;
  }
  chain output {
    type filter hook output priority 0;
  }
}
";

/// A fault of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Connections are refused, open ones end.
    Refuse,
    /// Connections are accepted, and reset at their first byte.
    Reset,
    /// Every packet is dropped, both ways.
    Silent,
    /// Every request is answered with 503.
    Unavailable,
    /// 5 % of packets are dropped, both ways.
    Loss,
    /// Every answer is two seconds late.
    Slow,
}

impl Fault {
    /// The rules in a path's host that make it, after which [`TABLE`]'s chains are flushed to end it.
    pub fn rules(self) -> &'static str {
        match self {
            // The double does it.
            Fault::Refuse | Fault::Unavailable | Fault::Slow => "",
            Fault::Reset => "add rule ip chaos input tcp flags & syn == 0 reject with tcp reset\n",
            Fault::Silent => "add rule ip chaos input drop\nadd rule ip chaos output drop\n",
            Fault::Loss => {
                "add rule ip chaos input numgen random mod 100 < 5 drop\n\
                 add rule ip chaos output numgen random mod 100 < 5 drop\n"
            }
        }
    }

    /// The 99th percentile that calls may take while a path fails, in milliseconds: short enough not to be an outage for a
    /// person. A dropped packet shows only by a timeout, and a slow path still works.
    pub fn p99_ms(self) -> f64 {
        match self {
            Fault::Silent | Fault::Loss | Fault::Slow => 3000.0,
            Fault::Refuse | Fault::Reset | Fault::Unavailable => 1500.0,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Refuse => "refuse",
            Fault::Reset => "reset",
            Fault::Silent => "silent",
            Fault::Unavailable => "503",
            Fault::Loss => "loss",
            Fault::Slow => "slow",
        })
    }
}
