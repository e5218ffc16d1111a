//! `spidnn stream --listen`: inputs from UDP, outputs to UDP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use spidnn::stream::udp::{Bridge, Counters, Keys, Layout, Lost, News, Sdp, StreamUdp, UdpInput, UdpOutput};
use spidnn::{Error, Graph, Model, NodeId};

use crate::args::{Common, Format, Stream};
use crate::commands::{open_data, open_machine, session, write_extras};
use crate::output::{self, Answer};

/// Times that a sender is asked, where it is not said how often.
const TRIES: u32 = 5;

/// Serves until the end of the inputs.
///
/// # Errors
/// Bad settings, or a run that failed.
pub fn run(options: &Stream, common: &Common) -> Result<Answer, Error> {
    let model = Model::open_for_inference(&options.model, common.seed)?;
    let settings = settings(options, model.graph())?;
    let ranges = match &options.inputs {
        Some(inputs) => Some(open_data(inputs, model.graph(), None)?),
        None => None,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    // Without a handler Ctrl-C ends the command all the same, only without figures.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let opened = open_machine(common, Some(&stop))?;
    let mut session = session(model, opened.machine, common)?;
    if let (Format::Int8, None, Some(data)) = (common.format, &common.calibration, &ranges) {
        session.calibrate(data)?;
    }
    let mut bridge = Bridge::open(session.graph(), &settings)?;
    let mut latencies_ns = Vec::new();
    let mut lost = 0;
    {
        let mut stream = session.stream(super::stream_options(options, 0))?;
        announce(&bridge, common)?;
        bridge.serve(&mut stream, options.samples.map(|n| n as u64), &stop, |news| match news {
            News::Answered { latency_ns, .. } => latencies_ns.push(latency_ns),
            News::Lost { first, count } => {
                lost += count;
                if !common.quiet {
                    eprintln!("inputs {first} to {} are lost", first + count - 1);
                }
            }
        })?;
    }
    latencies_ns.sort_unstable();
    let mut json = output::of_session(&session);
    json.insert("samples".into(), json!(latencies_ns.len()));
    let rank = |percent: usize| {
        let at = (latencies_ns.len() * percent).div_ceil(100).saturating_sub(1);
        latencies_ns.get(at).map_or(0.0, |&ns| ns as f64 * 1e-9)
    };
    let counters = bridge.counters();
    json.insert(
        "stream".into(),
        json!({
            "latency_s": { "median": rank(50), "p99": rank(99), "max": rank(100) },
            "lost": lost,
            "udp": counters_json(&counters),
        }),
    );
    let text = format!(
        "{} inputs answered, {lost} lost; latency in machine time: median {:.3} ms, 99 of 100 within {:.3} ms\n{}\n{}",
        latencies_ns.len(),
        rank(50) * 1e3,
        rank(99) * 1e3,
        counters_text(&counters),
        output::usage_line(&session.usage())
    );
    let answer = Answer::new(text, json);
    write_extras(common, opened.events.as_ref(), &session, &answer)?;
    Ok(answer)
}

/// Says where inputs are awaited.
fn announce(bridge: &Bridge, common: &Common) -> Result<(), Error> {
    let addresses: Vec<String> = bridge.addresses()?.iter().map(ToString::to_string).collect();
    if common.json {
        println!("{}", json!({ "listen": addresses }));
    } else {
        eprintln!("inputs are awaited at {}", addresses.join(", "));
    }
    Ok(())
}

fn settings(options: &Stream, graph: &Graph) -> Result<StreamUdp, Error> {
    let base = number(&options.keys)?;
    let elements = |node: &NodeId| graph.node(*node).shape.iter().product::<usize>();
    if options.listen.len() != graph.inputs.len() {
        return Err(Error::Argument(format!(
            "the network has {} inputs, and --listen is given {} times: give an address for each",
            graph.inputs.len(),
            options.listen.len()
        )));
    }
    if options.send.len() > graph.outputs.len() {
        return Err(Error::Argument(format!(
            "the network has {} outputs, and --send is given {} times",
            graph.outputs.len(),
            options.send.len()
        )));
    }
    let mut inputs = Vec::new();
    for (&listen, node) in options.listen.iter().zip(&graph.inputs) {
        let layout = match &options.sdp {
            Some(text) => Layout::Sdp(sdp(text)?),
            None => Layout::Keys(Keys::for_elements(base, elements(node))?),
        };
        inputs.push(UdpInput { listen, layout, sources: options.source.clone() });
    }
    let mut outputs = Vec::new();
    for (output, (&to, node)) in options.send.iter().zip(&graph.outputs).enumerate() {
        outputs.push(UdpOutput { output, to, keys: Keys::for_elements(base, elements(node))? });
    }
    let patience = Duration::from_millis(options.patience.max(1));
    Ok(StreamUdp { inputs, outputs, lost: lost(&options.lost)?, patience })
}

fn number(text: &str) -> Result<u32, Error> {
    let found = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    found.map_err(|e| Error::Argument(format!("--keys {text}: {e}; give a number of 32 bits such as 0x50000000")))
}

fn sdp(text: &str) -> Result<Sdp, Error> {
    let parsed = text.split_once(',').and_then(|(tag, port)| Some((tag.parse().ok()?, port.parse().ok()?)));
    let (tag, port) =
        parsed.ok_or_else(|| Error::Argument(format!("--sdp {text}: give a tag and a port (0 to 7) such as 3,2")))?;
    Ok(Sdp { tag, port })
}

fn lost(text: &str) -> Result<Lost, Error> {
    match text.split_once(':') {
        None if text == "report" => Ok(Lost::Report),
        None if text == "resend" => Ok(Lost::Resend { tries_max: TRIES }),
        Some(("resend", tries)) if tries.parse::<u32>().is_ok() => {
            Ok(Lost::Resend { tries_max: tries.parse().unwrap_or(TRIES) })
        }
        _ => Err(Error::Argument(format!("--lost {text}: give report, resend, or resend:N"))),
    }
}

fn counters_json(c: &Counters) -> serde_json::Value {
    json!({
        "received": c.received,
        "strangers": c.strangers,
        "foreign": c.foreign,
        "malformed": c.malformed,
        "out_of_window": c.out_of_window,
        "duplicates": c.duplicates,
        "overrun": c.overrun,
        "asked": c.asked,
        "resent": c.resent,
    })
}

fn counters_text(c: &Counters) -> String {
    format!(
        "{} datagrams; ignored: {} of strangers, {} with other keys or tags, {} malformed, {} out of sequence; {} duplicates, {} without room; asked again {} times, sent again {} times",
        c.received, c.strangers, c.foreign, c.malformed, c.out_of_window, c.duplicates, c.overrun, c.asked, c.resent
    )
}
