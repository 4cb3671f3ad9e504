//! The order of things: scenario by scenario, round by round, server by server.
//!
//! Rounds are interleaved (Redis, ours, Redis, ours, ...) and a ratio is taken within each round, so that whatever
//! the machine does over minutes (frequency, neighbours, caches) falls on both sides of the same division.

use crate::Failure;
use crate::drive::{Figures, Setting};
use crate::rows::{Bound, Metric, Row, SCENARIOS, Scenario};
use crate::server::{Contestant, Server};

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The yardstick.
    pub reference: Contestant,
    /// Those who are compared with it; ours is the first.
    pub others: Vec<Contestant>,
    /// Lower-case pieces of row names, of which one must occur; empty means every row.
    pub only: Vec<String>,
    /// Rounds for every scenario, instead of the table's.
    pub rounds: Option<u32>,
    /// Tools and sizes.
    pub setting: Setting,
}

/// One server's values of one row, a value per round.
pub type Cell = Result<Vec<f64>, Failure>;

/// One row with everybody's values.
pub struct Outcome {
    /// The row.
    pub row: &'static Row,
    /// The scenario it came from.
    pub scenario: &'static Scenario,
    /// The yardstick's values.
    pub reference: Cell,
    /// The others' values, in the plan's order.
    pub others: Vec<Cell>,
}

/// A middle with its spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (len, half) = (sorted.len(), sorted.len() / 2);
        assert!(len > 0, "a round that succeeded has a value");
        let median = if len % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Self { median, min: sorted[0], max: sorted[len - 1] }
    }
}

/// How a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Reaches the aim.
    Aim,
    /// Keeps the promise.
    Meets,
    /// Does not.
    Misses,
    /// Nothing was promised.
    Open,
}

impl Outcome {
    /// Ratios of one contestant to the yardstick, taken within rounds; none if either has no values or the yardstick
    /// measured zero.
    pub fn ratios(&self, other: usize) -> Option<Spread> {
        let (reference, values) = (self.reference.as_ref().ok()?, self.others[other].as_ref().ok()?);
        let ratios: Vec<f64> = reference.iter().zip(values).map(|(theirs, ours)| ours / theirs).collect();
        ratios.iter().all(|ratio| ratio.is_finite()).then(|| Spread::of(&ratios))
    }

    /// How ours stands; none if it has no figure.
    pub fn verdict(&self) -> Option<Verdict> {
        let holds = |bound: Bound| match bound {
            Bound::Ratio(limit) => Some(self.ratios(0)?.median <= limit),
            Bound::Value(limit) => Some(Spread::of(self.others[0].as_ref().ok()?).median <= limit),
        };
        let Some(must) = self.row.must else {
            return self.others[0].is_ok().then_some(Verdict::Open);
        };
        Some(match (holds(must)?, self.row.aim.map(holds)) {
            (false, _) => Verdict::Misses,
            (true, Some(Some(true))) => Verdict::Aim,
            (true, _) => Verdict::Meets,
        })
    }

    /// Whether something other than a missing command kept a server from its figure.
    pub fn broken(&self) -> bool {
        let is_broken = |cell: &Cell| matches!(cell, Err(Failure::Broken(_)));
        is_broken(&self.reference) || self.others.iter().any(is_broken)
    }
}

impl Plan {
    /// Whether `--only` lets a row through.
    pub fn wants(&self, row: &Row) -> bool {
        let name = row.name.to_lowercase();
        let metric = row.metric.title().to_lowercase();
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part) || metric.contains(part))
    }

    /// Runs everything wanted. `progress` hears one line per round and contestant, and each row when it is complete.
    pub fn run(&self, progress: &mut dyn FnMut(Progress<'_>)) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for scenario in SCENARIOS {
            if !scenario.rows.iter().any(|row| self.wants(row)) {
                continue;
            }
            for outcome in self.run_one(scenario, progress) {
                progress(Progress::Row(&outcome));
                outcomes.push(outcome);
            }
        }
        outcomes
    }

    fn run_one(&self, scenario: &'static Scenario, progress: &mut dyn FnMut(Progress<'_>)) -> Vec<Outcome> {
        let contestants: Vec<&Contestant> = std::iter::once(&self.reference).chain(&self.others).collect();
        let mut results: Vec<Result<Vec<Figures>, Failure>> = vec![Ok(Vec::new()); contestants.len()];
        let rounds = self.rounds.unwrap_or(scenario.rounds);
        for round in 1..=rounds {
            for (contestant, result) in contestants.iter().zip(&mut results) {
                // Whoever failed once is not tried again: a command does not appear between rounds.
                let Ok(figures) = result else { continue };
                progress(Progress::Round {
                    name: scenario.rows[0].name,
                    who: &contestant.name,
                    round,
                    rounds,
                });
                let once = Server::start(contestant, scenario.threads).and_then(|server| {
                    scenario.drive.run(&server, &self.setting).map_err(|failure| server.explain(failure))
                });
                match once {
                    Ok(once) => figures.push(once),
                    Err(failure) => *result = Err(failure),
                }
            }
        }
        let cell = |result: &Result<Vec<Figures>, Failure>, metric: Metric| -> Cell {
            let rounds = result.as_ref().map_err(Clone::clone)?;
            Ok(rounds.iter().map(|figures| figure(figures, metric)).collect())
        };
        let wanted = scenario.rows.iter().filter(|row| self.wants(row));
        wanted
            .map(|row| Outcome {
                row,
                scenario,
                reference: cell(&results[0], row.metric),
                others: results[1..].iter().map(|result| cell(result, row.metric)).collect(),
            })
            .collect()
    }
}

/// What is going on, for somebody who waits.
pub enum Progress<'a> {
    /// A round of a scenario begins for one server.
    Round {
        /// The scenario's first row.
        name: &'static str,
        /// The server.
        who: &'a str,
        /// Which round.
        round: u32,
        /// Of how many.
        rounds: u32,
    },
    /// A row is complete.
    Row(&'a Outcome),
}

/// A row asks only for metrics that its drive yields: the table and the drives are ours, so anything else is a bug.
fn figure(figures: &Figures, metric: Metric) -> f64 {
    let found = figures.iter().find(|(name, _)| *name == metric);
    found.unwrap_or_else(|| panic!("a drive does not yield {}", metric.title())).1
}

#[cfg(test)]
mod test {
    use super::{Cell, Outcome, Spread, Verdict};
    use crate::Failure;
    use crate::rows::{Bound, Metric, Row, SCENARIOS};

    const ROW: Row = Row {
        name: "row",
        metric: Metric::Cpu,
        must: Some(Bound::Ratio(0.5)),
        aim: Some(Bound::Ratio(0.25)),
    };

    fn outcome(row: &'static Row, reference: &[f64], ours: Cell) -> Outcome {
        Outcome { row, scenario: &SCENARIOS[0], reference: Ok(reference.to_vec()), others: vec![ours] }
    }

    /// Medians of odd and even counts.
    #[test]
    fn spreads() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
    }

    /// Ratios are taken within rounds: a machine that slows down by half between rounds changes no ratio.
    #[test]
    fn ratios_are_paired() {
        let outcome = outcome(&ROW, &[10.0, 20.0, 40.0], Ok(vec![4.0, 8.0, 16.0]));
        assert_eq!(outcome.ratios(0), Some(Spread { median: 0.4, min: 0.4, max: 0.4 }));
        assert_eq!(outcome.verdict(), Some(Verdict::Meets));
    }

    /// The verdict follows promise and aim; bounds on values ignore the yardstick; a failure has no verdict.
    #[test]
    fn verdicts() {
        assert_eq!(outcome(&ROW, &[1.0], Ok(vec![0.2])).verdict(), Some(Verdict::Aim));
        assert_eq!(outcome(&ROW, &[1.0], Ok(vec![0.6])).verdict(), Some(Verdict::Misses));
        const VALUE: Row =
            Row { name: "v", metric: Metric::Longest, must: Some(Bound::Value(10.0)), aim: None };
        assert_eq!(outcome(&VALUE, &[0.0], Ok(vec![9.0])).verdict(), Some(Verdict::Meets));
        const OPEN: Row = Row { name: "o", metric: Metric::Cpu, must: None, aim: None };
        assert_eq!(outcome(&OPEN, &[1.0], Ok(vec![9.0])).verdict(), Some(Verdict::Open));
        let absent = outcome(&ROW, &[1.0], Err(Failure::NotYet(String::new())));
        assert_eq!((absent.verdict(), absent.broken()), (None, false));
        assert!(outcome(&ROW, &[1.0], Err(Failure::Broken(String::new()))).broken());
    }
}
