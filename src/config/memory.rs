//! The memory for answers and files with `recovery.memory = "auto"`: a share of the container's
//! limit.
//!
//! On Linux the limit is read from the files of the process's control group and of its ancestors.
//! Without a limit, or without these files, the default is [`WITHOUT_LIMIT_BYTES`].

use std::path::Path;

/// The memory for answers and files if the process has no limit.
pub const WITHOUT_LIMIT_BYTES: u64 = 256 << 20;
/// The minimum, however small the container is.
const LEAST_BYTES: u64 = 16 << 20;
/// Control groups of version 1 express "no limit" by a number from here on.
const NO_LIMIT_FROM: u64 = 1 << 60;

/// The memory for answers and files in a container with this limit: a quarter. The rest is for the
/// process, its filter workers, and one answer of the maximum size.
pub const fn share_of_limit(limit: Option<u64>) -> u64 {
    match limit {
        None => WITHOUT_LIMIT_BYTES,
        Some(limit) if limit / 4 < LEAST_BYTES => LEAST_BYTES,
        Some(limit) => limit / 4,
    }
}

/// The memory limit of this process's container.
pub(super) fn container_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    limit(&groups, Path::new("/sys/fs/cgroup"))
}

/// The lowest limit of the control groups that `groups` names and of their ancestors below `mount`.
fn limit(groups: &str, mount: &Path) -> Option<u64> {
    let files = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
        match controllers {
            "" => Some((mount.to_owned(), group, "memory.max")),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some((mount.join("memory"), group, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    let limits = files.flat_map(|(top, group, file)| {
        // In a container the path may be the host's and not exist. Then the top group counts.
        let group = Path::new(group.trim_start_matches('/'));
        group.ancestors().map(|group| top.join(group).join(file)).collect::<Vec<_>>()
    });
    limits
        .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
        .filter(|limit| *limit < NO_LIMIT_FROM)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_the_groups_and_their_ancestors_counts() {
        let mount = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = mount.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        let found = |groups: &str| limit(groups, mount.path());
        assert_eq!(found("0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        assert_eq!(found("0::/a/b\n"), None);
        write("a/memory.max", "536870912\n");
        assert_eq!(found("0::/a/b\n"), Some(512 << 20), "the limit of the parent group");
        write("memory.max", "268435456\n");
        assert_eq!(found("0::/a/b\n"), Some(256 << 20));
        assert_eq!(found("0::/\n"), Some(256 << 20), "the path inside a container");
        assert_eq!(found("0::/../../elsewhere\n"), Some(256 << 20));
        // Version 1.
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(found("3:cpu,cpuacct:/c\n4:memory:/c\n"), None);
        write("memory/c/memory.limit_in_bytes", "134217728\n");
        assert_eq!(found("3:cpu,cpuacct:/c\n4:memory:/c\n"), Some(128 << 20));
        assert_eq!(found("no such line"), None);
    }

    #[test]
    fn a_quarter_of_the_limit_is_for_answers_and_files() {
        for (limit, share) in
            [(None, 256), (Some(64 << 20), 16), (Some(512 << 20), 128), (Some(4 << 30), 1024)]
        {
            assert_eq!(share_of_limit(limit), share << 20, "{limit:?}");
        }
    }
}
