//! `--snapshot_cron`: when the next save is due.

use std::sync::Arc;

use damselfly_config::cron::Cron;

use super::{Format, Listeners, Order, begin, clock};
use crate::shared::Shared;

/// Looks at the clock now and then. A save is due if a minute of the schedule has begun since the last look; of
/// several that have, because the machine slept, one counts.
pub struct Schedule {
    /// As it was set.
    text: String,
    cron: Option<Cron>,
    looked_s: i64,
}

impl Schedule {
    /// A schedule that begins now.
    pub fn new() -> Schedule {
        Schedule { text: String::new(), cron: None, looked_s: (Shared::now_ms() / 1000) as i64 }
    }

    /// Whether a save is due at `now_s`, by the schedule in `text`.
    fn is_due(&mut self, text: &str, now_s: i64, offset_s: i32) -> bool {
        if text != self.text {
            self.text = text.to_owned();
            // What was set has been parsed before.
            self.cron = Cron::parse(text).ok();
            self.looked_s = now_s;
        }
        let since = std::mem::replace(&mut self.looked_s, now_s);
        let next = self.cron.as_ref().and_then(|cron| cron.next_after(since, offset_s));
        next.is_some_and(|next| next <= now_s)
    }

    /// Begins a save if one is due.
    pub fn look(&mut self, shared: &Arc<Shared>) {
        let now_s = Shared::now_ms() / 1000;
        let offset_s = clock::local(now_s).offset_s;
        if !self.is_due(&shared.settings.snapshot_cron(), now_s as i64, offset_s) {
            return;
        }
        if let Err(error) = begin(shared, Order::usual(shared), Listeners::default()) {
            tracing::warn!("the scheduled save was left out: {error}");
        }
    }
}

impl Order {
    /// What is saved when nobody says more: as the settings have it.
    pub fn usual(shared: &Shared) -> Order {
        Order {
            name: shared.settings.dbfilename().to_string(),
            format: if shared.config.df_snapshot_format { Format::Dfs } else { Format::Rdb },
            locked: false,
            foreground: false,
            yields: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    /// Due once per minute of the schedule, at once after a change, not for what was before it, never when it is
    /// empty; and a sleeping machine does not make up for what it missed.
    #[test]
    fn due() {
        let mut schedule = Schedule { text: String::new(), cron: None, looked_s: 0 };
        let mut due = |text: &str, now_s: i64| schedule.is_due(text, now_s, 0);
        assert!(!due("", 100) && !due("", 1000));
        assert!(!due("* * * * *", 1000), "the minute had begun");
        assert!(!due("* * * * *", 1019));
        assert!(due("* * * * *", 1020));
        assert!(!due("* * * * *", 1021));
        assert!(due("* * * * *", 10_000));
        assert!(!due("* * * * *", 10_001));
        assert!(!due("0 5 * * *", 17_999));
        assert!(due("0 5 * * *", 18_000), "05:00");
        assert!(!due("", 18_060));
    }
}
