//! A disk that gets full soon.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk, as long as it is in scope.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// A disk of so many kilobytes. `None` where it cannot be mounted: that takes root.
    pub(crate) fn mount(path: &Path, kilobytes: u64) -> Option<SmallDisk> {
        std::fs::create_dir_all(path).expect("the directory can be written");
        let size = format!("size={kilobytes}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| SmallDisk(path.to_path_buf()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
