//! `spidnn app`: any application on a machine with monitors.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use spidnn::lease;
use spidnn::reach::{self, Reached};
use spidnn::{Error, Usage};
use spinnaker_host::{Boards, Link};
use spinnaker_machine::{Fidelity, Locator};
use spinnaker_wire::scp::{Signal, SignalWord, StartWord};
use spinnaker_wire::vcpu::{CoreState, Vcpu};
use spinnaker_wire::{AppId, ChipAddress, CoreMask};

use crate::output::{self, Answer};
use crate::{args, commands};

/// Numbers of applications that users have; those below 16 are the system's, 16 is the usual one of other tools.
const APPS: std::ops::RangeInclusive<u8> = 17..=254;
/// Times between looks at the cores.
const PAUSE: Duration = Duration::from_millis(20);
/// Text of a core that is shown at most, in bytes; JSON has all of it.
const TEXT_MAX_BYTES: usize = 4096;

/// Cores by chip.
type Cores = BTreeMap<(u8, u8), CoreMask>;

/// Loads, runs, shows.
///
/// # Errors
/// Bad arguments, no application file, a machine that does not answer.
pub fn run(options: &args::App) -> Result<Answer, Error> {
    let locator: Locator = options.locator.parse()?;
    let stop_now = commands::interrupt_flag("stopping the application (again: at once)")?;
    match &locator {
        Locator::Virtual(v) if v.fidelity == Fidelity::Fast => Err(Error::Argument(format!(
            "{locator}: machines of fidelity=fast run SpiDNN's own programs only; for any other application add fidelity=cycle"
        ))),
        Locator::Virtual(v) => with(reach::instruction_level(v)?, &locator, options, &stop_now),
        Locator::Board(b) => with(reach::network(b, Some(&stop_now))?, &locator, options, &stop_now),
        Locator::Spalloc(s) => {
            // Held to the end.
            let (boards, _job) = reach::allocated(s, Some(&stop_now), |text| eprintln!("{text}"))?;
            with(boards, &locator, options, &stop_now)
        }
    }
}

fn with<L: Link>(
    reached: Reached<L>,
    locator: &Locator,
    options: &args::App,
    stop_now: &AtomicBool,
) -> Result<Answer, Error> {
    let Reached { runtime, mut boards } = reached;
    let started = Instant::now();
    let begin_s = boards.now().as_secs_f64();
    let (mut text, mut json) = match (options.stop, &options.file) {
        (Some(app), _) => {
            runtime.block_on(async {
                boards.clean_up(AppId(app)).await?;
                // Also that of a session of another computer, which nobody else takes away.
                lease::mark(&mut boards, false).await
            })?;
            let mut json = Map::new();
            json.insert("stopped".into(), json!(app));
            (format!("application {app} is stopped\n"), json)
        }
        (None, Some(path)) => {
            let file = std::fs::read(path).map_err(|e| Error::Argument(format!("{}: {e}", path.display())))?;
            spinnaker_wire::aplx::Aplx::new_checked(&file)
                .map_err(|e| Error::Argument(format!("{}: no application: {e}", path.display())))?;
            let cores = parse_cores(&options.cores, &boards)?;
            runtime.block_on(load_and_show(&mut boards, &file, &cores, options, stop_now))?
        }
        (None, None) => return Err(Error::Argument("wants a FILE.aplx, or --stop ID".into())),
    };
    let usage = Usage {
        machine_time_s: boards.now().as_secs_f64() - begin_s,
        wall_time_s: started.elapsed().as_secs_f64(),
        ..Usage::default()
    };
    let mut all = output::common(&locator.to_string(), boards.found().chips.len(), &usage, "none");
    all.append(&mut json);
    text.push_str(&format!("machine time {:.3} s, wall time {:.1} s\n", usage.machine_time_s, usage.wall_time_s));
    Ok(Answer::new(text, all))
}

/// `0,0:1-16`, `1,2:3,5`, `all:1-16`.
fn parse_cores<L: Link>(words: &[String], boards: &Boards<L>) -> Result<Cores, Error> {
    let bad = |word: &str| {
        Error::Argument(format!(
            "--cores {word}: wants X,Y:CORES such as 0,0:1-16 or 1,2:3,5, or all:CORES; cores are 1 to 17"
        ))
    };
    let found: BTreeMap<(u8, u8), u8> =
        boards.found().chips.iter().map(|chip| ((chip.chip.x(), chip.chip.y()), chip.info.cores)).collect();
    let mut cores = Cores::new();
    for word in words {
        let (place, list) = word.split_once(':').ok_or_else(|| bad(word))?;
        let mut mask = 0;
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = first.parse().ok().zip(last.parse().ok()).ok_or_else(|| bad(word))?;
            if first < 1 || last > 17 || first > last {
                return Err(bad(word));
            }
            mask |= CoreMask::range(first, last).0;
        }
        if place == "all" {
            // As far as a chip has them.
            cores.extend(
                found.iter().map(|(at, count)| (*at, CoreMask(mask & CoreMask::range(1, u32::from(*count) - 1).0))),
            );
            continue;
        }
        let (x, y) = place.split_once(',').ok_or_else(|| bad(word))?;
        let at: (u8, u8) = x.parse().ok().zip(y.parse().ok()).ok_or_else(|| bad(word))?;
        let count = *found
            .get(&at)
            .ok_or_else(|| Error::Argument(format!("--cores {word}: there is no working chip {},{}", at.0, at.1)))?;
        if mask >> count != 0 {
            return Err(Error::Argument(format!(
                "--cores {word}: chip {},{} has cores 1 to {}",
                at.0,
                at.1,
                count - 1
            )));
        }
        cores.entry(at).or_default().0 |= mask;
    }
    cores.retain(|_, mask| mask.0 != 0);
    Ok(cores)
}

async fn load_and_show<L: Link>(
    boards: &mut Boards<L>,
    file: &[u8],
    cores: &Cores,
    options: &args::App,
    stop_now: &AtomicBool,
) -> Result<(String, Map<String, Value>), Error> {
    let running = lease::running(boards).await?;
    let app = match options.app_id {
        Some(id) if !APPS.contains(&id) => {
            return Err(Error::Argument(format!("--app-id {id}: users have {} to {}", APPS.start(), APPS.end())));
        }
        Some(id) => id,
        None => boards.free_app().await?.0,
    };
    let taken = running.iter().find(|r| r.app.0 == app);
    if let Some(taken) = taken {
        return Err(Error::Busy { board: boards.root().link().board(), running: taken.clone() });
    }
    for (&(x, y), mask) in cores {
        let chip = ChipAddress::new(x, y);
        boards.at(chip).load(chip, file, StartWord { app: AppId(app), flags: 0, cores: *mask }).await?;
    }
    let shown = watch(boards, AppId(app), cores, options, stop_now).await;
    // Also when it cannot be shown: nothing is left behind.
    if !options.keep {
        boards.clean_up(AppId(app)).await?;
    }
    shown
}

/// Waits for the end of the cores, lets those go that wait for a start, and shows all.
async fn watch<L: Link>(
    boards: &mut Boards<L>,
    app: AppId,
    cores: &Cores,
    options: &args::App,
    stop_now: &AtomicBool,
) -> Result<(String, Map<String, Value>), Error> {
    let began = boards.now();
    let count: u32 = cores.values().map(|mask| mask.0.count_ones()).sum();
    let limit = Duration::try_from_secs_f64(options.wait)
        .map_err(|_| Error::Argument(format!("--wait {}: wants seconds", options.wait)))?;
    loop {
        let mut ended = 0;
        for state in [CoreState::Exit, CoreState::RunTimeError, CoreState::Watchdog] {
            ended += boards.count(app, state).await?;
        }
        for (state, signal) in [(CoreState::Sync0, Signal::Sync0), (CoreState::Sync1, Signal::Sync1)] {
            if boards.count(app, state).await? == count {
                boards.root().signal(SignalWord::to_app(signal, app)).await?;
            }
        }
        let over = stop_now.load(Ordering::Relaxed);
        if over || ended >= count || boards.now().saturating_sub(began) >= limit {
            break;
        }
        boards.pause(PAUSE).await?;
    }
    let mut text = format!("application {} on {count} cores of {} chips\n", app.0, cores.len());
    let mut list = Vec::new();
    let place = |(&(x, y), mask): (&(u8, u8), &CoreMask)| {
        let mask = mask.0;
        (1..18).filter(move |core| mask >> core & 1 == 1).map(move |core| (ChipAddress::new(x, y), core))
    };
    let places: Vec<(ChipAddress, u8)> = cores.iter().flat_map(place).collect();
    let texts = boards.texts(&places).await?;
    for (&(chip, core), said) in places.iter().zip(&texts) {
        let vcpu = boards.at(chip).vcpu(chip, core).await?;
        text.push_str(&format!("chip {chip} core {core}: {vcpu}\n"));
        text.push_str(&indented(said));
        list.push(core_json(chip, core, &vcpu, said));
    }
    let mut json = Map::new();
    json.insert("app_id".into(), json!(app.0));
    json.insert("kept".into(), json!(options.keep));
    json.insert("cores".into(), json!(list));
    Ok((text, json))
}

fn indented(said: &str) -> String {
    let end = (0..=TEXT_MAX_BYTES.min(said.len())).rev().find(|at| said.is_char_boundary(*at)).unwrap_or(0);
    let mut text: String = said[..end].lines().map(|line| format!("    {line}\n")).collect();
    if end < said.len() {
        text.push_str(&format!("    .. and {} bytes more (--json has all)\n", said.len() - end));
    }
    text
}

fn core_json(chip: ChipAddress, core: u8, vcpu: &Vcpu, said: &str) -> Value {
    let mut value = json!({
        "chip": [chip.x(), chip.y()],
        "core": core,
        "state": vcpu.state().to_string(),
        "app_id": vcpu.app().0,
        "name": vcpu.name(),
        "user": vcpu.user.map(|word| word.get()),
        "text": said,
    });
    if vcpu.state() == CoreState::RunTimeError {
        value["error"] = json!({
            "what": vcpu.run_time_error().to_string(),
            "registers": vcpu.registers.map(|word| word.get()),
            "psr": vcpu.psr.get(),
            "sp": vcpu.sp.get(),
            "lr": vcpu.lr.get(),
        });
    }
    value
}
