//! Files that all workers of a role read: mapped, so the machine holds them once.

use std::fs::File;
use std::io;
use std::os::unix::io::AsRawFd;
use std::path::Path;

use crate::memory::Mapping;

/// The bytes of a file, read-only, for the life of the process. However many workers map it, its
/// pages are in memory once, and only those that were looked at.
///
/// # Safety
/// Nobody writes to the file or cuts it while it is mapped. A new version of it is a new file that
/// is renamed into its place.
pub unsafe fn map_file(path: &Path) -> io::Result<&'static [u8]> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len() as usize;
    if bytes == 0 {
        return Ok(&[]);
    }
    let at = Mapping::new(file.as_raw_fd(), bytes, false)?.pointer(0, bytes);
    // SAFETY: mapped for ever, and constant, as the caller promises.
    Ok(unsafe { core::slice::from_raw_parts(at, bytes) })
}
