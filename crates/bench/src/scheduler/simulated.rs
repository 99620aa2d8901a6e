//! On virtual cores: what a schedule makes wait. The same figures on every machine, so a goal that is missed is an error.

use super::{Figures, Measured, RESULTS, SchedulerArguments, hundredths};
use crate::results::{Row, keep};
use anyhow::{Context, bail};
use serde_json::json;
use unisono_scheduler::presets::Preset;
use unisono_sim::cores::{Best, Feeding, Machine, Profile, Script, Setting};

/// C in microseconds.
const C_US: u64 = 20;

/// The goals are for so many cores.
const CORES: usize = 16;

/// Requests of a run that is kept, and of one that looks for the best setting.
const REQUESTS: usize = 20_000;
const REQUESTS_OF_SEARCH: usize = 4_000;

/// A batch each 200 us, agreed upon 1 ms later: what a cluster in one machine room does.
const FED: Feeding = Feeding::Batches { every: 200_000, agreement: 1_000_000 };

pub(super) fn execute(arguments: &SchedulerArguments, profiles: &[Profile]) -> anyhow::Result<()> {
    let cores = arguments.cores.unwrap_or(CORES).max(1);
    let figures: Vec<Figures> =
        profiles.iter().map(|profile| figures(profile, cores, arguments)).collect::<Result<_, _>>()?;
    if arguments.json {
        println!("{}", json!({"cores": cores, "profiles": figures}));
    } else {
        figures.iter().for_each(|figures| figures.print(figures.name));
    }
    if arguments.keep {
        let table = format!("{cores} simulated cores, C = {C_US} us");
        let rows: Vec<Row> = figures.iter().map(|figures| figures.row(&table, figures.name.into())).collect();
        eprintln!("kept in {}", keep(RESULTS, &rows)?.display());
    }
    let missed: Vec<&str> = figures
        .iter()
        .filter(|figures| figures.goal.is_some_and(|goal| figures.best < goal))
        .map(|figures| figures.name)
        .collect();
    if !missed.is_empty() {
        bail!("below its goal: {}", missed.join(", "));
    }
    Ok(())
}

fn figures(profile: &Profile, cores: usize, arguments: &SchedulerArguments) -> anyhow::Result<Figures> {
    let machine = Machine::of(cores);
    let shrink = if arguments.small { 2 } else { 1 };
    let scripts = |count: usize, seed: u64| profile.scripts(count / shrink, C_US * 1_000, seed);
    // What is searched with is not what is measured with.
    let best =
        |settings: &[Setting]| Best::of(settings, &machine, &scripts(REQUESTS_OF_SEARCH, 0)).context("no setting");
    let mut grid = Setting::grid(cores);
    if arguments.small {
        grid.retain(
            |setting| matches!(setting, Setting::Uds(parameters, _) if parameters.primaries as usize == 16 * cores),
        );
    }
    let mut settings = vec![best(&Setting::pools(cores))?.setting, best(&grid)?.setting, Setting::Declared];
    settings.extend(Preset::NAMES.iter().filter_map(|name| Preset::named(name)).map(Setting::Preset));

    let loads: Vec<Vec<Script>> = (1..=arguments.runs.max(1) as u64).map(|seed| scripts(REQUESTS, seed)).collect();
    let speed_ups = |setting: Setting| {
        let runs = loads.iter().map(|load| setting.run(&machine, load).speed_up).collect();
        (setting, runs)
    };
    let measured = Measured {
        profile: *profile,
        c_us: C_US,
        sequential: loads.iter().map(|load| Setting::Sequential.run(&machine, load).sequential).collect(),
        settings: settings.into_iter().map(speed_ups).collect(),
        steal: 0.0,
    };
    let goal = profile.goal.filter(|_| cores == CORES).map(|(_, ours)| ours);
    let best = measured.best();
    let fed = Machine { feeding: FED, ..machine };
    let fed = best.0.run(&fed, &loads[0]).speed_up;
    Ok(Figures { goal, fed: Some(hundredths(fed)), ..measured.figures() })
}
