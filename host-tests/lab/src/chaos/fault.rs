//! What is done to a path, and what is asked of the gateway then.

use std::fmt;

/// The table in each path's host: what arrived is counted by its DSCP value, and the other chains are empty while nothing
/// is wrong.
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

/// A way for a path to fail.
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
    /// Of a hundred packets five are dropped, both ways.
    Loss,
    /// Every answer comes two seconds later.
    Slow,
}

impl Fault {
    /// The rules in a path's host that make it, after which [`TABLE`]'s chains are flushed to end it.
    pub fn rules(self) -> &'static str {
        match self {
            // Made at the double itself.
            Fault::Refuse | Fault::Unavailable | Fault::Slow => "",
            Fault::Reset => "add rule ip chaos input tcp flags & syn == 0 reject with tcp reset\n",
            Fault::Silent => "add rule ip chaos input drop\nadd rule ip chaos output drop\n",
            Fault::Loss => {
                "add rule ip chaos input numgen random mod 100 < 5 drop\n\
                 add rule ip chaos output numgen random mod 100 < 5 drop\n"
            }
        }
    }

    /// The 99th percentile that calls may take while a path fails, in milliseconds: what a person does not call an outage.
    /// A dropped packet is known to be lost only by waiting for its answer, and a slow path is a path.
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
