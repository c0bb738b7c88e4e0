//! The only unsafe code: what the safe binding to libpam lacks.
//!
//! The crate `pam` (pam-client2) starts and ends transactions, passes flags and carries the conversation; it has no
//! safe way to set `PAM_FAIL_DELAY`, and it reads `PAM_USER` as if it were always UTF-8.

#![expect(unsafe_code, reason = "libpam is C")]

use core::ffi::{CStr, c_int, c_uint, c_void};
use pam::pam_sys::{PAM_FAIL_DELAY, PAM_USER};
use pam::{Context, ErrorCode};

/// Called by libpam at the end of `pam_authenticate`, with the result and the delay in microseconds that modules ask
/// for, in place of its own sleep. sasld delays refusals itself, without keeping a worker.
extern "C" fn no_delay(_result: c_int, _microseconds: c_uint, _appdata: *mut c_void) {}

/// Makes refusals cost this process no time.
///
/// # Errors
/// What `pam_set_item` returns.
pub fn refuse_delays<C>(context: &mut Context<C>) -> Result<(), ErrorCode> {
    let item = no_delay as extern "C" fn(c_int, c_uint, *mut c_void) as *const c_void;
    // SAFETY: pam_set_item(3) takes for PAM_FAIL_DELAY a pointer to `void (*)(int, unsigned, void *)`, which
    // pam_fail_delay(3) specifies; that is the type of `no_delay`. libpam keeps the pointer itself and reads nothing
    // through it. A function lives for ever, and this one cannot unwind.
    unsafe { context.set_item(PAM_FAIL_DELAY as c_int, item) }.map_err(|error| error.code())
}

/// `PAM_USER` as it stands, which modules can change and even take away.
pub fn user<C>(context: &Context<C>) -> Vec<u8> {
    let Ok(item) = context.get_item(PAM_USER as c_int) else {
        return Vec::new();
    };
    if item.is_null() {
        return Vec::new();
    }
    // SAFETY: pam_get_item(3) gives for PAM_USER a pointer to a NUL-terminated string that belongs to the transaction;
    // it stays valid until the item is set again or the transaction ends. Both need `context` mutably or by value,
    // and it is borrowed until the bytes are copied.
    unsafe { CStr::from_ptr(item.cast()) }.to_bytes().to_vec()
}
