//! What the machine did: CPU time of processes and time stolen from all, from /proc.
//!
//! Everything here may be missing (another system, a process that is gone): then there is no figure, never a wrong one.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

/// Ticks since the machine started, from the first line of /proc/stat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MachineTime {
    total: u64,
    steal: u64,
}

impl MachineTime {
    /// Now. All zero where there is no /proc.
    #[must_use]
    pub fn now() -> Self {
        fs::read_to_string("/proc/stat").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guest times behind are part of user.
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).map_while(|word| word.parse().ok()).collect();
        Self { total: ticks.iter().sum(), steal: ticks.get(7).copied().unwrap_or(0) }
    }

    /// Share of the time since `before` that the hypervisor gave to others.
    #[must_use]
    pub fn steal_since(&self, before: &Self) -> f64 {
        let total = self.total.saturating_sub(before.total);
        if total == 0 { 0.0 } else { self.steal.saturating_sub(before.steal) as f64 / total as f64 }
    }
}

/// User and system time of these processes together, so far. `None` when there are none or one of them is gone.
#[must_use]
pub fn cpu_time(pids: &[u32]) -> Option<Duration> {
    if pids.is_empty() {
        return None;
    }
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let mut ticks = 0;
    for pid in pids {
        ticks += cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    }
    Some(Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64))
}

fn cpu_ticks(stat: &str) -> Option<u64> {
    // The command's name stands in parentheses and may hold anything, so count from the last one.
    let behind_name = stat.get(stat.rfind(')')? + 1..)?;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let (user, system) = (fields.get(11)?, fields.get(12)?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

/// Resident memory of a process in bytes.
#[must_use]
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Pids of the replicas of the cluster whose run directory this is. Registers in processes of their own count as well.
#[must_use]
pub fn replica_pids(run_directory: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(run_directory) else { return Vec::new() };
    let mut pids = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let counts = name.starts_with("replica-") || name.starts_with("register-");
        if counts && name.ends_with(".pid") {
            pids.extend(fs::read_to_string(entry.path()).ok().and_then(|text| text.trim().parse::<u32>().ok()));
        }
    }
    pids
}

/// The process that listens on `address` of this machine, as far as we may see it.
#[must_use]
pub fn listening_pid(address: SocketAddr) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = fs::read_to_string(table).ok()?;
        listening_inode(&table, address.port())
    })?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let mut links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        if links.any(|link| link.as_os_str() == wanted.as_str()) {
            return Some(pid);
        }
    }
    None
}

fn listening_inode(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state) = (fields.get(1)?, fields.get(3)?);
        let local_port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (local_port == port && *state == LISTEN).then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_share_between_two_looks() {
        let before = MachineTime::parse("cpu  100 0 100 700 0 0 0 100 9 9\ncpu0 ...\n");
        let after = MachineTime::parse("cpu  150 0 150 850 0 0 0 150 9 9\n");
        assert_eq!(before, MachineTime { total: 1000, steal: 100 });
        assert!((after.steal_since(&before) - 50.0 / 300.0).abs() < 1e-9);
        assert!(before.steal_since(&before).abs() < 1e-9, "no time passed");
        assert_eq!(MachineTime::parse(""), MachineTime::default());
    }

    #[test]
    fn a_process_name_may_look_like_anything() {
        let stat = "77 (evil) name) R) S 1 77 77 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("77 (short) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(listening_pid(address), Some(std::process::id()));
        drop(listener);
        assert_eq!(listening_pid(address), None);
    }

    #[test]
    fn only_replicas_and_registers_count() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("replica-0.pid", "11\n"),
            ("replica-1.pid", "12"),
            ("register-1.pid", "13\n"),
            ("gateway.pid", "14\n"),
            ("replica-2.metrics", "15\n"),
            ("replica-3.pid", "not a number"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let mut pids = replica_pids(directory.path());
        pids.sort_unstable();
        assert_eq!(pids, [11, 12, 13]);
        assert!(replica_pids(&directory.path().join("none")).is_empty());
        assert!(cpu_time(&[]).is_none());
        assert!(cpu_time(&[u32::MAX]).is_none());
        assert!(resident_bytes(std::process::id()).unwrap() > 1 << 20);
    }
}
