//! The part of WASI preview 1 that Envoy's host answers: no files, no arguments, the environment it was configured with.
//!
//! Written by hand and not taken from a full WASI, since a module that leans on more than this would pass tests and
//! fail in Envoy.

use wasmtime::{Caller, Linker};

use crate::vm::fault::Refusal;
use crate::vm::guest::Guest;
use crate::vm::state::{Log, State};

const BADF: u32 = 8;
const NOTSUP: u32 = 58;

macro_rules! wasi {
    ($linker:expr; $(fn $name:ident($guest:ident $(, $arg:ident: $type:ty)* $(,)?) $body:block)+) => {
        $(
            $linker.func_wrap(
                "wasi_snapshot_preview1",
                stringify!($name),
                |caller: Caller<'_, State>, $($arg: $type),*| -> wasmtime::Result<u32> {
                    Guest::enter(caller, stringify!($name)).run(|$guest| -> Result<u32, Refusal> { $body })
                },
            )?;
        )+
    };
}

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasi! { linker;
        fn fd_write(guest, fd: u32, vectors: u32, count: u32, written_to: u32) {
            // As in Envoy: standard output is info, standard error is error.
            let level = match fd {
                1 => 2,
                2 => 4,
                _ => return Ok(BADF),
            };
            let mut bytes = Vec::new();
            for n in 0..count {
                let vector = guest.read(vectors.saturating_add(n.saturating_mul(8)), 8, "vector")?;
                let mut fields = vector.chunks_exact(4).map(|field| {
                    field.iter().rev().fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte))
                });
                let (pointer, size) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
                bytes.extend(guest.read(pointer, size, "data")?);
            }
            guest.write_u32(written_to, u32::try_from(bytes.len()).unwrap_or(u32::MAX), "size result")?;
            let text = String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
            guest.state().logs.push(Log { level, text });
            Ok(0)
        }
        fn environ_sizes_get(guest, count_to: u32, size_to: u32) {
            let environment = &guest.state().environment;
            let count = environment.len();
            let size: usize = environment.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
            guest.write_u32(count_to, u32::try_from(count).unwrap_or(0), "count result")?;
            guest.write_u32(size_to, u32::try_from(size).unwrap_or(0), "size result")?;
            Ok(0)
        }
        fn environ_get(guest, pointers: u32, text: u32) {
            let (mut pointers, mut text_at) = (pointers, text);
            for (name, value) in guest.state().environment.clone() {
                let text = format!("{name}={value}\0");
                guest.write_u32(pointers, text_at, "pointer result")?;
                guest.write(text_at, text.as_bytes(), "text")?;
                pointers += 4;
                text_at += u32::try_from(text.len()).unwrap_or(0);
            }
            Ok(0)
        }
        fn args_sizes_get(guest, count_to: u32, size_to: u32) {
            guest.write_u32(count_to, 0, "count result")?;
            guest.write_u32(size_to, 0, "size result")?;
            Ok(0)
        }
        fn args_get(_guest, _pointers: u32, _text: u32) {
            Ok(0)
        }
        fn clock_time_get(guest, clock: u32, _precision: u64, time_to: u32) {
            // 0 is the wall clock, 1 the monotonic one.
            if clock > 1 {
                return Ok(NOTSUP);
            }
            let now = guest.state().clock_ns;
            guest.write_u64(time_to, now, "time result")?;
            Ok(0)
        }
        fn random_get(guest, pointer: u32, size: u32) {
            // The same in every run, so that a failing test fails again.
            let mut bytes = Vec::new();
            for _ in 0..size {
                let random = &mut guest.state().random;
                *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.push(random.to_be_bytes()[0]);
            }
            guest.write(pointer, &bytes, "buffer")?;
            Ok(0)
        }
        fn sched_yield(_guest) {
            Ok(0)
        }
        fn fd_fdstat_get(guest, fd: u32, stat_to: u32) {
            if fd != 1 && fd != 2 {
                return Ok(BADF);
            }
            let mut stat = [0_u8; 24];
            stat[8] = 64; // the right to write
            guest.write(stat_to, &stat, "stat result")?;
            Ok(0)
        }
        fn fd_prestat_get(_guest, _fd: u32, _stat_to: u32) {
            // No directory is open before the start.
            Ok(BADF)
        }
        fn fd_prestat_dir_name(_guest, _fd: u32, _path: u32, _size: u32) {
            Ok(BADF)
        }
        fn fd_read(_guest, _fd: u32, _vectors: u32, _count: u32, _read_to: u32) {
            Err(Refusal::Misuse("there are no files".to_owned()))
        }
        fn fd_seek(_guest, _fd: u32, _offset: i64, _whence: u32, _offset_to: u32) {
            Err(Refusal::Misuse("there are no files".to_owned()))
        }
        fn fd_close(_guest, _fd: u32) {
            Err(Refusal::Misuse("there are no files".to_owned()))
        }
    }
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |caller: Caller<'_, State>, code: u32| -> wasmtime::Result<()> {
            Err(Guest::enter(caller, "proc_exit").end(&format!("the module exits with {code}")))
        },
    )?;
    Ok(())
}
