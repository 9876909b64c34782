//! Disk usage of a store's directory.

use std::fs;
use std::io;
use std::path::Path;

/// The entries of a store's directory that are reported separately.
const PARTS: [&str; 3] = ["log", "reserve", "sled"];

/// Returns the size in bytes of each part of the store in `directory`: the commit log, the reserve file, and sled's
/// files. A missing file counts as zero. The call blocks on disk I/O.
///
/// # Errors
/// Returns the I/O error if a file or directory cannot be read. A file that is removed during the call is not an error.
pub fn disk_usage(directory: &Path) -> io::Result<Vec<(&'static str, u64)>> {
    PARTS.iter().map(|part| Ok((*part, bytes(&directory.join(part))?))).collect()
}

/// Returns the size of a file, or of all files in a directory and below it.
fn bytes(path: &Path) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.map(|entry| bytes(&entry?.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_a_directory_includes_all_files_below_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("sled/blobs")).unwrap();
        for (name, len) in [("log", 3), ("sled/db", 5), ("sled/blobs/1", 7), ("LOCK", 11)] {
            fs::write(at(name), vec![0; len]).unwrap();
        }
        assert_eq!(disk_usage(directory.path()).unwrap(), [("log", 3), ("reserve", 0), ("sled", 12)]);
    }
}
