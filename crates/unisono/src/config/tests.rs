//! Directories made, read back, and refused with a reason that says what to do.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn made() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    init(directory.path(), &InitOptions { client_keys: 2, ..InitOptions::default() }).unwrap();
    directory
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn replica_error(directory: &Path) -> String {
    ReplicaConfig::load(directory).unwrap_err().to_string()
}

#[test]
fn what_init_makes_loads_and_agrees() {
    let directory = made();
    let replicas: Vec<_> =
        (0..3).map(|i| ReplicaConfig::load(directory.path().join(format!("replica-{i}"))).unwrap()).collect();
    let client = ClientConfig::load(directory.path().join("client")).unwrap();
    let admin = AdminConfig::load(directory.path().join("admin")).unwrap();
    for (index, replica) in replicas.iter().enumerate() {
        assert_eq!(usize::from(replica.id.0), index);
        assert_eq!(replica.cluster.membership, client.cluster.membership);
        assert_eq!(replica.cluster.membership, admin.cluster.membership);
        assert!(replica.listen.starts_with("127.0.0.1:"));
        assert_eq!(replica.run_directory(), directory.path().canonicalize().unwrap().join("run"));
        assert!(replica.data_directory().is_dir());
    }
    assert_eq!(client.keys.len(), 2);
    assert_ne!(replicas[0].host.public(), replicas[1].host.public());
}

#[test]
fn what_a_cluster_begins_with_is_written_down_and_an_older_file_means_the_preset() {
    let directory = tempfile::tempdir().unwrap();
    let schedule: Schedule = "pds2".parse().unwrap();
    init(directory.path(), &InitOptions { schedule: schedule.clone(), ..InitOptions::default() }).unwrap();
    let replica = directory.path().join("replica-0");
    let loaded = ReplicaConfig::load(&replica).unwrap();
    assert_eq!((loaded.cluster.schedule, loaded.workers), (schedule.clone(), 0));
    assert_eq!(loaded.start_ahead, schedule.start_ahead());
    let path = replica.join("cluster.toml");
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.starts_with("parameters")).unwrap();
    assert_eq!(line, r#"parameters = "n=16 steps=2 order=round-robin flush-rounds=16 predicate=all""#);
    fs::write(&path, text.replace(line, r#"parameters = "n=9""#)).unwrap();
    let parameters = ReplicaConfig::load(&replica).unwrap().cluster.schedule.parameters().cloned().unwrap();
    assert_eq!((parameters.primaries, parameters.steps), (9, 2));
    fs::write(&path, text.replace(line, "")).unwrap();
    assert_eq!(ReplicaConfig::load(&replica).unwrap().cluster.schedule, schedule);
    fs::write(replica.join("process.toml"), "replica = 0\nworkers = 2\nstart_ahead = 7\n").unwrap();
    let loaded = ReplicaConfig::load(&replica).unwrap();
    assert_eq!((loaded.workers, loaded.start_ahead), (2, 7));
}

#[test]
fn nobody_else_may_read_anything() {
    let directory = made();
    let mut stack = vec![directory.path().to_path_buf()];
    while let Some(path) = stack.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "{}", path.display());
            if path.is_dir() {
                stack.push(path);
            }
        }
    }
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let directory = made();
    let replica = directory.path().join("replica-0");
    for (name, mode) in [("host.key", 0o644), ("register.key", 0o640)] {
        set_mode(&replica.join(name), mode);
        let text = replica_error(&replica);
        assert!(text.contains("chmod 600") && text.contains(name), "{text}");
        set_mode(&replica.join(name), 0o600);
    }
    let key = directory.path().join("client/keys/1.key");
    set_mode(&key, 0o604);
    assert!(matches!(
        ClientConfig::load(directory.path().join("client")),
        Err(ConfigError::ReadableKey { mode: 0o604, .. })
    ));
    let key = directory.path().join("admin/admin.key");
    set_mode(&key, 0o660);
    assert!(matches!(AdminConfig::load(directory.path().join("admin")), Err(ConfigError::ReadableKey { .. })));
}

#[test]
fn files_of_two_clusters_do_not_mix() {
    let (ours, theirs) = (made(), made());
    for name in ["host.key", "register.key"] {
        let here = ours.path().join("replica-1").join(name);
        let before = fs::read(&here).unwrap();
        fs::copy(theirs.path().join("replica-1").join(name), &here).unwrap();
        assert!(replica_error(&ours.path().join("replica-1")).contains("another cluster"));
        fs::write(&here, before).unwrap();
    }
    fs::copy(theirs.path().join("client/cluster.toml"), ours.path().join("client/cluster.toml")).unwrap();
    assert!(matches!(ClientConfig::load(ours.path().join("client")), Err(ConfigError::ForeignKey { .. })));
    fs::copy(theirs.path().join("admin/admin.key"), ours.path().join("admin/admin.key")).unwrap();
    assert!(matches!(AdminConfig::load(ours.path().join("admin")), Err(ConfigError::ForeignKey { .. })));
}

#[test]
fn another_replicas_key_is_not_ours() {
    let directory = made();
    fs::copy(directory.path().join("replica-1/host.key"), directory.path().join("replica-0/host.key")).unwrap();
    assert!(matches!(ReplicaConfig::load(directory.path().join("replica-0")), Err(ConfigError::ForeignKey { .. })));
}

#[test]
fn what_is_missing_or_cut_short_is_named() {
    let directory = made();
    let replica = directory.path().join("replica-2");
    assert!(replica_error(&directory.path().join("replica-7")).contains("is no directory"));
    fs::write(replica.join("host.key"), [1; 31]).unwrap();
    assert!(replica_error(&replica).contains("has 31 bytes, a key has 32"));
    for name in ["host.key", "process.toml", "cluster.toml"] {
        fs::remove_file(replica.join(name)).unwrap();
        let text = replica_error(&replica);
        assert!(text.contains(name) && text.contains("is missing"), "{text}");
    }
    for key in 0..2 {
        fs::remove_file(directory.path().join(format!("client/keys/{key}.key"))).unwrap();
    }
    assert!(matches!(ClientConfig::load(directory.path().join("client")), Err(ConfigError::NoKeys(_))));
}

#[test]
fn settings_that_are_unknown_wrong_or_contradictory_are_refused() {
    let directory = made();
    let replica = directory.path().join("replica-0");
    let check = |name: &str, change: &dyn Fn(&str) -> String, expected: &str| {
        let path = replica.join(name);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(&before)).unwrap();
        let text = replica_error(&replica);
        assert!(text.contains(expected), "{name}: {text}");
        fs::write(&path, before).unwrap();
    };
    check("process.toml", &|text| format!("{text}turbo = true\n"), "turbo");
    check("process.toml", &|_| "replica = 9\n".into(), "replica 9 is no member");
    check("process.toml", &|_| "replica = ".into(), "cannot be understood");
    check("cluster.toml", &|text| text.replacen("algorithm = \"aphousia\"", "algorithm = \"paxos\"", 1), "paxos");
    check("cluster.toml", &|text| text.replacen("schedule = \"uds\"", "schedule = \"magic\"", 1), "magic");
    check("cluster.toml", &|text| text.replacen("parameters = \"n=64", "parameters = \"n=0", 1), "begin at 1");
    check("process.toml", &|text| format!("{text}workers = 5000\n"), "at most 1024");
    check("cluster.toml", &|text| text.replacen("admin_key = \"", "admin_key = \"zz", 1), "not hexadecimal");
    check("cluster.toml", &|text| text.replacen("id = 1", "id = 5", 1), "without gaps");
    check("cluster.toml", &|text| text.replacen("window = 4096", "window = 0", 1), "limits");
    check("cluster.toml", &|text| text.replacen("block_bytes = 25165824", "block_bytes = 500000000", 1), "at most");
    check("cluster.toml", &|text| text.replacen("block_bytes = 25165824", "block_bytes = 4000000000", 1), "30 bits");
    assert!(ReplicaConfig::load(&replica).is_ok(), "the changes were undone");
}

#[test]
fn a_directory_in_use_is_left_alone_and_wrong_requests_are_refused() {
    let directory = made();
    assert!(matches!(init(directory.path(), &InitOptions::default()), Err(ConfigError::NotEmpty(_))));
    let fresh = tempfile::tempdir().unwrap();
    let refused = |options: InitOptions| init(fresh.path().join("c"), &options).unwrap_err().to_string();
    let with_hosts = |hosts: &[&str]| InitOptions {
        hosts: Some(hosts.iter().map(ToString::to_string).collect()),
        ..InitOptions::default()
    };
    assert!(refused(InitOptions { replicas: 0, ..InitOptions::default() }).contains("1 to 64"));
    assert!(refused(InitOptions { algorithm: "pow".into(), ..InitOptions::default() }).contains("pow"));
    assert!(refused(with_hosts(&["a:1", "b:2"])).contains("2 hosts are named for 3 replicas"));
    assert!(refused(with_hosts(&["a:1", "b:2", "c"])).contains("c is not HOST:PORT"));
    assert!(refused(with_hosts(&["a:1", "b:2", ":3"])).contains(":3 is not HOST:PORT"));
    assert!(!fresh.path().join("c").exists(), "nothing was made");
    let named = init(fresh.path().join("c"), &with_hosts(&["a:1", "b:2", "c:3"])).unwrap();
    assert_eq!(named.member(ReplicaId(2)).unwrap().address, "c:3");
}
