//! What a store's directory takes on disk.

use std::fs;
use std::io;
use std::path::Path;

/// The entries of a store's directory that are worth telling apart.
const PARTS: [&str; 3] = ["log", "reserve", "sled"];

/// Bytes on disk of each part of the store in `directory`: the commit log, the reserved file, and sled's files. Blocks.
///
/// # Errors
/// As the system has them; what goes away meanwhile counts nothing.
pub fn disk_usage(directory: &Path) -> io::Result<Vec<(&'static str, u64)>> {
    PARTS.iter().map(|part| Ok((*part, bytes(&directory.join(part))?))).collect()
}

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
    fn parts_are_summed_with_all_below_them() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("sled/blobs")).unwrap();
        for (name, len) in [("log", 3), ("sled/db", 5), ("sled/blobs/1", 7), ("LOCK", 11)] {
            fs::write(at(name), vec![0; len]).unwrap();
        }
        assert_eq!(disk_usage(directory.path()).unwrap(), [("log", 3), ("reserve", 0), ("sled", 12)]);
    }
}
