//! Amnesia: a replica comes back with a data directory that is not the one it left.
//!
//! It must end with one line that says what to do, or follow without voting; the others go on. For the next round it
//! gets back what it had, log and mark together.

use super::{
    FaultsArguments,
    experiment::Experiment,
    leader,
    phases::{Kind, rounded},
};
use crate::{
    cluster::{Build, Restarted},
    results::quantile,
};
use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::json;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What became of the data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Damage {
    Emptied,
    Older,
    CutShort,
    Foreign,
}

const DAMAGES: [Damage; 4] = [Damage::Emptied, Damage::Older, Damage::CutShort, Damage::Foreign];

/// What stands beside the keys and says that they have spoken.
const MARK: &str = "register.mark";

pub(super) async fn amnesia(arguments: &FaultsArguments) -> anyhow::Result<()> {
    let mut experiment = Experiment::start(arguments, Build::Plain).await?;
    let (mut refused, mut silenced, mut lines_max) = (0, Vec::new(), 0);
    for round in 0..arguments.rounds {
        let (damage, victim) = (DAMAGES[round % DAMAGES.len()], round % arguments.replicas);
        let after = forgets(&mut experiment, victim, damage);
        let (after, lines) = after.await.with_context(|| format!("round {round}: replica {victim}, {damage:?}"))?;
        lines_max = lines_max.max(lines);
        refused += usize::from(after.is_none());
        silenced.extend(after.map(|after| after.as_secs_f64() * 1e3));
    }
    experiment.more.insert("refused", json!(refused));
    experiment.more.insert("follows", json!(silenced.len()));
    experiment.more.insert("lines_max", json!(lines_max));
    experiment.more.insert("silenced_ms", json!(rounded(quantile(&mut silenced, 1.0))));
    experiment.finish(arguments).await
}

/// How long after it was ready the replica was silent, `None` when it refused to start; and the lines that say so.
async fn forgets(
    experiment: &mut Experiment,
    victim: usize,
    damage: Damage,
) -> anyhow::Result<(Option<Duration>, usize)> {
    let directory = experiment.cluster.replica_directory(victim);
    let data = directory.join("data");
    let kept = tempfile::tempdir()?;
    experiment.settled().await?;
    let older = kept.path().join("older");
    experiment.cluster.signal(victim, Signal::STOP)?; // so that the copy is of one moment
    let copied = copy(&data, &older);
    experiment.cluster.signal(victim, Signal::CONT)?;
    copied?;
    experiment.calm().await?;

    let foreign = experiment.cluster.replica_directory((victim + 1) % experiment.cluster.replicas).join("data");
    let leader = leader(&experiment.cluster).await?;
    let phase = experiment.begin(&format!("{damage:?}"), Kind::Faulty).await?;
    experiment.cluster.signal(victim, Signal::KILL)?;
    experiment.cluster.gone(victim).await?;
    let before = Before::keep(&directory, kept.path())?;
    damaged(&data, damage, &older, &foreign)?;
    let restarted = experiment.cluster.restart_or_refusal(victim).await?;
    let silenced = match restarted {
        Restarted::Ready => Some(silenced(experiment, victim).await?),
        Restarted::Refused => None,
    };
    tokio::time::sleep(experiment.length).await;
    experiment.end(phase).await?;
    let said = experiment.cluster.said()?;
    let lines = lines_told(&said, restarted);
    ensure!(lines > 0, "it must say what to do: {said}");
    let led = if leader == victim { ", which led" } else { "" };
    eprintln!("replica {victim}{led}, {damage:?}: {restarted:?}, silent after {silenced:?}: {}", said.trim());

    if restarted == Restarted::Ready {
        experiment.cluster.signal(victim, Signal::KILL)?;
        experiment.cluster.gone(victim).await?;
    }
    before.restore(&directory)?;
    experiment.cluster.restart(victim).await?;
    let status = experiment.cluster.ask(&[victim]).await?;
    ensure!(status[0].register.mode == "durable", "with its own log and mark it votes again: {status:?}");
    Ok((silenced, lines))
}

/// How long it took to hear that the replica must not vote: it was killed, so it knows from its start.
async fn silenced(experiment: &Experiment, victim: usize) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let status = experiment.cluster.ask(&[victim]).await?;
    ensure!(status[0].register.mode == "lost", "it votes with amnesia: {status:?}");
    Ok(began.elapsed())
}

/// How many lines say what to do: those that name the file to be put back, or all of a replica that ends.
fn lines_told(said: &str, restarted: Restarted) -> usize {
    said.lines().filter(|line| restarted == Restarted::Refused || line.contains(MARK)).count()
}

/// What a replica left, to be put back.
struct Before {
    data: PathBuf,
    mark: Option<Vec<u8>>,
}

impl Before {
    fn keep(directory: &Path, place: &Path) -> io::Result<Self> {
        let data = place.join("before");
        copy(&directory.join("data"), &data)?;
        Ok(Self { data, mark: fs::read(directory.join(MARK)).ok() })
    }

    fn restore(&self, directory: &Path) -> io::Result<()> {
        copy(&self.data, &directory.join("data"))?;
        match &self.mark {
            Some(mark) => fs::write(directory.join(MARK), mark),
            None => Ok(()),
        }
    }
}

fn damaged(data: &Path, damage: Damage, older: &Path, foreign: &Path) -> anyhow::Result<()> {
    match damage {
        Damage::Emptied => {
            fs::remove_dir_all(data)?;
            fs::create_dir(data)?;
        }
        Damage::Older => copy(older, data)?,
        Damage::Foreign => copy(foreign, data)?,
        Damage::CutShort => cut_short(data)?,
    }
    Ok(())
}

/// Halves what was written of the newest segment. Behind that are zeros, which were taken in advance.
fn cut_short(data: &Path) -> anyhow::Result<()> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("log-") {
            segments.push(entry.path());
        }
    }
    let newest = segments.into_iter().max().with_context(|| format!("{} holds no log", data.display()))?;
    let written = fs::read(&newest)?.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    fs::File::options().write(true).open(newest)?.set_len(written / 2)?;
    Ok(())
}

/// Makes `to` hold the files of `from`, and nothing else.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<(String, u64)> {
        let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
        let mut names: Vec<_> =
            entries.map(|one| (one.file_name().into_string().unwrap(), one.metadata().unwrap().len())).collect();
        names.sort();
        names
    }

    #[test]
    fn lines_that_say_what_to_do_are_counted() {
        assert_eq!(lines_told("torn\nput back register.mark\n", Restarted::Ready), 1);
        assert_eq!(lines_told("torn\n", Restarted::Ready), 0);
        assert_eq!(lines_told("error: of another replica\n", Restarted::Refused), 1);
        assert_eq!(lines_told("", Restarted::Refused), 0);
    }

    #[test]
    fn each_damage_is_done_and_what_was_there_comes_back() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("replica-0");
        let (data, older, foreign) = (directory.join("data"), place.path().join("older"), place.path().join("foreign"));
        let files = [(&data, "log-1", 200), (&data, "log-2", 100), (&older, "log-1", 60), (&foreign, "log-1", 90)];
        for (path, name, bytes) in files {
            fs::create_dir_all(path).unwrap();
            fs::write(path.join(name), [vec![1; bytes], vec![0; 1_000]].concat()).unwrap();
        }
        fs::write(directory.join(MARK), "mark").unwrap();
        let before = Before::keep(&directory, place.path()).unwrap();
        let whole = names(&data);
        for (damage, expected) in [
            (Damage::Emptied, vec![]),
            (Damage::Older, vec![("log-1".to_owned(), 1_060)]),
            (Damage::Foreign, vec![("log-1".to_owned(), 1_090)]),
            (Damage::CutShort, vec![("log-1".to_owned(), 1_200), ("log-2".to_owned(), 50)]),
        ] {
            damaged(&data, damage, &older, &foreign).unwrap();
            assert_eq!(names(&data), expected, "{damage:?}");
            fs::remove_file(directory.join(MARK)).ok();
            before.restore(&directory).unwrap();
            assert_eq!((names(&data), fs::read(directory.join(MARK)).unwrap()), (whole.clone(), b"mark".to_vec()));
        }
    }
}
