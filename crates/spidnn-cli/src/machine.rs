//! `spidnn machine`: what there is.

use std::time::Instant;

use serde_json::{Map, Value, json};
use spidnn::lease;
use spidnn::reach::{self, Reached};
use spidnn::wire_board::machine_of;
use spidnn::{Error, Machine, Usage};
use spinnaker_host::Link;
use spinnaker_machine::{CORE_MAX, Fidelity, Locator};
use spinnaker_wire::ChipAddress;
use spinnaker_wire::sdp::Endpoint;

use crate::commands::{LEAVING, interrupt_flag};
use crate::output::{self, Answer};

/// Looks at a machine.
///
/// # Errors
/// A locator with a mistake, a machine that does not answer.
pub fn run(locator: &str) -> Result<Answer, Error> {
    let parsed: Locator = locator.parse()?;
    match &parsed {
        Locator::Virtual(v) if v.fidelity == Fidelity::Cycle => reached(reach::instruction_level(v)?, &parsed),
        Locator::Board(b) => {
            let interrupt = interrupt_flag(LEAVING)?;
            reached(reach::network(b, Some(&interrupt))?, &parsed)
        }
        Locator::Spalloc(s) => {
            let interrupt = interrupt_flag(LEAVING)?;
            // Held until all is known.
            let (boards, _job) = reach::allocated(s, Some(&interrupt), |text| eprintln!("{text}"))?;
            reached(boards, &parsed)
        }
        Locator::Virtual(_) => opened(locator),
    }
}

fn opened(locator: &str) -> Result<Answer, Error> {
    let started = Instant::now();
    let machine = Machine::open(locator)?;
    let mut json = output::idle(&machine, started);
    let mut text = format!("{}: ", machine.locator());
    describe(machine.board().machine(), "virtual machine, fidelity fast", &mut text, &mut json);
    json.insert("version".into(), json!({ "spidnn": env!("CARGO_PKG_VERSION"), "monitor": "virtual" }));
    Ok(Answer::new(text, json))
}

/// A machine with monitors: what they say, whoever uses it.
fn reached<L: Link>(reached: Reached<L>, locator: &Locator) -> Result<Answer, Error> {
    let started = Instant::now();
    let Reached { runtime, mut boards } = reached;
    let root = Endpoint::core(ChipAddress::ROOT, 0);
    let monitor = runtime.block_on(boards.root().version(root))?;
    let applications = runtime.block_on(lease::running(&mut boards))?;
    let usage = Usage { wall_time_s: started.elapsed().as_secs_f64(), ..Usage::default() };
    let found = boards.found();
    let machine = machine_of(found);
    let mut json = output::common(&locator.to_string(), found.chips.len(), &usage, "none");
    let (a, b, c) = monitor.version;
    let mut text = format!("{locator}: ");
    describe(&machine, &format!("{} {a}.{b}.{c}", monitor.name), &mut text, &mut json);
    json.insert(
        "version".into(),
        json!({ "spidnn": env!("CARGO_PKG_VERSION"), "monitor": format!("{a}.{b}.{c}"), "monitor_name": monitor.name }),
    );

    let mut ethernet = Vec::new();
    for chip in &found.chips {
        if let Some([a, b, c, d]) = chip.info.ip.filter(|_| chip.info.ethernet_up) {
            text.push_str(&format!("board at chip {}: {a}.{b}.{c}.{d}\n", chip.chip));
            ethernet.push(json!({ "chip": [chip.chip.x(), chip.chip.y()], "address": format!("{a}.{b}.{c}.{d}") }));
        }
    }
    json.insert("ethernet".into(), json!(ethernet));
    for chip in &found.silent {
        text.push_str(&format!("chip {chip} has a route but does not answer\n"));
    }
    json.insert("silent".into(), json!(found.silent.iter().map(|c| [c.x(), c.y()]).collect::<Vec<_>>()));
    let free: Vec<u16> = found.chips.iter().map(|chip| chip.info.routes_free).collect();
    json.insert("routes_free_min".into(), json!(free.iter().min()));
    for app in &applications {
        let (chip, core) = app.first;
        text.push_str(&format!(
            "application {} (`{}`) runs on {} cores, the first: chip {chip} core {core}\n",
            app.app.0, app.name, app.cores
        ));
    }
    let applications = applications.iter().map(|a| json!({ "app_id": a.app.0, "name": a.name, "cores": a.cores }));
    json.insert("applications".into(), applications.collect());
    Ok(Answer::new(text, json))
}

/// Chips, cores and links, and what of a whole machine's is missing.
fn describe(found: &spinnaker_machine::Machine, monitor: &str, text: &mut String, json: &mut Map<String, Value>) {
    let chips: Vec<Value> = found
        .chips
        .iter()
        .map(|(xy, chip)| {
            json!({
                "chip": [xy.x, xy.y],
                "cores": chip.cores,
                "links": chip.links.iter().enumerate().filter(|(_, l)| **l).map(|(i, _)| link_name(i)).collect::<Vec<_>>(),
                "sdram_bytes": chip.sdram_bytes,
                "ethernet": chip.ethernet,
            })
        })
        .collect();
    let links: usize = found.working_links().len();
    let whole = usize::from(CORE_MAX);
    json.insert("boards".into(), json!(found.board_count()));
    json.insert("width".into(), json!(found.width));
    json.insert("height".into(), json!(found.height));
    json.insert("chip_count".into(), json!(found.chips.len()));
    json.insert("core_count".into(), json!(found.core_count()));
    json.insert("link_count".into(), json!(links));
    json.insert("chips".into(), json!(chips));
    text.push_str(&format!(
        "{} board{}, {} chips ({} x {}), {} application cores, {} link ends\nspidnn {}, {monitor}\n",
        found.board_count(),
        if found.board_count() == 1 { "" } else { "s" },
        found.chips.len(),
        found.width,
        found.height,
        found.core_count(),
        links,
        env!("CARGO_PKG_VERSION"),
    ));
    for (xy, chip) in &found.chips {
        if chip.cores.len() < whole {
            text.push_str(&format!("chip {xy}: {} of {whole} application cores work\n", chip.cores.len()));
        }
    }
    if found.chips.values().all(|chip| chip.cores.len() == whole) {
        text.push_str(&format!("every chip has all {whole} application cores\n"));
    }
}

fn link_name(index: usize) -> String {
    spinnaker_machine::Link::from_index(index).map_or_else(|| index.to_string(), |l| l.to_string())
}
