//! LATENCY: when something took too long, and how the times of commands are distributed.

use std::collections::BTreeMap;

use damselfly_commands::{Args, CommandError};

use super::{Outcome, exactly, help, wait};
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::latency::{Events, Histogram, Samples};
use crate::stats::names;

/// LATENCY subcommand
pub fn latency(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let word = args.take()?;
    match word.to_ascii_uppercase().as_slice() {
        b"LATEST" => {
            exactly(&args, 0, "latency|latest")?;
            with_events(core, id, move |core, events| {
                core.answer_with(id, |out| {
                    out.array(events.len());
                    for (name, event) in &events {
                        let (at, ms) = event.samples.back().copied().unwrap_or_default();
                        out.array(4);
                        out.bulk(name.as_bytes());
                        out.int(at as i64);
                        out.int(ms as i64);
                        out.int(event.max_ms as i64);
                    }
                });
            })
        }
        b"HISTORY" => {
            exactly(&args, 1, "latency|history")?;
            let wanted = args.take()?.to_vec();
            with_events(core, id, move |core, events| {
                let samples =
                    find(&events, &wanted).map(|(_, event)| event.samples.clone()).unwrap_or_default();
                core.answer_with(id, |out| {
                    out.array(samples.len());
                    for (at, ms) in samples {
                        out.array(2);
                        out.int(at as i64);
                        out.int(ms as i64);
                    }
                });
            })
        }
        b"GRAPH" => {
            exactly(&args, 1, "latency|graph")?;
            let wanted = args.take()?.to_vec();
            with_events(core, id, move |core, events| match find(&events, &wanted) {
                Some((name, event)) => {
                    let graph = draw(name, event, core.ks.now / 1000);
                    core.answer_with(id, |out| out.verbatim("txt", graph.as_bytes()));
                }
                None => {
                    let wanted = String::from_utf8_lossy(&wanted);
                    core.answer_error_with(id, &format!("ERR No samples available for event '{wanted}'"));
                }
            })
        }
        b"RESET" => {
            let names: Vec<Vec<u8>> = args.rest().map(<[u8]>::to_vec).collect();
            core.ask_all(
                move |core| {
                    let is_named =
                        |name: &str| names.is_empty() || names.iter().any(|named| named == name.as_bytes());
                    core.stats
                        .events
                        .extract_if(.., |name, _| is_named(name))
                        .map(|(name, _)| name)
                        .collect::<Vec<_>>()
                },
                move |core, removed| {
                    let removed: std::collections::BTreeSet<&str> = removed.into_iter().flatten().collect();
                    core.answer_with(id, |out| out.int(removed.len() as i64));
                },
            );
            wait(core, id)
        }
        b"DOCTOR" => {
            exactly(&args, 0, "latency|doctor")?;
            let threshold = core.shared.settings.latency_monitor_threshold();
            with_events(core, id, move |core, events| {
                let text = explain(&events, threshold);
                core.answer_with(id, |out| out.verbatim("txt", text.as_bytes()));
            })
        }
        b"HISTOGRAM" => histogram(core, id, args),
        b"HELP" => {
            exactly(&args, 0, "latency|help")?;
            help(core, id, "LATENCY", HELP)
        }
        _ => Err(CommandError::unknown_subcommand("latency", word)),
    }
}

/// Goes on with the events of all cores.
fn with_events(core: &mut Core, id: ConnectionId, then: impl FnOnce(&mut Core, Events) + 'static) -> Outcome {
    core.ask_all(
        |core| core.stats.events.clone(),
        move |core, of_cores| {
            let mut by_name = BTreeMap::<&'static str, Vec<Samples>>::new();
            for (name, samples) in of_cores.into_iter().flatten() {
                by_name.entry(name).or_default().push(samples);
            }
            then(core, by_name.into_iter().map(|(name, samples)| (name, Samples::merged(samples))).collect());
        },
    );
    wait(core, id)
}

fn find<'a>(events: &'a Events, wanted: &[u8]) -> Option<(&'static str, &'a Samples)> {
    events.iter().find(|(name, _)| name.as_bytes() == wanted).map(|(name, samples)| (*name, samples))
}

/// LATENCY HISTOGRAM [command ...]
fn histogram(core: &mut Core, id: ConnectionId, args: Args<'_>) -> Outcome {
    let names: Vec<String> = names().collect();
    let wanted: Vec<(usize, String)> = if args.is_empty() {
        names.into_iter().enumerate().collect()
    } else {
        // A container stands for its sub-commands.
        let is_of = |name: &str, wanted: &[u8]| {
            [name, name.split('|').next().unwrap_or(name)]
                .iter()
                .any(|name| name.as_bytes().eq_ignore_ascii_case(wanted))
        };
        let found = |wanted| names.iter().cloned().enumerate().filter(move |(_, name)| is_of(name, wanted));
        args.rest().flat_map(found).collect()
    };
    core.ask_all(
        |core| core.stats.histograms.clone(),
        move |core, of_cores| {
            let mut found = Vec::new();
            for (index, name) in wanted {
                let mut sum = Histogram::default();
                for histogram in of_cores.iter().filter_map(|core| core[index].as_deref()) {
                    sum.add(histogram);
                }
                if sum.calls() > 0 {
                    found.push((name, sum));
                }
            }
            core.answer_with(id, |out| {
                out.map(found.len());
                for (name, histogram) in &found {
                    out.bulk(name.as_bytes());
                    out.map(2);
                    out.bulk(b"calls");
                    out.int(histogram.calls() as i64);
                    out.bulk(b"histogram_usec");
                    let steps = histogram.cumulative();
                    out.map(steps.len());
                    for (bound, calls) in steps {
                        out.int(bound as i64);
                        out.int(calls as i64);
                    }
                }
            });
        },
    );
    wait(core, id)
}

/// Columns of a graph.
const WIDTH: usize = 80;
/// Lines of a graph, and the marks within a line from low to high.
const LINES: usize = 4;
const MARKS: [u8; 3] = *b"_o#";

/// A bar per sample, oldest left, with its age below.
fn draw(name: &str, event: &Samples, now_s: u64) -> String {
    let times = || event.samples.iter().map(|(_, ms)| *ms);
    let (low, high) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    let worst = event.max_ms;
    let mut text = format!("{name} - high {high} ms, low {low} ms (all time high {worst} ms)\n");
    text.push_str(&"-".repeat(WIDTH));
    text.push('\n');
    let steps = (LINES * MARKS.len()) as u64;
    let samples: Vec<(usize, String)> = event
        .samples
        .iter()
        .map(|(at, ms)| {
            let step = ((ms - low) * steps / (high - low).max(1)).min(steps - 1);
            (step as usize, age(now_s.saturating_sub(*at)))
        })
        .collect();
    for (n, block) in samples.chunks(WIDTH).enumerate() {
        if n > 0 {
            text.push('\n');
        }
        for line in (0..LINES).rev() {
            text.extend(block.iter().map(|(step, _)| match (step / MARKS.len()).cmp(&line) {
                std::cmp::Ordering::Less => ' ',
                std::cmp::Ordering::Equal => char::from(MARKS[step % MARKS.len()]),
                std::cmp::Ordering::Greater => '|',
            }));
            text.push('\n');
        }
        text.extend(block.iter().map(|_| ' '));
        text.push('\n');
        let longest = block.iter().map(|(_, age)| age.len()).max().unwrap_or(0);
        for at in 0..longest {
            text.extend(block.iter().map(|(_, age)| age.as_bytes().get(at).copied().map_or(' ', char::from)));
            text.push('\n');
        }
    }
    text
}

/// An age in the largest unit that fits.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The events in words.
fn explain(events: &Events, threshold_ms: u64) -> String {
    if events.is_empty() {
        return if threshold_ms == 0 {
            "Nothing is being watched: latency-monitor-threshold is 0. Set it to the number of milliseconds from which \
             an event is to be noted, with CONFIG SET latency-monitor-threshold <milliseconds>, and come back later.\n"
                .to_string()
        } else {
            format!("Nothing has taken {threshold_ms} ms or longer since watching began.\n")
        };
    }
    let mut text = String::from("These took longer than they should:\n\n");
    for (n, (name, event)) in events.iter().enumerate() {
        let count = event.samples.len() as u64;
        let average = event.samples.iter().map(|(_, ms)| ms).sum::<u64>() / count.max(1);
        let deviation = event.samples.iter().map(|(_, ms)| ms.abs_diff(average)).sum::<u64>() / count.max(1);
        let first = event.samples.front().map_or(0, |(at, _)| *at);
        let last = event.samples.back().map_or(0, |(at, _)| *at);
        let period = (last - first) as f64 / count.max(1) as f64;
        text.push_str(&format!(
            "{}. {name}: {count} latency spikes (average {average}ms, mean deviation {deviation}ms, period {period:.2} \
             sec). Worst all time event {}ms.\n",
            n + 1,
            event.max_ms
        ));
    }
    text.push_str("\nWhat may help:\n\n");
    if events.contains_key("command") || events.contains_key("fast-command") {
        text.push_str(
            "- SLOWLOG GET names the commands. Commands over many elements (KEYS, SORT, whole big collections) hold \
             their shard until they are done; the SCAN family does the same in small steps.\n",
        );
    }
    if events.contains_key("expire-cycle") {
        text.push_str("- Many keys expire at the same moment. Spread their times to live.\n");
    }
    text.push_str("- Compare with the load of the machine: a core that another process uses cannot serve.\n");
    text
}

const HELP: &[&str] = &[
    "DOCTOR",
    "    Explain the samples in words.",
    "GRAPH <event>",
    "    Draw the samples of an event.",
    "HISTOGRAM [<command> ...]",
    "    Tell how the times of these commands, or of all, are distributed.",
    "HISTORY <event>",
    "    List the samples of an event.",
    "LATEST",
    "    List the latest sample of each event.",
    "RESET [<event> ...]",
    "    Forget the samples of these events, or of all.",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The same samples as in a graph of Redis 7.0.
    #[test]
    fn graph() {
        let mut event = Samples::default();
        for (at, ms) in [(86, 20), (87, 50), (89, 30)] {
            event.note(at, ms);
        }
        let expected = format!(
            "command - high 50 ms, low 20 ms (all time high 50 ms)\n{}\n # \n | \n |o\n_||\n   \n431\nsss\n",
            "-".repeat(80)
        );
        assert_eq!(draw("command", &event, 90), expected);
    }
}
