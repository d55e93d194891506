//! Steps the wall clock of programs that it is preloaded into (`LD_PRELOAD`), while they run: `STEPPED_CLOCK_FILE` names a file
//! of eight bytes, the nanoseconds that are added, as an `i64` of this machine. All programs with the same file see a step
//! at once. Clocks that only go forward are not changed, as with a real step.
//!
//! Nothing here may allocate: Envoy's allocator reads the clock while it starts. Debian's libfaketime does, and with it this
//! Envoy waits for ever before its `main`. A wait until a time of the wall clock (`pthread_cond_timedwait`) is not changed.
#![cfg(target_os = "linux")]

use std::ffi::{c_int, c_long, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

use libc::{clockid_t, time_t, timespec, timeval};

const BILLION: i64 = 1_000_000_000;

/// Where the offset is if there is none.
static NONE: AtomicI64 = AtomicI64::new(0);
/// The mapped file, or [`NONE`]; null until the first call.
static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new(null_mut());

fn offset() -> i64 {
    let mut place = OFFSET.load(Ordering::Acquire);
    if place.is_null() {
        // Two threads may both map it.
        place = map().unwrap_or((&raw const NONE).cast_mut());
        OFFSET.store(place, Ordering::Release);
    }
    // SAFETY: it is `NONE`, or a page that stays mapped, aligned to pages.
    unsafe { &*place }.load(Ordering::Relaxed)
}

fn map() -> Option<*mut AtomicI64> {
    // SAFETY: the name ends with a NUL; the variable's text is read before anything changes the environment.
    let file = unsafe {
        let path = libc::getenv(c"STEPPED_CLOCK_FILE".as_ptr());
        if path.is_null() {
            return None;
        }
        libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC)
    };
    if file < 0 {
        return None;
    }
    // SAFETY: a new mapping, of a file that the test keeps.
    let place = unsafe { libc::mmap(null_mut(), size_of::<i64>(), libc::PROT_READ, libc::MAP_SHARED, file, 0) };
    // SAFETY: nobody else has this descriptor.
    unsafe { libc::close(file) };
    (place != libc::MAP_FAILED).then_some(place.cast())
}

/// The kernel's own answer, which the C library's function would read without a system call.
fn real(clock: clockid_t, to: *mut timespec) -> c_int {
    // SAFETY: the caller's pointer, as with the C library's function.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), to) };
    if result == 0 { 0 } else { -1 }
}

fn wall() -> timespec {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    real(libc::CLOCK_REALTIME, &raw mut now);
    stepped(now)
}

fn stepped(time: timespec) -> timespec {
    let nanoseconds = time.tv_sec * BILLION + time.tv_nsec + offset();
    timespec { tv_sec: nanoseconds.div_euclid(BILLION), tv_nsec: nanoseconds.rem_euclid(BILLION) }
}

/// As in clock_gettime(2).
///
/// # Safety
/// `to` is null, or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, to: *mut timespec) -> c_int {
    let result = real(clock, to);
    let is_wall = [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE, libc::CLOCK_TAI].contains(&clock);
    if result == 0 && is_wall && !to.is_null() {
        // SAFETY: the kernel has just written it.
        unsafe { *to = stepped(*to) };
    }
    result
}

/// As in gettimeofday(2).
///
/// # Safety
/// `to` is null, or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(to: *mut timeval, _zone: *mut c_void) -> c_int {
    let now = wall();
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *to = timeval { tv_sec: now.tv_sec, tv_usec: now.tv_nsec / 1000 } };
    }
    0
}

/// As in time(2).
///
/// # Safety
/// `to` is null, or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(to: *mut time_t) -> time_t {
    let now = wall().tv_sec;
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *to = now };
    }
    now
}
